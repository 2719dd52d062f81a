"""Uncertainty: means, differences and counts, each with its error. Problems are clusters: their traces are not
independent, so errors are taken over problems."""

from collections.abc import Hashable, Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats as scipy_stats


class Estimate(NamedTuple):
    """A mean with its standard error, 95% interval, and the numbers of observations and of problems behind it."""

    value: float
    stderr: float
    ci95: tuple[float, float]
    n: int
    n_problems: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def mean(values: Float[np.ndarray, " n"], problems: Sequence[Hashable]) -> Estimate:
    """The mean of observations, clustered by problem (Miller, arXiv:2411.00640; inspect's rule).

        se^2 = C / (C - 1) * (1 / n^2) * sum_c ( sum_{i in c} (x_i - mean) )^2

    C is the number of problems; the interval uses Student's t with C - 1 degrees. NaN values are left out. One
    problem: stderr NaN; none: all NaN.
    """
    known = ~np.isnan(values)
    x = values[known]
    _, cluster = np.unique([str(p) for p, k in zip(problems, known, strict=True) if k], return_inverse=True)
    n, clusters = len(x), int(cluster.max()) + 1 if len(x) else 0
    centre = float(x.mean()) if n else np.nan
    stderr = np.nan
    if clusters > 1:
        sums = np.bincount(cluster, weights=x - centre)
        stderr = float(np.sqrt(clusters / (clusters - 1) * np.sum(sums**2)) / n)
    half = stderr * float(scipy_stats.t.ppf(0.975, clusters - 1)) if clusters > 1 else np.nan
    return Estimate(centre, stderr, (centre - half, centre + half), n, clusters)


def by_problem(values: Float[np.ndarray, " n"], problems: Sequence[str]) -> dict[str, float]:
    """The mean of each problem's observations; NaN ones are left out, and problems with no others."""
    groups: dict[str, list[float]] = {}
    for value, problem in zip(values.tolist(), problems, strict=True):
        if not np.isnan(value):
            groups.setdefault(problem, []).append(value)
    return {problem: float(np.mean(group)) for problem, group in groups.items()}


def paired_difference(a: dict[str, float], b: dict[str, float]) -> Estimate:
    """The mean of b - a over the problems both have: two models on the same problems, so that what makes a problem
    hard cancels."""
    both = [p for p in a if p in b]
    return mean(np.array([b[p] - a[p] for p in both], dtype=float), both)


def bootstrap(
    values: Float[np.ndarray, "P C"], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Float[np.ndarray, "2 C"]:
    """Simultaneous bounds for the column means of a problems x budgets table, by resampling problems.

    The bands hold for all columns at once: the half width is the same multiple of each column's bootstrap error, the
    `level` quantile of the largest deviation. A column without spread has no width. Fewer than two rows, or nothing
    observed in a column: NaN.

    Args:
        values: One row a problem; NaN where it has no observation.
    """
    P, C = values.shape
    bounds = np.full((2, C), np.nan)
    observed = ~np.isnan(values).all(axis=0)
    if P < 2 or not observed.any():
        return bounds
    known = ~np.isnan(values[:, observed])
    totals = np.where(known, values[:, observed], 0.0)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(P, np.full(P, 1 / P), size=resamples).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = counts @ totals / (counts @ known)
    centre = totals.sum(axis=0) / known.sum(axis=0)
    spread = np.nanstd(means, axis=0)
    safe = np.where(spread > 0, spread, np.inf)
    # a resample may hold no row that observes a column: it says nothing about it
    largest = np.nan_to_num(np.abs(means - centre) / safe).max(axis=1)
    half = float(np.quantile(largest, level)) * spread
    bounds[:, observed] = centre - half, centre + half
    return bounds


def wilson(successes: float, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a proportion, which has width where all n agree; (NaN, NaN) for n = 0."""
    if n == 0:
        return (np.nan, np.nan)
    p = successes / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n)))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k samples drawn from n is right, unbiased (Chen et al., arXiv:2107.03374).

        1 - C(n - correct, k) / C(n, k)

    NaN where there are fewer than k samples.
    """
    if k > n:
        return np.nan
    return 1 - comb(n - correct, k) / comb(n, k)


def maj_at_k(
    answers: Sequence[Any], correct: Bool[np.ndarray, " n"], k: int, *, draws: int = 1000, seed: int = 0
) -> float:
    """The accuracy of a majority vote over k of the answers, averaged over random subsets of size k.

    Equal answers vote together; None does not vote; a tie shares the point; no vote at all is wrong. NaN where there
    are fewer than k answers. With k = n there is one subset and no randomness but the tie's share.
    """
    n = len(answers)
    if k > n:
        return np.nan
    rng = np.random.default_rng(seed)
    kinds = {a: i for i, a in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    if not kinds:
        return 0.0
    votes = np.zeros((n, len(kinds)))
    for row, answer in zip(votes, answers, strict=True):
        if answer is not None:
            row[kinds[answer]] = 1
    right = np.zeros(len(kinds), dtype=bool)
    for answer, ok in zip(answers, correct, strict=True):
        if answer is not None:
            right[kinds[answer]] |= bool(ok)
    subsets = [np.arange(n)] if k == n else [rng.choice(n, k, replace=False) for _ in range(draws)]
    shares = []
    for subset in subsets:
        tally = votes[subset].sum(axis=0)
        winners = (tally == tally.max()) & (tally > 0)
        shares.append(float((winners & right).sum() / winners.sum()) if winners.any() else 0.0)
    return float(np.mean(shares))
