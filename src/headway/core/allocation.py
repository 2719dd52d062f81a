"""Allocation: where to draw more branches, so that few of them buy much precision.

The normalized regret is linear in the values (`regret.step_weights`), and branches are independent, so over the
boundaries i of all traces, each with its weight w_i and n_i branches,

    Var Reg = sum_i w_i^2 V_i (1 - V_i) / n_i,        least for a given sum of n_i where n_i ~ w_i sqrt(V_i (1 - V_i))

which is Neyman's allocation (J. R. Stat. Soc. 97, 1934). The V_i are not known, and V (1 - V) of a few branches that
agree is 0, which is not certainty: each V_i gets a Beta prior from the neighbouring branches, and E[V (1 - V)] under
that prior replaces V (1 - V).

A boundary's own branches never decide how many more it gets. Otherwise a boundary whose first branches agree by chance
would get no more, and its value would stay biased. An allocation by other boundaries' branches leaves the mean of the
boundary's own unbiased, whatever the prior. What all boundaries share (the parameters of the prior, the scale that
meets the budget) still depends on each of them by one part in their number.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import betaln, psi

LEAST, MOST = 1e-3, 1e3  # of the common prior's counts
GOLDEN = (5**0.5 - 1) / 2
BISECTIONS = 60


class Locations(NamedTuple):
    """Where each boundary is: the number of its trace, of its problem, and its own in the trace.

    The boundaries of a trace are side by side, in order.
    """

    trace: Int[np.ndarray, " N"]
    problem: Int[np.ndarray, " N"]
    boundary: Int[np.ndarray, " N"]


class Beta(NamedTuple):
    """The prior or posterior of each boundary's value: Beta(right, wrong), in pseudo-branches."""

    right: Float[np.ndarray, " N"]
    wrong: Float[np.ndarray, " N"]

    def after(self, right: Float[np.ndarray, " N"], n: Float[np.ndarray, " N"]) -> "Beta":
        """The posterior after n more branches, so many of them right."""
        return Beta(self.right + right, self.wrong + n - right)

    @property
    def variance(self) -> Float[np.ndarray, " N"]:
        """E[V (1 - V)], the expected variance of one branch: never 0, and V (1 - V) for large counts."""
        total = self.right + self.wrong
        return self.right * self.wrong / (total * (total + 1))


def neighbour_counts(
    right: Float[np.ndarray, " N"], n: Float[np.ndarray, " N"], locations: Locations
) -> Float[np.ndarray, "S N 2"]:
    """The right and wrong branches of each boundary's neighbours, in three groups without its own.

    The groups: the boundaries next to it in its trace, the others of the trace, and the same boundary of the other
    traces of the problem.
    """
    counts = np.stack([right, n - right], axis=1)
    same = (locations.trace[1:] == locations.trace[:-1])[:, None]
    beside = np.zeros_like(counts)
    beside[1:] += counts[:-1] * same
    beside[:-1] += counts[1:] * same

    def others(groups: Int[np.ndarray, " N"]) -> Float[np.ndarray, "N 2"]:
        _, group = np.unique(groups, return_inverse=True)
        return np.stack([np.bincount(group, weights=c)[group] for c in counts.T], axis=1) - counts

    peers = others(locations.problem * (locations.boundary.max(initial=0) + 1) + locations.boundary)
    return np.stack([beside, others(locations.trace) - beside, peers])


def group_prior(
    right: Float[np.ndarray, " N"], n: Float[np.ndarray, " N"], neighbours: Float[np.ndarray, "S N 2"]
) -> Beta:
    """A prior for each boundary from the branches of its neighbours, not from its own (empirical Bayes).

        Beta(a + sum_s l_s right_si, b + sum_s l_s wrong_si),        a, b > 0, 0 <= l_s <= 1

    A power prior (Ibrahim and Chen, Stat. Sci. 15, 2000): the neighbours in group s count with a weight l_s, as far as
    they predict the boundary's own branches. a, b and l_s are the same for all boundaries and maximize the likelihood
    of all branches, each boundary's a beta-binomial given its neighbours. No branches at all: Beta(1, 1).

    Args:
        right: Right branches at each boundary.
        n: Graded branches at each boundary.
        neighbours: `neighbour_counts`.
    """
    groups = len(neighbours)
    if not n.any():
        return Beta(np.ones(len(n)), np.ones(len(n)))

    def prior(parameters: Float[np.ndarray, " params"]) -> Beta:
        counts = np.exp(parameters[:2])[:, None] + np.einsum("s,snk->kn", parameters[2:], neighbours)
        return Beta(counts[0], counts[1])

    def surprise(parameters: Float[np.ndarray, " params"]) -> tuple[float, Float[np.ndarray, " params"]]:
        before = prior(parameters)
        after = before.after(right, n)
        shared = psi(before.right + before.wrong) - psi(after.right + after.wrong)
        slopes = np.stack([psi(after.right) - psi(before.right), psi(after.wrong) - psi(before.wrong)]) + shared
        gradient = np.concatenate(
            [np.exp(parameters[:2]) * slopes.sum(axis=1), np.einsum("kn,snk->s", slopes, neighbours)]
        )
        return -float(np.sum(betaln(*after) - betaln(*before))) / len(n), -gradient / len(n)

    bounds = [(np.log(LEAST), np.log(MOST))] * 2 + [(0.0, 1.0)] * groups
    start = np.array([0.0, 0.0, *[0.5] * groups])
    return prior(minimize(surprise, start, jac=True, bounds=bounds, method="L-BFGS-B").x)


def neyman(
    weights: Float[np.ndarray, " N"],
    variance: Float[np.ndarray, " N"],
    *,
    unit: int,
    precision: float | None = None,
    most: int | None = None,
) -> Int[np.ndarray, " N"]:
    """How many units of branches each boundary gets, at least one, for the sum of weighted values.

        n_i = unit * max(1, floor(s w_i sqrt(variance_i) / unit + u_i))

    with the least s for which sqrt(sum_i w_i^2 variance_i / n_i) <= precision, or the largest for which the n_i sum to
    at most `most`; with both, the lesser. The u_i in [0, 1) are fixed and spread evenly.

    Args:
        weights: What each value counts with in the sum.
        variance: The expected variance of one branch.
        unit: Branches of a unit.
        precision: Standard error of the sum to reach.
        most: Branches in all.

    Raises:
        ValueError: neither is given, or one is not above 0.
    """
    return _scaled(weights * np.sqrt(variance), unit, precision, most, lambda n: np.sum(weights**2 * variance / n))


def equal_precision(
    variance: Float[np.ndarray, " N"], *, unit: int, precision: float | None = None, most: int | None = None
) -> Int[np.ndarray, " N"]:
    """How many units of branches each boundary gets, at least one, for all values to be as precise.

        n_i = unit * max(1, floor(s variance_i / unit + u_i))

    with the least s for which sqrt(variance_i / n_i) <= precision everywhere, or the largest for which the n_i sum to
    at most `most`; with both, the lesser. Arguments and errors as for `neyman`.
    """
    return _scaled(variance, unit, precision, most, lambda n: np.max(variance / n, initial=0.0))


def negligible(weights: Float[np.ndarray, " J"], tolerance: float) -> Bool[np.ndarray, " J"]:
    """The boundaries of one trace that may be left out: the regret then changes by no more than `tolerance`.

    A boundary that is left out passes its weight to the one before it. A value is between 0 and 1, so that changes the
    regret by at most the weight: interior boundaries are left out from the smallest weight up, as long as their
    weights sum to at most the tolerance. Equal values at its neighbours are no reason to leave a boundary out: a
    thought may find an answer and lose it again.
    """
    order = np.argsort(weights, kind="stable")
    order = order[(order > 0) & (order < len(weights) - 1)]
    left_out = np.zeros(len(weights), dtype=bool)
    left_out[order[np.cumsum(weights[order]) <= tolerance]] = True
    return left_out


def _scaled(
    pull: Float[np.ndarray, " N"],
    unit: int,
    precision: float | None,
    most: int | None,
    squared_error: Callable[[Int[np.ndarray, " N"]], float],
) -> Int[np.ndarray, " N"]:
    """The allocation of `neyman` and `equal_precision`: error and sum are monotone in the scale, which is bisected."""
    if not (given := [x for x in (precision, most) if x is not None]) or min(given) <= 0:
        raise ValueError(f"need a precision or a number of branches above 0, got {precision} and {most}")
    # equal pulls are not all rounded at once: each has its own threshold, spread evenly by the golden ratio
    thresholds = np.arange(1, len(pull) + 1) * GOLDEN % 1
    pull = pull / (pull.max(initial=0.0) or 1.0)

    def units(scale: float) -> Int[np.ndarray, " N"]:
        return np.maximum(1, np.floor(scale * pull / unit + thresholds)).astype(int)

    def enough(scale: float) -> bool:
        return precision is not None and bool(squared_error(unit * units(scale)) <= precision**2)

    def over(scale: float) -> bool:
        return most is not None and unit * int(units(scale).sum()) > most

    low, high = 0.0, float(unit)
    if not pull.any() or enough(low) or over(low):
        return units(low)
    while not (enough(high) or over(high)):
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) or over(middle) else (middle, high)
    return units(low if over(high) else high)
