"""Values: the meta-prover's probability of success at each boundary, and the error of each estimate of it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Each = Float[np.ndarray, " J"]  # a number for each boundary
Row = Float[np.ndarray, " B"]  # a number for each branch of one
Table = Float[np.ndarray, "J B"]  # and for each of its branches
Numbers = Int[np.ndarray, "J B"]


class Values(NamedTuple):
    """Estimates at the boundaries of one trace, each with its standard error and number of graded branches."""

    values: Each
    stderr: Each
    n: Int[np.ndarray, " J"]


def from_branches(rewards: Table) -> Values:
    """The mean reward of the graded branches at each boundary.

        V_j = (1 / n_j) sum_b r_jb,    se_j = sqrt(V_j (1 - V_j) / (n_j - 1))

    n_j counts the branches with a reward; a NaN reward (undecided) is left out. se_j^2 is the unbiased estimate of
    the variance of V_j, but a single one is 0 where all branches agree, which is not certainty: for an interval of one
    value use `stats.wilson`. No graded branch: value NaN; fewer than two: stderr NaN.
    """
    graded = ~np.isnan(rewards)
    n = graded.sum(axis=1)
    total = np.where(graded, rewards, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(n > 0, total / n, np.nan)
        stderr = np.where(n > 1, np.sqrt(values * (1 - values) / (n - 1)), np.nan)
    return Values(values, stderr, n)


def from_distinct(rewards: Table, logprobs: Table, completions: Numbers) -> Values:
    """The probability of the distinct correct answers among the n branches at each boundary.

        V = sum_{a in D} p_a r_a / pi_a,    pi_a = 1 - (1 - p_a)^n        (Horvitz and Thompson, 1952)

    D holds each distinct completion once, p_a is its probability under the distribution it was sampled from and pi_a
    the probability that n samples contain it. V is unbiased as the mean reward is, and its variance

        sum_a y_a^2 (1 - pi_a) / pi_a + sum_{a != b} y_a y_b (pi_ab - pi_a pi_b) / (pi_a pi_b),    y_a = p_a r_a,
        pi_ab = 1 - (1 - p_a)^n - (1 - p_b)^n + (1 - p_a - p_b)^n

    falls to zero as the answers concentrate. A single value may lie above 1: only averages are probabilities. stderr^2
    is the unbiased estimate of the variance (each term over pi_a or pi_ab), but 0 where that is negative; as for
    `from_branches`, a single 0 is not certainty. With one branch it is NaN.

    Undecided answers (a NaN reward) are left out: with U their own estimated probability, V becomes V / (1 - U), as
    the mean over the graded branches would, and y_a = p_a (r_a + V u_a) / (1 - U) to first order. NaN if nothing is
    left. `logprobs` are NaN where there is no branch; `completions` are equal within a row for the same tokens, ended
    in the same way.
    """
    return from_hybrid(np.zeros(len(rewards)), rewards, logprobs, completions)


def from_likelihood(known: Each) -> Values:
    """The probability of the known correct answers at each boundary: nothing is sampled, so error and n are 0.

        V = sum_{a in F} p_a

    F holds known forms of the correct answer. A lower bound of the probability of success, exact where F holds all.
    """
    return Values(known, np.where(np.isnan(known), np.nan, 0.0), np.zeros(len(known), dtype=int))


def from_hybrid(known: Each, rewards: Table, logprobs: Table, completions: Numbers) -> Values:
    """The exact probability of the known correct answers plus that of the *other* correct ones among the branches.

        V = sum_{a in F} p_a  +  sum_{a in D \\ F} p_a r_a / pi_a

    Unbiased whatever F is, as long as it does not depend on the branches; only the second sum has an error. With F
    empty it is `from_distinct`, with every correct answer in F `from_likelihood`. `known` is the probability of F at
    each boundary; the reward of a branch in F is 0 here, since it is counted already.
    """
    rows = [_hybrid(*row) for row in zip(known.tolist(), rewards, logprobs, completions, strict=True)]
    values, stderr = np.array(rows, dtype=float).reshape(-1, 2).T
    return Values(values, stderr, (~np.isnan(rewards) & ~np.isnan(logprobs)).sum(axis=1))


def _hybrid(known: float, rewards: Row, logprobs: Row, completions: Int[np.ndarray, " B"]) -> tuple[float, float]:
    """Value and standard error of one boundary."""
    sampled = np.flatnonzero(~np.isnan(logprobs))
    n = len(sampled)
    distinct = sampled[np.unique(completions[sampled], return_index=True)[1]]
    p = np.exp(np.minimum(logprobs[distinct], 0.0))
    undecided = np.isnan(rewards[distinct])
    reward = np.where(undecided, 0.0, rewards[distinct])
    chance = -np.expm1(n * np.log1p(-np.minimum(p, 1 - 1e-16)))
    left = 1 - (p * undecided / chance).sum()
    if n == 0 or undecided.all() or left <= 0:
        return np.nan, np.nan
    value = (known + (p * reward / chance).sum()) / left
    y = p * (reward + value * undecided) / left / chance
    if n == 1:
        return value, np.nan
    small, big = np.minimum(p[:, None], p), np.maximum(p[:, None], p)
    both = 1 - (1 - small) ** n - (1 - big) ** n + np.clip(1 - small - big, 0.0, 1.0) ** n
    # for unlikely answers that cancels to nothing: to first order, one of n is the small one and others the big one
    both = np.where(small < 1e-6, n * small * -np.expm1((n - 1) * np.log1p(-np.minimum(big, 1 - 1e-16))), both)
    np.fill_diagonal(both, chance)
    terms = y[:, None] * y * (1 - chance[:, None] * chance / both)
    return value, float(np.sqrt(max(terms.sum(), 0.0)))
