import numpy as np
import pytest

from headway.core.split_half import disagreement, halves, overthinking


def drawn(rng, values, branches):
    """Branches of a trace with these true values."""
    return (rng.random((len(values), branches)) < np.array(values)[:, None]).astype(float)


def over_traces(values, *, branches=8, traces=4000, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([overthinking(drawn(rng, values, branches)) for _ in range(traces)])


def test_by_hand():
    # halves: 1 1 / 0 1 / 0 0 and 1 0 / 1 1 / 0 0. One chooses 0 where the other says 0.5 - 0; the other 1, 0.5 - 0
    rewards = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    one, other = halves(rewards)
    assert one.values.tolist() == [1.0, 0.5, 0.0] and other.values.tolist() == [0.5, 1.0, 0.0]
    assert overthinking(rewards) == (1.0, 1.0, 0.5)


def test_the_last_of_equals_is_no_overthinking():
    assert overthinking(np.ones((4, 4))) == (0.0, 0.0, 0.0)
    assert overthinking(np.ones((1, 4))) == (0.0, 0.0, 0.0)


def test_noise_alone_looks_like_overthinking_and_is_not():
    raw, corrected, gain = over_traces([0.5] * 6).mean(axis=0)
    assert raw > 0.6
    # 4000 traces; the deviation of a sign is at most 1, of a gain at most 0.4
    assert corrected == pytest.approx(0.0, abs=4 * 1 / 4000**0.5)
    assert gain == pytest.approx(0.0, abs=4 * 0.4 / 4000**0.5)


def test_a_value_that_was_higher_is_found_with_its_size():
    raw, corrected, gain = over_traces([0.1, 0.95, 0.3]).mean(axis=0)
    assert raw > 0.9 and corrected > 0.8
    # never more than the best stop gives, and near it
    assert 0.55 < gain <= 0.65 + 0.02


def test_steady_progress_is_never_overthinking():
    raw, corrected, gain = over_traces([0.1, 0.3, 0.5, 0.7], branches=4).mean(axis=0)
    assert raw > 0.1
    assert corrected < 0 and gain < 0


def test_what_is_not_known_stays_unknown():
    unknown = np.array([[1.0, 1.0, 1.0, 1.0], [np.nan] * 4])
    assert np.isnan(overthinking(unknown)).all()
    assert np.isnan(overthinking(np.full((2, 4), np.nan))).all()
    one_branch = overthinking(np.array([[1.0], [0.0]]))
    assert one_branch.raw == 1.0 and np.isnan(one_branch[1:]).all()


def ratio(rewards):
    found = disagreement(rewards)
    return np.nansum(found.squared) / np.nansum(found.expected)


@pytest.mark.parametrize("branches", [4, 8])
def test_independent_branches_disagree_as_their_errors_say(branches):
    rewards = drawn(np.random.default_rng(1), np.random.default_rng(2).random(20000), branches)
    assert ratio(rewards) == pytest.approx(1.0, abs=0.05)


def test_copied_branches_are_noticed():
    once = drawn(np.random.default_rng(3), np.full(2000, 0.5), 4)
    assert ratio(np.repeat(once, 2, axis=1)) == 0.0  # each copy in the other half
    assert ratio(once[:, [0, 1, 0, 1, 2, 3, 2, 3]]) > 2  # each copy in the same half


def test_too_few_branches_say_nothing():
    assert np.isnan(disagreement(np.array([[1.0, 0.0, 1.0]]))).all()
