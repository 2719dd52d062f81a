"""Regret: the gap between a trace's values and a comparator's, over boundaries and over budgets.

`tokens` is the budget of each boundary: completion tokens up to and including the forced answer. A boundary whose
value is NaN was not measured and is skipped; so is one that costs no less than a later one.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

Kind = Literal["step", "linear"]
Each = Float[np.ndarray, " J"]  # a number for each boundary
Budgets = Float[np.ndarray, " C"]  # or a number for each budget
Curves = Float[np.ndarray, "*rows C"]
Rows = Float[np.ndarray, "*rows"]


def cumulative_regret(values: Each, comparator: Each | float = 1.0) -> Each:
    """The cumulative regret after each boundary (MRT, arXiv:2503.07572, Def. 4.1, for one trace).

        Delta_k = sum_{j <= k} (V*_j - V_j)

    The comparator is the perfect policy or a curve such as `best_of`. The paper's sum runs over episodes 0..k-1, ours
    over boundaries 0..k, the empty prefix included. A NaN value makes all later sums NaN.
    """
    return np.cumsum(comparator - values)


def best_of(values_of_policies: Float[np.ndarray, "policies J"]) -> Float[np.ndarray, " J"]:
    """The comparator as good as the best of some policies at each boundary or budget; NaN ones are left out."""
    known = ~np.isnan(values_of_policies)
    best = np.where(known, values_of_policies, -np.inf).max(axis=0)
    return np.where(known.any(axis=0), best, np.nan)


def budget_curve(tokens: Each, values: Each, budgets: Budgets, *, kind: Kind = "step") -> Budgets:
    """The accuracy of one trace at each budget: what a user who stops there gets.

    `step`: the value at the last boundary whose budget fits, 0 before the first. `linear`: the authors' figure,
    straight lines from (0, 0) through the boundaries, the last value beyond them. All values NaN: NaN everywhere.

    Raises:
        ValueError: a boundary's budget is not above 0.
    """
    x, y = _measured(tokens, values)
    if len(x) == 0:
        return np.full(len(budgets), np.nan)
    if kind == "linear":
        return np.interp(budgets, np.append(0.0, x), np.append(0.0, y))
    return np.append(0.0, y)[np.searchsorted(x, budgets, side="right")]


def normalized_regret(
    tokens: Each, values: Each, budgets: Budgets, *, comparator: float = 1.0, kind: Kind = "step"
) -> Budgets:
    """The mean gap to a constant comparator over all budgets up to each C.

        Reg(C) = (1/C) * integral_0^C (comparator - acc(c)) dc        (the authors' regret.ipynb)

    acc is `budget_curve` of the same `kind`; the integral is exact. With the perfect comparator it lies in [0, 1].

    Raises:
        ValueError: a budget, or that of a boundary, is not above 0.
    """
    if np.any(budgets <= 0):
        raise ValueError(f"budgets must be above 0 tokens, got {budgets.min()}")
    x, y = _measured(tokens, values)
    areas = np.empty(len(budgets))
    for i, budget in enumerate(budgets):
        knots = np.concatenate(([0.0], x[x < budget], [budget]))
        heights = budget_curve(x, y, knots, kind=kind)
        areas[i] = np.trapezoid(heights, knots) if kind == "linear" else np.sum(heights[:-1] * np.diff(knots))
    return comparator - areas / budgets


def step_weights(tokens: Each, budget: float) -> Each:
    """The weight of each value in a trace's normalized regret: the fraction of the budgets for which it holds.

        Reg(C) = V* - sum_j w_j V_j,        w_j = ( min(c_{j+1}, C) - min(c_j, C) ) / C,        c_{K+1} = C

    for `step` curves. So where values have independent errors, Var Reg(C) = sum_j w_j^2 Var V_j. A boundary that is
    skipped weighs 0. What is missing to 1 is the fraction of budgets too small for any answer.
    """
    weights = np.zeros(len(tokens))
    known = np.flatnonzero(~np.isnan(tokens))
    counted = known[_cheapest(tokens[known])]
    weights[counted] = np.diff(np.minimum(np.append(tokens[counted], np.inf), budget)) / budget
    return weights


def _measured(tokens: Each, values: Each) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """The boundaries that have a value and are cheaper than all later ones: their budgets rise."""
    known = ~np.isnan(values)
    x, y = tokens[known], values[known]
    if np.any(~(x > 0)):
        raise ValueError(f"the boundaries' budgets must be above 0 tokens, got {x.tolist()}")
    cheapest = _cheapest(x)
    return x[cheapest], y[cheapest]


def _cheapest(x: Float[np.ndarray, " M"]) -> Bool[np.ndarray, " M"]:
    """Which budgets are below all later ones."""
    later = np.minimum.accumulate(x[::-1])[::-1]
    return np.append(x[:-1] < later[1:], True)[: len(x)]


def mean_gap(accuracy: Curves, comparator: Curves | Budgets) -> Curves:
    """Normalized regret against a comparator that depends on the budget, on a grid of equal cells from 0.

        Reg(C_i) = (1/i) * sum_{c <= i} (V*(c) - acc(c))

    Column c holds both curves in the middle of cell c, and the result is at the cell's end. With comparator 1 it is
    `normalized_regret`, up to the width of a cell.
    """
    gaps = comparator - accuracy
    return np.cumsum(gaps, axis=-1) / np.arange(1.0, gaps.shape[-1] + 1)


def best_so_far(accuracy: Curves) -> Curves:
    """The running maximum of a budget curve: the comparator that stops at the best budget within the one given.

    Noise makes a maximum too high: take it of curves of many branches, such as a problem's mean.
    """
    return np.maximum.accumulate(accuracy, axis=-1)


def tokens_to_reach(tokens: Curves, accuracy: Curves, level: Rows) -> Rows:
    """The tokens at which curves first reach a level, by straight lines between the points of their running maxima.

    A level at or below the first point costs that point's tokens; one that is never reached is NaN.
    """
    best = best_so_far(accuracy)
    reached = best >= level[:, None]
    rows, first = np.arange(len(best)), reached.argmax(axis=1)
    before = np.maximum(first - 1, 0)
    low, high = best[rows, before], best[rows, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(high > low, (level - low) / (high - low), 1.0)
    found = tokens[rows, before] + share * (tokens[rows, first] - tokens[rows, before])
    return np.where(reached.any(axis=1), np.where(first == 0, tokens[:, 0], found), np.nan)


def authors_budget(prompt: Rows, tokens: Rows, sampled: Rows) -> Rows:
    """A boundary's budget as in the authors' regret notebook, which divides the tokens of 8 answers by 16.

    It counts prompt, prefix, suffix and half an answer: `sampled` is the answer's part of our budget, `tokens`.
    """
    return prompt + tokens - sampled / 2


def episode_regret(votes: Float[np.ndarray, "J 4"]) -> Float[np.ndarray, " J-1"]:
    """The authors' episode-based regret of one trace after its first b blocks, b = 1..J-1 (ICML version, appendix E).

    Column p of `votes` is maj@1, 2, 4, 8 at each boundary. Over block i, at x = 1, 2, 4, 6 episodes,

        thinking on   the line from maj@1 at boundary i (x = 1) to maj@1 at boundary i + 1 (x = 6)
        voting        maj@1, maj@2, maj@4, (maj@4 + maj@8) / 2 at boundary i
        optimal       the larger of the two at each x
        regret_b      sum_{i <= b} area(optimal - thinking on) / sum_{i <= b} area(optimal)

    Areas are trapezoids over the four x. NaN where nothing was ever right (no area) or a vote is unknown.
    """
    x = np.array([1.0, 2.0, 4.0, 6.0])
    start, end = votes[:-1, :1], votes[1:, :1]
    on = start + (end - start) * (x - 1) / 5
    voting = np.column_stack([votes[:-1, :3], votes[:-1, 2:].mean(axis=1)])
    optimal = np.maximum(on, voting)
    gap, area = (np.cumsum(np.trapezoid(y, x, axis=1)) for y in (optimal - on, optimal))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(area > 0, gap / area, np.nan)
