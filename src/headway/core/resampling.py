"""Uncertainty by resampling problems (bootstrap): bands for a whole curve, and errors of what is no mean."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from headway.core.stats import NO_INTERVAL, UNIT, Estimate, Within, agree, rare, usual_of

# from weights, a row for each resample and a column for each problem, to a value for each row; the data weigh 1
Statistic = Callable[[Float[np.ndarray, "rows P"]], Float[np.ndarray, " rows"]]
TELLING = 12  # problems without which an interval by resampling does not cover
Table = Float[np.ndarray, "P C"]  # a row for each problem


def simultaneous_bands(
    values: Table, *, within: Within = UNIT, resamples: int = 2000, seed: int = 0
) -> Float[np.ndarray, "2 C"]:
    """Bounds that hold for all column means of a table at once with 95% probability, by resampling problems (rows).

    Each column's interval is that of `mean` with another multiple of its error: the 95% quantile over resamples of the
    largest deviation in units of that resample's own error (bootstrap-t), at least Student's t. A column in which
    nearly all problems agree has the interval of `rare` with that multiple, and does not enter it. NaN: not observed;
    a column with fewer than two: NaN.
    """
    bounds = np.full((2, values.shape[1]), np.nan)
    known = ~np.isnan(values)
    columns = [values[k, c] for c, k in enumerate(known.T)]
    enough = np.array([len(x) > 1 for x in columns], dtype=bool)
    steady = np.array([len(x) > 1 and agree(x - usual_of(x)) for x in columns], dtype=bool)
    multiple = _multiple(values[:, enough & ~steady], resamples=resamples, seed=seed)
    for c in np.flatnonzero(enough):
        x = columns[c]
        n, centre = len(x), float(x.mean())
        if steady[c]:
            usual = usual_of(x)
            bounds[:, c] = rare(x - usual, usual, centre, within, weights=np.full(n, 1 / n), z=multiple)
        else:
            half = multiple * x.std(ddof=1) / np.sqrt(n)
            bounds[:, c] = centre - half, centre + half
    return bounds


def _multiple(values: Table, *, resamples: int, seed: int) -> float:
    """The 95% quantile of the largest studentized deviation of the column means; without columns Student's t."""
    P, C = values.shape
    if P < 2:
        return np.nan
    single = float(scipy_stats.t.ppf(0.975, P - 1))
    if C == 0:
        return single
    known = ~np.isnan(values)
    x = np.where(known, values - np.nanmean(values, axis=0), 0.0)
    counts = resampled(P, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = counts @ known
        means = counts @ x / n
        errors = np.sqrt(np.maximum(counts @ x**2 / n - means**2, 0.0) / (n - 1))
        largest = np.nan_to_num(np.abs(means) / errors, nan=0.0, posinf=np.inf).max(axis=1)
    found = float(np.quantile(largest, 0.95, method="higher"))
    # of two or three problems a resample often has but one: Bonferroni's multiple instead
    return max(single, found if np.isfinite(found) else float(scipy_stats.t.ppf(1 - 0.025 / C, P - 1)))


def resampled(problems: int, *, resamples: int = 2000, seed: int = 0) -> Float[np.ndarray, "resamples P"]:
    """How often each problem is in each resample of a bootstrap over problems."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(float)


def bootstrap_estimate(
    statistic: Statistic, problems: int, *, n: int, telling: int | None = None, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """A statistic of n observations with its error by resampling problems: for what is no mean, such as a ratio.

    The error is the standard deviation over resamples. The interval has on each side the farther end of two: Student's
    t times that error, and the resamples' quantile at the level that covers a mean of so few problems (the expanded
    percentile interval, Hesterberg, arXiv:1411.5279). It is NaN where it would not cover: no resample differs, more
    than one in 40 has no value (the others are left out), or fewer than `TELLING` problems say anything about the
    statistic (`telling`; by default all do).
    Fewer than two problems: errors NaN; none: all NaN.
    """
    if problems == 0:
        return Estimate(np.nan, np.nan, NO_INTERVAL, 0, 0)
    value = float(statistic(np.ones((1, problems)))[0])
    values = statistic(resampled(problems, resamples=resamples, seed=seed)) if problems > 1 else np.empty(0)
    found = values[~np.isnan(values)]
    if np.isnan(value) or len(found) < 2:
        return Estimate(value, np.nan, NO_INTERVAL, n, problems)
    stderr = float(found.std(ddof=1))
    missing = 1 - len(found) / len(values)
    if stderr <= 1e-9 * abs(value) or missing > 0.025 or (problems if telling is None else telling) < TELLING:
        return Estimate(value, stderr, NO_INTERVAL, n, problems)
    t = float(scipy_stats.t.ppf(0.975, problems - 1)) * np.sqrt(problems / (problems - 1))
    tail = float(scipy_stats.norm.cdf(-t))
    low, high = np.quantile(found, [tail, 1 - tail])
    ends = (float(min(low, value - t * stderr)), float(max(high, value + t * stderr)))
    return Estimate(value, stderr, ends, n, problems)
