"""Uncertainty of a trained method: training seeds and problems are both samples, and each seed meets every problem.

A table has a row for each seed and a column for each problem. Its entries are `mean + a_seed + b_problem + e`; the
error of the mean has a part from each (a random-effects analysis of variance without replication).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from headway.core.stats import Estimate

Table = Float[np.ndarray, "S P"]


class Parts(NamedTuple):
    """The products of two tables' means, by source; of a table with itself they are mean squares."""

    seeds: float  # NaN where there is one seed
    problems: float
    rest: float  # NaN where there is one seed
    n_seeds: int
    n_problems: int

    @property
    def variance(self) -> float:
        """The (co)variance of the two means: (seeds + problems - rest) / (S P); with one seed problems / P."""
        cells = self.n_seeds * self.n_problems
        return self.problems / cells if self.n_seeds == 1 else (self.seeds + self.problems - self.rest) / cells


def parts(x: Table, y: Table) -> Parts:
    """The mean products of two tables over the same seeds and problems, at least two problems."""
    S, P = x.shape
    (row_x, column_x, rest_x), (row_y, column_y, rest_y) = _effects(x), _effects(y)
    problems = S * float(column_x @ column_y) / (P - 1)
    if S == 1:
        return Parts(np.nan, problems, np.nan, S, P)
    rest = float((rest_x * rest_y).sum()) / ((S - 1) * (P - 1))
    return Parts(P * float(row_x @ row_y) / (S - 1), problems, rest, S, P)


def _effects(x: Table) -> tuple[Float[np.ndarray, " S"], Float[np.ndarray, " P"], Table]:
    centre = x.mean()
    rows, columns = x.mean(axis=1) - centre, x.mean(axis=0) - centre
    return rows, columns, x - centre - rows[:, None] - columns


def degrees(squares: Parts) -> float:
    """Satterthwaite's degrees of freedom of `squares.variance`, which is a sum of mean squares."""
    S, P = squares.n_seeds, squares.n_problems
    if S == 1:
        return P - 1.0
    total = squares.seeds + squares.problems - squares.rest
    of_each = (squares.seeds, S - 1), (squares.problems, P - 1), (squares.rest, (S - 1) * (P - 1))
    scale = sum(square**2 / free for square, free in of_each)
    return float(np.clip(total**2 / scale, S - 1, P - 1)) if scale > 0 else P - 1.0


def mean(x: Table) -> Estimate:
    """The mean of a table, with its error over seeds and problems, and a 95% interval by Student's t.

        Var = (MS_seeds + MS_problems - MS_rest) / (S P)        MS: mean squares

    unbiased for sigma_a^2 / S + sigma_b^2 / P + sigma_e^2 / (S P). One seed: the error is over problems only. Fewer
    than two problems: NaN.
    """
    S, P = x.shape
    centre = float(x.mean()) if x.size else np.nan
    if P < 2 or S < 1:
        return Estimate(centre, np.nan, (np.nan, np.nan), x.size, P)
    squares = parts(x, x)
    stderr = float(np.sqrt(_at_least(squares)))
    half = stderr * float(scipy_stats.t.ppf(0.975, degrees(squares)))
    return Estimate(centre, stderr, (centre - half, centre + half), x.size, P)


def _at_least(squares: Parts) -> float:
    """The variance, not below the rest's part: the estimates of the seeds' and the problems' parts may be negative."""
    cells = squares.n_seeds * squares.n_problems
    return squares.variance if squares.n_seeds == 1 else max(squares.variance, squares.rest / cells)


class Ratio(NamedTuple):
    """A ratio of two means with its 95% interval; unbounded (NaN) where the denominator's interval holds 0."""

    value: float
    ci95: tuple[float, float]
    n_seeds: int
    n_problems: int

    @property
    def bounded(self) -> bool:
        """Whether the denominator differs from 0, so that the ratio has an interval."""
        return not np.isnan(self.ci95[0])


def ratio_of_means(above: Table, below: Table) -> Ratio:
    """mean(above) / mean(below) over the same seeds and problems, with Fieller's interval.

    The interval holds every r for which mean(above - r below) does not differ from 0 at 5%:

        (A - r B)^2 <= t^2 (V_aa - 2 r V_ab + r^2 V_bb)

    A, B are the means, V their covariances over seeds and problems, t Student's quantile with the degrees of
    `above - (A / B) below`, or those of `below` where the former would not bound r. Where the interval of B alone
    (`mean`) holds 0, no r is excluded on at least one side: the bounds are NaN.
    """
    S, P = above.shape
    A, B = (float(x.mean()) if x.size else np.nan for x in (above, below))
    value = A / B if B else np.nan
    unknown = Ratio(value, (np.nan, np.nan), S, P)
    if P < 2 or S < 1 or np.isnan(value):
        return unknown
    aa, bb = (_at_least(parts(x, x)) for x in (above, below))
    ab = parts(above, below).variance
    for table in (above - value * below, below):
        t2 = float(scipy_stats.t.ppf(0.975, degrees(parts(table, table)))) ** 2
        low, middle, high = B * B - t2 * bb, A * B - t2 * ab, A * A - t2 * aa
        if low > 0 and (root := middle**2 - low * high) >= 0 and not _holds_zero(below):
            return Ratio(value, ((middle - root**0.5) / low, (middle + root**0.5) / low), S, P)
    return unknown


def _holds_zero(x: Table) -> bool:
    low, high = mean(x).ci95
    return low <= 0 <= high


def resampled(
    seeds: int, problems: int, *, resamples: int = 2000, seed: int = 0
) -> tuple[Float[np.ndarray, "R S"], Float[np.ndarray, "R P"]]:
    """The weights of seeds and of problems in each resample of both, independently: each row adds up to 1."""
    rng = np.random.default_rng(seed)
    S, P = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in (seeds, problems))
    return S, P
