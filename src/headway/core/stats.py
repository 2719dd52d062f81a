"""Uncertainty: means, differences and counts, with their errors over problems, whose traces are not independent."""

from collections.abc import Hashable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

Within = tuple[float, float]  # the bounds of what is observed
UNIT: Within = (0.0, 1.0)  # accuracies and normalized regret
SIGNED: Within = (-1.0, 1.0)  # their differences
NO_INTERVAL = (np.nan, np.nan)
Z95 = 1.96
FEW = 8  # problems that must differ from the others for their spread to tell an error


class Estimate(NamedTuple):
    """A mean with its standard error, 95% interval, and the numbers of observations and of problems behind it."""

    value: float
    stderr: float
    ci95: tuple[float, float]
    n: int
    n_problems: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def mean(values: Float[np.ndarray, " n"], problems: Sequence[Hashable], *, within: Within | None = None) -> Estimate:
    """The mean of observations, clustered by problem (Miller, arXiv:2411.00640; inspect's rule).

        se^2 = C / (C - 1) * (1 / n^2) * sum_c ( sum_{i in c} (x_i - mean) )^2

    C is the number of problems, a sample of problems like these; `mean_of_these` takes them as fixed. The interval is
    Student's t with C - 1 degrees, but where nearly all problems agree that of `rare`, for observations that lie
    `within` two bounds; without bounds it is NaN there. NaN values are left out. One problem: stderr NaN; none: all
    NaN.
    """
    x, sizes, cluster = _clusters(values, problems)
    n, C = len(x), len(sizes)
    centre = float(x.mean()) if n else np.nan
    if C < 2:
        return Estimate(centre, np.nan, NO_INTERVAL, n, C)
    sums = np.bincount(cluster, weights=x - centre)
    stderr = float(np.sqrt(C / (C - 1) * np.sum(sums**2)) / n)
    means = np.bincount(cluster, weights=x) / sizes
    usual = usual_of(means)
    if agree(means - usual):
        return Estimate(centre, stderr, rare(means - usual, usual, centre, within, weights=sizes / n), n, C)
    half = stderr * float(scipy_stats.t.ppf(0.975, C - 1))
    return Estimate(centre, stderr, (centre - half, centre + half), n, C)


def mean_of_these(
    values: Float[np.ndarray, " n"], problems: Sequence[Hashable], *, within: Within | None = None
) -> Estimate:
    """The same mean with its error over other samples for the very same problems, however hard others may be.

        se^2 = sum_c (n_c / n)^2 s_c^2 / n_c,       s_c^2 = sum_{i in c} (x_i - mean_c)^2 / (n_c - 1)

    Student's t has the degrees that Satterthwaite gives (Biometrics 1946, 2:110), up to n - C. Where nearly all
    observations are the usual one of their problem, the interval is that of `rare` with n observations, as if all
    problems were alike, which is wider. A problem with one observation says nothing about its noise: errors NaN.
    """
    x, sizes, cluster = _clusters(values, problems)
    n, C = len(x), len(sizes)
    centre = float(x.mean()) if n else np.nan
    if C == 0 or sizes.min() < 2:
        return Estimate(centre, np.nan, NO_INTERVAL, n, C)
    deviations = x - (np.bincount(cluster, weights=x) / sizes)[cluster]
    variances = np.bincount(cluster, weights=deviations**2) * sizes / (sizes - 1) / n**2
    stderr = float(np.sqrt(variances.sum()))
    own = np.array([usual_of(x[cluster == c]) for c in range(C)])[cluster]
    if agree(x - own):
        usual = usual_of(x)  # not each problem's own: of a few traces it is the commonest by luck
        return Estimate(centre, stderr, rare(x - usual, usual, centre, within, weights=np.full(n, 1 / n)), n, C)
    freedom = variances.sum() ** 2 / np.sum(variances**2 / (sizes - 1))
    half = stderr * float(scipy_stats.t.ppf(0.975, freedom))
    return Estimate(centre, stderr, (centre - half, centre + half), n, C)


def _clusters(
    values: Float[np.ndarray, " n"], problems: Sequence[Hashable]
) -> tuple[Float[np.ndarray, " known"], Int[np.ndarray, " P"], Int[np.ndarray, " known"]]:
    """The known values, the number of them in each problem, and the number of each one's problem."""
    known = ~np.isnan(values)
    names = [str(p) for p, k in zip(problems, known, strict=True) if k]
    _, cluster, sizes = np.unique(names, return_inverse=True, return_counts=True)
    return values[known], sizes, cluster


def usual_of(values: Float[np.ndarray, " n"]) -> float:
    """The commonest value, up to rounding; of several the smallest."""
    found, counts = np.unique(np.round(values, 9), return_counts=True)
    return float(found[counts.argmax()])


def agree(deviations: Float[np.ndarray, " n"]) -> bool:
    """Whether most of the deviations from the usual value are 0 and fewer than `FEW` are not.

    Their spread then says little about what was not seen: with 85% impossible problems a t interval of 15 covers 0.55.
    """
    others = int((np.abs(deviations) > 1e-8).sum())
    return others < min(FEW, len(deviations) / 2)


def rare(
    deviations: Float[np.ndarray, " n"], usual: float, centre: float, within: Within | None, *,
    weights: Float[np.ndarray, " n"], z: float = Z95,
) -> tuple[float, float]:  # fmt: skip
    """The interval of a mean of n numbers nearly all of which are at their usual values; it always has a width.

    The mean deviation upwards, as a fraction of the room between the usual value and the upper bound, is at most as
    variable as a proportion: its interval is Wilson's. So is that downwards; what both reach is combined by the sum of
    squares (Newcombe, Statistics in Medicine 1998, 17:873). For 0 or 1 it is Wilson's interval itself.
    """
    if within is None:
        return NO_INTERVAL
    low, high, n = 0.0, 0.0, len(deviations)
    for sign, scale in ((1, within[1] - usual), (-1, usual - within[0])):
        part = float(np.sum(weights * np.maximum(sign * deviations, 0.0)))
        if scale > 0:
            share = min(part / scale, 1.0)
            ends = [abs(end - share) * scale for end in wilson(share * n, n, z)]
            fewer, more = ends[::sign]
            low, high = float(np.hypot(low, fewer)), float(np.hypot(high, more))
    return centre - low, centre + high


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


def paired_difference(a: dict[str, float], b: dict[str, float], *, within: Within | None = None) -> Estimate:
    """The mean of b - a over the problems both have, so that the difficulty of a problem cancels.

    `within` bounds the differences. Where nearly all are equal the interval is that of `rare`.
    """
    both = [p for p in a if p in b]
    return mean(np.array([b[p] - a[p] for p in both], dtype=float), both, within=within)


def difference_on_these(a: Estimate, b: Estimate, value: float) -> Estimate:
    """A difference b - a of a value, with the errors of two independent means of the same fixed problems.

    Each end of the interval is as far away as the two means' own ends are, by the sum of squares (Newcombe 1998). Both
    are of `mean_of_these`.
    """
    (a_low, a_high), (b_low, b_high) = a.ci95, b.ci95
    low, high = np.hypot(b.value - b_low, a_high - a.value), np.hypot(b_high - b.value, a.value - a_low)
    ends = (float(value - low), float(value + high))
    return Estimate(value, float(np.hypot(a.stderr, b.stderr)), ends, a.n + b.n, b.n_problems)


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson interval of a proportion, which has width where all n agree; (NaN, NaN) for n = 0."""
    if n == 0:
        return NO_INTERVAL
    p = successes / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((centre - half) / (1 + z * z / n)), float((centre + half) / (1 + z * z / n))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased probability that at least one of k of n samples is correct (Chen et al., arXiv:2107.03374).

    1 - C(n - correct, k) / C(n, k)        NaN where there are fewer than k samples
    """
    return np.nan if k > n else 1 - comb(n - correct, k) / comb(n, k)
