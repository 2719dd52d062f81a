"""Values: the meta-prover's chance of success at each boundary, estimated from branches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Values(NamedTuple):
    """Estimates at the boundaries of one trace, each with its standard error and number of graded branches."""

    values: Float[np.ndarray, " J"]
    stderr: Float[np.ndarray, " J"]
    n: Int[np.ndarray, " J"]


def from_branches(rewards: Float[np.ndarray, "J B"]) -> Values:
    """The mean reward of the graded branches at each boundary.

        V_j = (1 / n_j) sum_b r_jb,    se_j = sqrt(V_j (1 - V_j) / (n_j - 1))

    n_j counts the branches with a reward; a NaN reward (undecided) is left out. se_j^2 is the unbiased estimate of
    the variance of V_j, so averages of it are right; a single one is 0 where all branches agree, which is not
    certainty: for an interval of one value use `stats.wilson`. No graded branch: value NaN; fewer than two: stderr
    NaN.
    """
    graded = ~np.isnan(rewards)
    n = graded.sum(axis=1)
    total = np.where(graded, rewards, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(n > 0, total / n, np.nan)
        stderr = np.where(n > 1, np.sqrt(values * (1 - values) / (n - 1)), np.nan)
    return Values(values, stderr, n)
