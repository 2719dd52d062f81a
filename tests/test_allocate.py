"""Allocation: Neyman's optimum, priors that foretell, values that stay unbiased."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.allocation import Beta, Locations, equal_precision, group_prior, negligible, neighbour_counts, neyman
from headway.core.regret import normalized_regret, step_weights

UNIT = 2


def places(problems: int, traces: int, boundaries: int) -> Locations:
    every = problems * traces
    return Locations(
        np.repeat(np.arange(every), boundaries),
        np.repeat(np.arange(problems), traces * boundaries),
        np.tile(np.arange(boundaries), every),
    )


def squared_error(weights, variance, n):
    return np.sum(weights**2 * variance / n)


def test_no_other_allocation_of_as_many_branches_is_better():
    rng = np.random.default_rng(0)
    weights, variance = rng.random(60), rng.random(60) / 4
    n = UNIT * neyman(weights, variance, unit=UNIT, most=6000)
    best = squared_error(weights, variance, n)
    # Cauchy-Schwarz: nothing with this sum can have less; rounding to units costs little
    assert np.sum(weights * np.sqrt(variance)) ** 2 / n.sum() <= best * (1 + 1e-12)
    assert best <= 1.002 * np.sum(weights * np.sqrt(variance)) ** 2 / n.sum()
    for _ in range(200):
        other = rng.permutation(n)
        assert squared_error(weights, variance, other) >= best
    assert squared_error(weights, variance, n.mean()) > 1.3 * best


def test_four_boundaries_by_hand():
    # pulls 3 : 1 : 0 : 1; the third has no weight and gets its one unit, as everyone does
    weights, variance = np.array([0.6, 0.2, 0.0, 0.4]), np.array([0.25, 0.25, 0.25, 0.0625])
    units = neyman(weights, variance, unit=10, most=510)
    assert units.tolist() == [30, 10, 1, 10]
    n = 10 * units
    reached = float(np.sqrt(squared_error(weights, variance, n)))
    assert (10 * neyman(weights, variance, unit=10, precision=reached)).sum() <= 510
    # variances 4 : 4 : 4 : 1
    assert equal_precision(variance, unit=10, precision=0.05).tolist() == [10, 10, 10, 3]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.25)), min_size=1, max_size=30),
    st.floats(0.005, 0.5),
    st.integers(1, 500),
)
def test_what_is_asked_for_is_met(boundaries, precision, units):
    weights, variance = np.array(boundaries).T
    for allocate, error in (
        (neyman, lambda n: float(np.sqrt(squared_error(weights, variance, n)))),
        (lambda w, *a, **k: equal_precision(*a, **k), lambda n: float(np.sqrt(np.max(variance / n)))),
    ):
        n = UNIT * allocate(weights, variance, unit=UNIT, precision=precision)
        assert error(n) <= precision * (1 + 1e-9) and (n >= UNIT).all()
        most = UNIT * (len(boundaries) + units)
        limited = UNIT * allocate(weights, variance, unit=UNIT, most=most)
        assert limited.sum() <= most
        both = UNIT * allocate(weights, variance, unit=UNIT, precision=precision, most=most)
        assert both.tolist() == (n if n.sum() <= most else limited).tolist()


@pytest.mark.parametrize("asked", [{}, {"precision": 0.0}, {"precision": -1.0}, {"most": 0}])
def test_a_target_is_needed(asked):
    with pytest.raises(ValueError, match="need a precision or a number of branches above 0"):
        neyman(np.ones(2), np.ones(2), unit=1, **asked)


def test_certainty_takes_more_than_two_branches_that_agree():
    belief = Beta(np.array([1.0]), np.array([1.0])).after(np.array([2.0]), np.array([2.0]))
    # Beta(3, 1): E[V (1 - V)] = 3 / (4 * 5)
    assert belief.variance.tolist() == [0.15]
    assert Beta(np.array([3e6]), np.array([1e6])).variance[0] == pytest.approx(0.75 * 0.25, rel=1e-6)


def test_around_leaves_out_the_boundarys_own_by_hand():
    # two traces of one problem, three boundaries each
    right, n = np.array([1.0, 2.0, 0.0, 2.0, 1.0, 1.0]), np.full(6, 2.0)
    beside, rest, peers = neighbour_counts(right, n, places(1, 2, 3))
    assert beside[:, 0].tolist() == [2, 1, 2, 1, 3, 1] and beside.sum(axis=1).tolist() == [2, 4, 2, 2, 4, 2]
    assert rest[:, 0].tolist() == [0, 0, 1, 1, 0, 2]
    assert peers[:, 0].tolist() == [2, 1, 1, 1, 2, 0]


def test_the_prior_trusts_the_branches_that_foretell():
    rng = np.random.default_rng(0)
    V, n = rng.beta(0.3, 0.3, 3000), np.full(3000, 2.0)
    right = rng.binomial(2, V).astype(float)
    telling, noise = rng.binomial(4, V), rng.binomial(4, 0.5, 3000)
    groups = np.stack([np.stack([k, 4 - k], axis=1) for k in (telling, noise)]).astype(float)
    prior = group_prior(right, n, groups)
    # a boundary whose neighbours were right four times of four, and one with two of four
    sure, unsure = (prior.variance[telling == k].mean() for k in (4, 2))
    assert sure < 0.06 and 0.15 < unsure < 0.25
    truth = V * (1 - V)
    for k in range(5):
        assert prior.variance[telling == k].mean() == pytest.approx(truth[telling == k].mean(), abs=0.02)
    # what says nothing is not listened to, and the common prior is the one the values are drawn from
    for k in range(5):
        assert np.ptp(prior.variance[(telling == 4) & (noise == k)]) < 1e-9
    assert prior.variance[(telling == 4) & (noise == 0)].mean() == pytest.approx(sure, abs=0.01)
    alone = group_prior(right, n, np.zeros((0, 3000, 2)))
    assert (alone.right[0], alone.wrong[0]) == (pytest.approx(0.3, abs=0.05), pytest.approx(0.3, abs=0.05))


def test_no_branches_say_nothing():
    prior = group_prior(np.zeros(3), np.zeros(3), np.zeros((1, 3, 2)))
    assert prior.right.tolist() == prior.wrong.tolist() == [1.0] * 3


def in_two_rounds(rng, V, at, *, by_their_own):
    """The values as adaptive proving estimates them, with or without a look at a boundary's own first branches."""
    n = np.full(len(V), float(UNIT))
    right = rng.binomial(UNIT, V).astype(float)
    belief = group_prior(right, n, neighbour_counts(right, n, at))
    if by_their_own:
        belief = belief.after(right, n)
    more = UNIT * (neyman(np.full(len(V), 1 / len(V)), belief.variance, unit=UNIT, most=4 * len(V)) - 1)
    return (right + rng.binomial(more, V)) / (n + more)


def test_values_stay_unbiased_as_their_own_branches_do_not_decide():
    """Thoughts that find the answer at once, at a random boundary: values of 0.05, then 0.95."""
    P, G, J, seeds = 30, 4, 6, 40
    rng = np.random.default_rng(0)
    found = rng.integers(0, 2 * J, (P, G))
    V = np.where(np.arange(J) >= found[..., None], 0.95, 0.05).reshape(-1)
    off = {own: [in_two_rounds(rng, V, places(P, G, J), by_their_own=own) - V for _ in range(seeds)] for own in (0, 1)}
    low = V < 0.5
    bias = {own: np.array(x)[:, low].mean() for own, x in off.items()}
    stderr = {own: np.array(x)[:, low].mean(axis=1).std() / np.sqrt(seeds) for own, x in off.items()}
    assert abs(bias[0]) < 3 * stderr[0] < 0.003
    assert bias[1] < -0.01 and bias[1] < -8 * stderr[1]  # the plain way calls low values lower than they are


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12),
    st.floats(0, 0.5),
    st.integers(50, 300),
    st.integers(0, 2**32 - 1),
)
def test_what_is_left_out_cannot_move_the_regret_by_more(steps, tolerance, budget, seed):
    tokens = np.cumsum(steps).astype(float)
    values = np.random.default_rng(seed).integers(0, 2, len(tokens)).astype(float)
    out = negligible(step_weights(tokens, float(budget)), tolerance)
    assert not out[0] and not out[-1]
    at = np.array([float(budget)])
    whole = normalized_regret(tokens, values, at)
    part = normalized_regret(tokens, np.where(out, np.nan, values), at)
    assert abs(whole - part)[0] <= tolerance + 1e-12


def test_boundaries_beyond_the_budget_are_left_out_for_free():
    weights = step_weights(np.array([10.0, 20.0, 100.0, 110.0, 120.0]), 100.0)
    assert weights.tolist() == [0.1, 0.8, 0.0, 0.0, 0.0]
    assert negligible(weights, 0.0).tolist() == [False, False, True, True, False]
