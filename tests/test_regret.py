import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.regret import (
    authors_budget,
    best_of,
    best_so_far,
    budget_curve,
    cumulative_regret,
    episode_regret,
    mean_gap,
    normalized_regret,
    step_weights,
    tokens_to_reach,
)

KINDS = pytest.mark.parametrize("kind", ["step", "linear"])
TOKENS, VALUES = np.array([100.0, 200.0]), np.array([0.5, 1.0])


def a(*numbers):
    return np.array(numbers, dtype=float)


@st.composite
def curves(draw):
    """Budgets in any order, with ties, and values of which some are unknown."""
    n = draw(st.integers(1, 7))
    tokens = draw(st.lists(st.integers(1, 40), min_size=n, max_size=n))
    values = draw(st.lists(st.floats(0, 1) | st.just(np.nan), min_size=n, max_size=n))
    return a(*tokens), a(*values)


def authors(x, y, budget):
    """The notebook's rule from its description: trapezoids from (0, 0), cut at the budget or hold the last value."""
    area, last_x, last_y = 0.0, 0.0, 0.0
    for xi, yi in zip(x, y, strict=True):
        if xi >= budget:
            at_cut = last_y + (yi - last_y) * (budget - last_x) / (xi - last_x)
            return 1 - (area + (last_y + at_cut) / 2 * (budget - last_x)) / budget
        area += (last_y + yi) / 2 * (xi - last_x)
        last_x, last_y = xi, yi
    return 1 - (area + last_y * (budget - last_x)) / budget


def test_cumulative_regret_by_hand():
    # gaps to 1: 0.75, 0.5, 0
    assert cumulative_regret(a(0.25, 0.5, 1.0)).tolist() == [0.75, 1.25, 1.25]
    assert cumulative_regret(a(0.25, 0.5), a(0.5, 0.5)).tolist() == [0.25, 0.25]


def test_a_comparator_has_no_regret_against_itself():
    values = np.random.default_rng(0).random(7)
    assert cumulative_regret(values, values).tolist() == [0.0] * 7
    assert cumulative_regret(np.ones(7)).tolist() == [0.0] * 7


def test_an_unknown_value_makes_the_sums_from_it_on_unknown():
    assert np.isnan(cumulative_regret(a(0.5, np.nan, 0.5))).tolist() == [False, True, True]


def test_regret_against_the_best_is_never_below_zero():
    policies = np.random.default_rng(1).random((4, 6))
    best = best_of(policies)
    assert all((np.diff(cumulative_regret(p, best), prepend=0.0) >= 0).all() for p in policies)
    assert best.tolist() == policies.max(axis=0).tolist()


def test_best_leaves_unknown_policies_out():
    best = best_of(np.array([[0.25, np.nan, np.nan], [0.5, 0.75, np.nan]]))
    assert best[:2].tolist() == [0.5, 0.75]
    assert np.isnan(best[2])


def test_budget_curves_by_hand():
    budgets = a(50, 100, 150, 200, 400)
    assert budget_curve(TOKENS, VALUES, budgets).tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert budget_curve(TOKENS, VALUES, budgets, kind="linear").tolist() == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_normalized_regret_of_steps_by_hand():
    # accuracy 0 to 100, 0.5 to 200, then 1: areas 0, 25, 50, 250
    expected = [1.0, 1 - 25 / 150, 1 - 50 / 200, 1 - 250 / 400]
    assert normalized_regret(TOKENS, VALUES, a(50, 150, 200, 400)) == pytest.approx(expected)


def test_normalized_regret_of_lines_by_hand():
    # triangle to 100: 25; trapezoid to 150: 50 * 0.625 = 31.25; to 200: 75; held to 400: 200 more
    expected = [1 - 6.25 / 50, 1 - 56.25 / 150, 1 - 100 / 200, 1 - 300 / 400]
    assert normalized_regret(TOKENS, VALUES, a(50, 150, 200, 400), kind="linear") == pytest.approx(expected)


def test_regret_against_a_lower_comparator_is_lower_by_the_difference():
    low, high = (normalized_regret(TOKENS, VALUES, a(150, 400), comparator=c) for c in (0.75, 1.0))
    assert high - low == pytest.approx([0.25, 0.25])


def test_a_perfect_policy_pays_only_for_what_it_needs_to_answer():
    # right from the first boundary on, which costs 10 tokens: 10 of 40 budgets have no answer
    assert normalized_regret(a(10, 20), np.ones(2), a(40)).tolist() == [0.25]


@KINDS
@given(curve=curves(), budget=st.integers(1, 60))
def test_normalized_regret_is_the_integral_of_the_budget_curve(curve, budget, kind):
    tokens, values = curve
    # boundaries lie on whole tokens, so both kinds are straight on each cell and its middle is its mean
    heights = budget_curve(tokens, values, np.arange(budget) + 0.5, kind=kind)
    expected = 1 - heights.mean()
    assert normalized_regret(tokens, values, a(budget), kind=kind) == pytest.approx([expected], nan_ok=True)


@KINDS
@given(curve=curves(), budget=st.integers(1, 60))
def test_normalized_regret_is_a_share(curve, budget, kind):
    regret = normalized_regret(*curve, a(budget), kind=kind)[0]
    assert np.isnan(regret) == np.isnan(curve[1]).all()
    assert np.isnan(regret) or -1e-12 <= regret <= 1 + 1e-12


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0.5, 70), min_size=1, max_size=6))
def test_linear_regret_is_that_of_the_authors(values, budgets):
    tokens = np.cumsum(np.arange(1.0, len(values) + 1) * 3)
    expected = [authors(tokens, values, budget) for budget in budgets]
    assert normalized_regret(tokens, a(*values), a(*budgets), kind="linear") == pytest.approx(expected)


@given(curves(), st.floats(0.01, 0.99), st.integers(1, 60))
def test_finer_cuts_on_the_lines_change_nothing(curve, share, budget):
    tokens, values = np.cumsum(curve[0]), curve[1]
    finer = np.append(tokens, share * tokens[-1])
    on_line = budget_curve(tokens, values, finer[-1:], kind="linear")
    order = np.argsort(finer, kind="stable")
    fine = normalized_regret(finer[order], np.append(values, on_line)[order], a(budget), kind="linear")
    assert fine == pytest.approx(normalized_regret(tokens, values, a(budget), kind="linear"), nan_ok=True)


@KINDS
def test_an_unknown_boundary_is_passed_over(kind):
    budgets = a(50, 120, 300)
    with_unknown = normalized_regret(a(100, 150, 200), a(0.5, np.nan, 1.0), budgets, kind=kind)
    assert with_unknown.tolist() == normalized_regret(TOKENS, VALUES, budgets, kind=kind).tolist()


@KINDS
def test_a_boundary_that_costs_more_than_a_later_one_is_passed_over(kind):
    budgets = a(50, 120, 300)
    # 130 before 100: who can afford the first can afford the second; and 200 before another 200
    dominated = normalized_regret(a(130, 100, 200, 200), a(0.9, 0.5, 0.1, 1.0), budgets, kind=kind)
    assert dominated.tolist() == normalized_regret(TOKENS, VALUES, budgets, kind=kind).tolist()


def test_an_unknown_later_boundary_dominates_nothing():
    assert budget_curve(a(130, 100), a(0.9, np.nan), a(120, 130)).tolist() == [0.0, 0.9]


def test_no_answer_before_the_first_boundary():
    assert budget_curve(TOKENS, VALUES, a(1, 99)).tolist() == [0.0, 0.0]
    assert normalized_regret(TOKENS, VALUES, a(1, 99)).tolist() == [1.0, 1.0]


@KINDS
def test_nothing_known_is_nothing_known(kind):
    unknown = a(np.nan, np.nan)
    assert np.isnan(budget_curve(TOKENS, unknown, a(50, 500), kind=kind)).tolist() == [True, True]
    assert np.isnan(normalized_regret(TOKENS, unknown, a(50, 500), kind=kind)).tolist() == [True, True]


def test_budgets_below_one_token_are_errors():
    with pytest.raises(ValueError, match="budgets must be above 0"):
        normalized_regret(TOKENS, VALUES, a(100, 0))
    with pytest.raises(ValueError, match="above 0 tokens"):
        budget_curve(a(0, 100), VALUES, a(50))


@given(curves(), st.integers(1, 60))
def test_regret_is_linear_in_the_values_with_the_steps_as_weights(curve, budget):
    tokens, values = curve
    if np.isnan(values).all():
        return
    weights = step_weights(np.where(np.isnan(values), np.nan, tokens), float(budget))
    assert normalized_regret(tokens, values, a(budget))[0] == pytest.approx(1 - np.nansum(weights * values), abs=1e-12)
    assert (weights >= 0).all() and weights.sum() <= 1 + 1e-12
    assert (weights[np.isnan(values)] == 0).all()


def test_step_weights_by_hand():
    assert step_weights(a(10, 40, 30, 90), 100.0) == pytest.approx([0.2, 0.0, 0.6, 0.1])  # the second is passed over
    assert step_weights(a(10, np.nan, 30), 20.0) == pytest.approx([0.5, 0.0, 0.0])
    assert step_weights(a(), 5.0).tolist() == []


def test_the_mean_gap_by_hand():
    # gaps 1, 0.5, 0: their means from the start
    assert mean_gap(a(0, 0.25, 1), a(1, 0.75, 1)).tolist() == [1.0, 0.75, 0.5]


def test_the_mean_gap_to_perfect_is_the_normalized_regret():
    # boundaries lie on the edges of the cells, so the middle of a cell is its mean
    middles, edges = np.arange(0.5, 400), np.arange(1.0, 401)
    found = mean_gap(budget_curve(TOKENS, VALUES, middles), np.ones(400))
    assert found == pytest.approx(normalized_regret(TOKENS, VALUES, edges))


def test_no_regret_against_itself_and_none_below_zero_against_what_is_better():
    accuracy = np.random.default_rng(2).random((3, 50))
    assert mean_gap(accuracy, accuracy).tolist() == np.zeros((3, 50)).tolist()
    best = best_so_far(accuracy)
    assert (mean_gap(accuracy, best) >= 0).all()
    assert (np.diff(best, axis=1) >= 0).all() and best[:, -1].tolist() == accuracy.max(axis=1).tolist()


def test_tokens_to_reach_by_hand():
    tokens = np.array([[10.0, 20.0, 30.0, 40.0]] * 5)
    accuracy = np.array([[0.2, 0.4, 0.3, 0.8]] * 5)  # the third is passed over: 20 tokens give more
    levels = a(0.1, 0.2, 0.3, 0.6, 0.9)
    # at most the first: 10; half way from 0.2 to 0.4: 15; half way from 0.4 (held to 30 tokens) to 0.8: 35; never
    assert tokens_to_reach(tokens, accuracy, levels)[:4].tolist() == pytest.approx([10, 10, 15, 35])
    assert np.isnan(tokens_to_reach(tokens, accuracy, levels)[4])


def test_twice_the_tokens_is_twice_as_far_at_every_level():
    rng = np.random.default_rng(3)
    tokens, accuracy = np.cumsum(rng.random((40, 6)), axis=1), rng.random((40, 6))
    levels = rng.random(40) * accuracy.max(axis=1)
    once, twice = (tokens_to_reach(k * tokens, accuracy, levels) for k in (1, 2))
    assert twice == pytest.approx(2 * once)


def test_episode_regret_by_hand():
    # one block; voting 0.2, 0.4, 0.6, 0.7 against the line from 0.2 to 0.7 (0.2, 0.3, 0.5, 0.7) at x = 1, 2, 4, 6:
    # the gap is 0, 0.1, 0.1, 0, its area 0.05 + 0.2 + 0.1; optimal 0.2, 0.4, 0.6, 0.7 has 0.3 + 1.0 + 1.3
    votes = np.array([[0.2, 0.4, 0.6, 0.8], [0.7, 0.7, 0.7, 0.7]])
    assert episode_regret(votes) == pytest.approx([0.35 / 2.6])
    # a second block where going on is better: no gap, and the line from 0.7 to 0.9 over 5 has the area 4
    more = np.vstack([votes[:1], [[0.7, 0.0, 0.0, 0.0]], [[0.9, 0.9, 0.9, 0.9]]])
    assert episode_regret(more) == pytest.approx([0.35 / 2.6, 0.35 / 6.6])


def test_episode_regret_of_what_is_never_right_is_unknown():
    assert np.isnan(episode_regret(np.zeros((3, 4)))).all()
    assert len(episode_regret(np.ones((1, 4)))) == 0
    assert authors_budget(a(5), a(20), a(4)).tolist() == [23.0]
