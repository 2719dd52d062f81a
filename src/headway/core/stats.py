"""Uncertainty: means, differences and counts, with their errors over problems, whose traces are not independent."""

from collections.abc import Callable, Hashable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

# from weights, a row for each resample and a column for each problem, to a value for each row; the data weigh 1
Statistic = Callable[[Float[np.ndarray, "rows P"]], Float[np.ndarray, " rows"]]
Table = Float[np.ndarray, "P C"]  # a row for each problem


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
    n, clusters = len(x), int(cluster.max(initial=-1)) + 1
    centre = float(x.mean()) if n else np.nan
    if clusters < 2:
        return Estimate(centre, np.nan, (np.nan, np.nan), n, clusters)
    sums = np.bincount(cluster, weights=x - centre)
    stderr = float(np.sqrt(clusters / (clusters - 1) * np.sum(sums**2)) / n)
    half = stderr * float(scipy_stats.t.ppf(0.975, clusters - 1))
    return Estimate(centre, stderr, (centre - half, centre + half), n, clusters)


class ProblemSums(NamedTuple):
    """The sum and the number of each problem's observations, by column; problems in the order they come."""

    problems: list[str]
    totals: Float[np.ndarray, "P C"]
    counts: Float[np.ndarray, "P C"]

    @property
    def means(self) -> Float[np.ndarray, "P C"]:
        """The mean of each problem; NaN where it has no observation."""
        return np.divide(self.totals, self.counts, out=np.full_like(self.totals, np.nan), where=self.counts > 0)


def sums_by_problem(rows: Float[np.ndarray, "n C"], problems: Sequence[str]) -> ProblemSums:
    """Rows of observations added up by problem; NaN ones are left out."""
    names = {problem: row for row, problem in enumerate(dict.fromkeys(problems))}
    at = np.array([names[problem] for problem in problems], dtype=int)
    known = ~np.isnan(rows)
    totals, counts = np.zeros((2, len(names), rows.shape[1]))
    np.add.at(totals, at, np.where(known, rows, 0.0))
    np.add.at(counts, at, known)
    return ProblemSums(list(names), totals, counts)


def by_problem(values: Float[np.ndarray, " n"], problems: Sequence[str]) -> dict[str, float]:
    """The mean of each problem's observations; NaN ones are left out, and problems with no others."""
    sums = sums_by_problem(values[:, None], problems)
    means = zip(sums.problems, sums.means[:, 0].tolist(), strict=True)
    return {problem: mean for problem, mean in means if not np.isnan(mean)}


def paired_difference(a: dict[str, float], b: dict[str, float]) -> Estimate:
    """The mean of b - a over the problems both have, so that the difficulty of a problem cancels."""
    both = [p for p in a if p in b]
    return mean(np.array([b[p] - a[p] for p in both], dtype=float), both)


def simultaneous_bands(values: Table, *, resamples: int = 2000, seed: int = 0) -> Float[np.ndarray, "2 C"]:
    """Bounds that hold for all column means of a table at once with 95% probability, by resampling problems (rows).

    The half width is the same multiple of each column's bootstrap error, the 95% quantile of the largest deviation. A
    column without spread has no width. NaN is not observed; fewer than two rows, or an empty column: NaN.
    """
    P, C = values.shape
    bounds = np.full((2, C), np.nan)
    observed = ~np.isnan(values).all(axis=0)
    if P < 2 or not observed.any():
        return bounds
    known = ~np.isnan(values[:, observed])
    totals = np.where(known, values[:, observed], 0.0)
    counts = resampled(P, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = counts @ totals / (counts @ known)
    centre = totals.sum(axis=0) / known.sum(axis=0)
    spread = np.nanstd(means, axis=0)
    safe = np.where(spread > 0, spread, np.inf)
    # a resample may hold no row that observes a column: it says nothing about it
    largest = np.nan_to_num(np.abs(means - centre) / safe).max(axis=1)
    half = float(np.quantile(largest, 0.95)) * spread
    bounds[:, observed] = centre - half, centre + half
    return bounds


def resampled(problems: int, *, resamples: int = 2000, seed: int = 0) -> Float[np.ndarray, "resamples P"]:
    """How often each problem is in each resample of a bootstrap over problems."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(float)


def bootstrap_estimate(
    statistic: Statistic, problems: int, *, n: int, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """A statistic of n observations with its error by resampling problems: for what is no mean, such as a ratio.

    The error is the standard deviation over resamples, the interval their 2.5% and 97.5% quantiles; resamples without
    a value (NaN) are left out. Fewer than two problems: errors NaN; none: all NaN.
    """
    if problems == 0:
        return Estimate(np.nan, np.nan, (np.nan, np.nan), 0, 0)
    value = float(statistic(np.ones((1, problems)))[0])
    values = statistic(resampled(problems, resamples=resamples, seed=seed)) if problems > 1 else np.empty(0)
    values = values[~np.isnan(values)]
    if np.isnan(value) or len(values) < 2:
        return Estimate(value, np.nan, (np.nan, np.nan), n, problems)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(value, float(values.std(ddof=1)), (float(low), float(high)), n, problems)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The Wilson interval of a proportion, which has width where all n agree; (NaN, NaN) for n = 0."""
    if n == 0:
        return np.nan, np.nan
    p, z = successes / n, 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased probability that at least one of k of n samples is correct (Chen et al., arXiv:2107.03374).

    1 - C(n - correct, k) / C(n, k)        NaN where there are fewer than k samples
    """
    return np.nan if k > n else 1 - comb(n - correct, k) / comb(n, k)
