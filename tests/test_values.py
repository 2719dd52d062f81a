import itertools

import numpy as np
import pytest

from headway.values import from_branches


def test_values_by_hand():
    estimate = from_branches(np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert estimate.values.tolist() == [0.25, 0.5, 1.0]
    # sqrt(1/4 * 3/4 / 3) = 1/4; sqrt(1/2 * 1/2 / 3) = 1 / sqrt 12
    assert estimate.stderr == pytest.approx([0.25, 12**-0.5, 0.0])
    assert estimate.n.tolist() == [4, 4, 4]


def test_undecided_branches_are_left_out_and_none_is_no_value():
    nan = np.nan
    estimate = from_branches(np.array([[1.0, nan, 0.0], [1.0, nan, nan], [nan, nan, nan]]))
    assert estimate.n.tolist() == [2, 1, 0]
    assert estimate.values[:2].tolist() == [0.5, 1.0]
    assert np.isnan(estimate.values[2])
    # two graded branches, one of them right: sqrt(1/2 * 1/2 / 1)
    assert estimate.stderr[0] == 0.5
    assert np.isnan(estimate.stderr[1:]).all()


def test_an_undecided_branch_is_not_a_wrong_one():
    undecided, wrong = from_branches(np.array([[1.0, np.nan], [1.0, 0.0]])).values
    assert (undecided, wrong) == (1.0, 0.5)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_squared_error_is_unbiased(n, p):
    outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    chances = np.prod(np.where(outcomes == 1, p, 1 - p), axis=1)
    estimate = from_branches(outcomes)
    assert chances @ estimate.values == pytest.approx(p, abs=1e-12)
    # Var(V) = p (1 - p) / n, over all 2^n outcomes
    assert chances @ estimate.stderr**2 == pytest.approx(p * (1 - p) / n, abs=1e-12)


def test_the_order_of_branches_changes_nothing():
    rewards = np.array([[1.0, 0.0, np.nan, 1.0], [0.0, 0.0, 1.0, np.nan]])
    for a, b in zip(from_branches(rewards), from_branches(rewards[:, ::-1]), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_no_boundary_and_no_branch():
    assert from_branches(np.empty((0, 4))).values.shape == (0,)
    assert np.isnan(from_branches(np.empty((3, 0))).values).tolist() == [True] * 3
