import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.progress import progress, progress_stderr
from headway.core.values import from_branches


def test_progress_by_hand():
    assert progress(np.array([0.25, 0.25, 0.0, 1.0])).tolist() == [0.0, -0.25, 1.0]


def test_progress_telescopes_whatever_the_cut():
    values = np.random.default_rng(0).random(9)
    for cut in ([0, 8], [0, 3, 8], range(9)):
        assert progress(values[list(cut)]).sum() == pytest.approx(values[8] - values[0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_progress_is_bounded_and_sums_to_the_ends(values):
    made = progress(np.array(values))
    assert len(made) == len(values) - 1
    assert (np.abs(made) <= 1).all()
    assert made.sum() == pytest.approx(values[-1] - values[0])


def test_ungraded_value_spoils_only_its_neighbours():
    assert np.isnan(progress(np.array([0.5, np.nan, 0.5, 1.0]))).tolist() == [True, True, False]
    assert np.isnan(progress_stderr(np.array([0.5, np.nan, 0.5, 1.0]))).tolist() == [True, True, False]


def test_a_thought_without_episodes_makes_no_progress():
    assert progress(np.array([0.5])).shape == (0,)
    assert progress_stderr(np.array([0.5])).shape == (0,)


def test_progress_errors_by_hand():
    # 3-4-5 and 5-12-13
    assert progress_stderr(np.array([0.3, 0.4, 0.0])) == pytest.approx([0.5, 0.4])
    assert progress_stderr(np.array([0.05, 0.12])) == pytest.approx([0.13])


def test_squared_errors_of_progress_are_unbiased():
    n, p = 3, (0.2, 0.7)
    outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=2 * n))).reshape(-1, 2, n)
    chances = np.prod(np.where(outcomes == 1, np.array(p)[:, None], 1 - np.array(p)[:, None]), axis=(1, 2))
    estimates = [from_branches(rewards) for rewards in outcomes]
    made = np.array([progress(e.values)[0] for e in estimates])
    variance = chances @ (made - chances @ made) ** 2
    expected = chances @ np.array([progress_stderr(e.stderr)[0] ** 2 for e in estimates])
    assert chances @ made == pytest.approx(p[1] - p[0])
    assert expected == pytest.approx(variance)  # p1 (1 - p1) / 3 + p2 (1 - p2) / 3
