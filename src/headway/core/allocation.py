"""Allocation: where to sample more branches, so that few of them buy much precision.

The normalized regret is linear in the values (`regret.step_weights`), and branches are independent, so over the
boundaries i of all traces, each with its weight w_i and n_i branches,

    Var Reg = sum_i w_i^2 V_i (1 - V_i) / n_i,        least for a given sum of n_i where n_i ~ w_i sqrt(V_i (1 - V_i))

(Neyman, J. R. Stat. Soc. 97, 1934). The V_i are not known, and V (1 - V) of a few branches that agree is 0, which is
not certainty: each V_i gets a Beta prior from its neighbours' branches, and E[V (1 - V)] under it replaces V (1 - V).

A boundary's own branches never decide how many more it gets: one whose first branches agree by chance would get no
more, and its value would stay biased, whatever the prior. What all boundaries share (the parameters of the prior, the
scale that meets the budget) still depends on each of them by one part in their number.
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

Each = Float[np.ndarray, " N"]  # a number for each boundary
Counts = Int[np.ndarray, " N"]


class Locations(NamedTuple):
    """The numbers of each boundary's trace and problem, and its own in the trace; a trace's are adjacent, in order."""

    trace: Counts
    problem: Counts
    boundary: Counts


class Beta(NamedTuple):
    """The prior or posterior of each boundary's value: Beta(right, wrong), in pseudo-branches."""

    right: Each
    wrong: Each

    def after(self, right: Each, n: Each) -> "Beta":
        """The posterior after n more branches, `right` of them correct."""
        return Beta(self.right + right, self.wrong + n - right)

    @property
    def variance(self) -> Each:
        """E[V (1 - V)], the expected variance of one branch: never 0, and V (1 - V) for large counts."""
        total = self.right + self.wrong
        return self.right * self.wrong / (total * (total + 1))


def neighbour_counts(right: Each, n: Each, locations: Locations) -> Float[np.ndarray, "S N 2"]:
    """The correct and wrong branches of each boundary's neighbours, in three groups without its own.

    The groups: the boundaries next to it in its trace, the others of the trace, and the same boundary of the other
    traces of the problem.
    """
    counts = np.stack([right, n - right], axis=1)
    same = (locations.trace[1:] == locations.trace[:-1])[:, None]
    beside = np.zeros_like(counts)
    beside[1:] += counts[:-1] * same
    beside[:-1] += counts[1:] * same

    def others(groups: Counts) -> Float[np.ndarray, "N 2"]:
        _, group = np.unique(groups, return_inverse=True)
        return np.stack([np.bincount(group, weights=c)[group] for c in counts.T], axis=1) - counts

    peers = others(locations.problem * (locations.boundary.max(initial=0) + 1) + locations.boundary)
    return np.stack([beside, others(locations.trace) - beside, peers])


def group_prior(right: Each, n: Each, neighbours: Float[np.ndarray, "S N 2"]) -> Beta:
    """A prior for each boundary from the branches of its neighbours (`neighbour_counts`), not from its own.

        Beta(a + sum_s l_s right_si, b + sum_s l_s wrong_si),        a, b > 0, 0 <= l_s <= 1

    A power prior (Ibrahim and Chen, Stat. Sci. 15, 2000). a, b, l_s are the same for all boundaries and maximize the
    likelihood of all branches (empirical Bayes): each boundary's `right` of n is a beta-binomial given its neighbours.
    No branches at all: Beta(1, 1).
    """
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
        of_counts = np.exp(parameters[:2]) * slopes.sum(axis=1)
        gradient = np.append(of_counts, np.einsum("kn,snk->s", slopes, neighbours))
        return -float(np.sum(betaln(*after) - betaln(*before))) / len(n), -gradient / len(n)

    bounds = [(np.log(LEAST), np.log(MOST))] * 2 + [(0.0, 1.0)] * len(neighbours)
    start = np.array([0.0, 0.0, *[0.5] * len(neighbours)])
    return prior(minimize(surprise, start, jac=True, bounds=bounds, method="L-BFGS-B").x)


def neyman(
    weights: Each, variance: Each, *, unit: int, precision: float | None = None, most: int | None = None
) -> Counts:
    """How many branches each boundary gets, in units and at least one of them, for the sum of weighted values.

        n_i = unit * max(1, floor(s w_i sqrt(variance_i) / unit + u_i))

    `variance` is that of one branch. s is the least for which sqrt(sum_i w_i^2 variance_i / n_i) <= precision, or the
    largest for which the n_i sum to at most `most`; with both, the lesser. The u_i in [0, 1) are fixed and spread
    evenly.

    Raises:
        ValueError: neither is given, or one is not above 0.
    """
    return _scaled(weights * np.sqrt(variance), unit, precision, most, lambda n: np.sum(weights**2 * variance / n))


def equal_precision(variance: Each, *, unit: int, precision: float | None = None, most: int | None = None) -> Counts:
    """As `neyman`, with n_i ~ variance_i and the least s for which sqrt(variance_i / n_i) <= precision everywhere."""
    return _scaled(variance, unit, precision, most, lambda n: np.max(variance / n, initial=0.0))


def negligible(weights: Float[np.ndarray, " J"], tolerance: float) -> Bool[np.ndarray, " J"]:
    """The boundaries of one trace that may be left out: the regret then changes by no more than `tolerance`.

    A boundary that is left out passes its weight to the one before it: the regret changes by at most that weight.
    So interior boundaries are left out from the smallest weight up, as long as their weights sum to at most the
    tolerance. Equal neighbouring values are no reason: the thinking may find an answer and lose it again.
    """
    order = np.argsort(weights, kind="stable")
    order = order[(order > 0) & (order < len(weights) - 1)]
    left_out = np.zeros(len(weights), dtype=bool)
    left_out[order[np.cumsum(weights[order]) <= tolerance]] = True
    return left_out


def _scaled(
    pull: Each, unit: int, precision: float | None, most: int | None, squared_error: Callable[[Counts], float]
) -> Counts:
    """The allocation of `neyman` and `equal_precision`: error and sum are monotone in the scale, which is bisected."""
    if not (given := [x for x in (precision, most) if x is not None]) or min(given) <= 0:
        raise ValueError(f"need a precision or a number of branches above 0, got {precision} and {most}")
    # equal pulls are not all rounded at once: each has its own threshold, spread evenly by the golden ratio
    thresholds = np.arange(1, len(pull) + 1) * GOLDEN % 1
    pull = pull / (pull.max(initial=0.0) or 1.0)

    def units(scale: float) -> Counts:
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
