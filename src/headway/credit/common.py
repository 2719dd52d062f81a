"""What all credit schemes share: the group they see, the baseline, and the advantage of each token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headway.types import Episode

Bonuses = list[Float[np.ndarray, " _"]]  # one array a trace


class Group(NamedTuple):
    """The traces of one prompt: everything that credit may depend on.

    With a stale prefix, `values`, `episodes` and `costs` are those of the prefix, which is one episode.
    """

    rewards: Float[np.ndarray, " G"]  # the outcomes; NaN where undecided
    values: Sequence[Float[np.ndarray, " J"]]  # at each boundary of each trace; NaN where unknown
    episodes: Sequence[Sequence[Episode]]
    stopped: Sequence[bool]  # whether each trace ended by itself, which is one more choice: to stop
    costs: Sequence[Float[np.ndarray, " J"]]  # the budget of an answer at each boundary; NaN where unknown
    lengths: Sequence[int]  # completion tokens, end of text included


def with_stop(bonuses: Float[np.ndarray, " K"], stopped: bool) -> Float[np.ndarray, " choices"]:
    """The bonuses of a trace's episodes, and 0 for the decision to stop where it made one."""
    return np.append(bonuses, 0.0) if stopped else bonuses


def centred(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> Bonuses:
    """Each bonus minus the mean bonus of the *other* traces of its group at the same boundary.

    A baseline leaves the expected gradient unchanged if every choice at the boundary pays it. So the stop pays it too
    (0 - baseline); otherwise each further episode would cost a length penalty. NaN bonuses stay NaN and are left out
    of the means; a trace alone in its group has the baseline 0.
    """
    baselines = others_mean(bonuses_G)
    return [b - baselines[i, : len(b)] for i, b in enumerate(bonuses_G)]


def others_mean(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "G choices"]:
    """The mean bonus of the other traces at each boundary.

    Where no other trace has that many choices, the mean over all choices of the others; 0 where they made none.
    """
    G, width = len(bonuses_G), max((len(b) for b in bonuses_G), default=0)
    table = np.full((G, width), np.nan)
    for row, bonuses in zip(table, bonuses_G, strict=True):
        row[: len(bonuses)] = bonuses
    known = ~np.isnan(table)
    sums, counts = np.where(known, table, 0.0), known.astype(int)
    others_sum, others_n = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    all_sum = sums.sum() - sums.sum(axis=1, keepdims=True)
    all_n = counts.sum() - counts.sum(axis=1, keepdims=True)
    everywhere = all_sum / np.maximum(all_n, 1)
    return np.where(others_n > 0, others_sum / np.maximum(others_n, 1), everywhere)


def token_advantages(
    outcome: float,
    bonuses: Float[np.ndarray, " choices"],
    episodes: Sequence[Episode],
    n_tokens: int,
    *,
    weight: float,
) -> Float[np.ndarray, " T"]:
    """The advantage of each token of a completion.

        A_t = outcome + weight * b_j     for the tokens t of episode j
        A_t = outcome + weight * b_stop  for the first token after the thinking, which makes the policy stop
        A_t = outcome                    for the answer

    Each token of an episode has its whole bonus: log pi(z_j) is the sum over its tokens. A NaN bonus adds nothing.
    Weight 0 gives the outcome, bit for bit.

    Raises:
        ValueError: there are not as many bonuses as episodes, or one more (the stop), or tokens are missing.
    """
    end = episodes[-1].stop if episodes else 0
    stopped = len(bonuses) == len(episodes) + 1
    if not (stopped or len(bonuses) == len(episodes)) or end + stopped > n_tokens:
        raise ValueError(
            f"got {len(bonuses)} bonuses for {len(episodes)} episodes that end at token {end} of {n_tokens}; expected "
            "one an episode, and one more for a stop that has a token"
        )
    advantages = np.full(n_tokens, outcome)
    if weight == 0:
        return advantages
    ranges = [*episodes, Episode(end, end + 1)] if stopped else episodes
    for (start, stop), bonus in zip(ranges, bonuses, strict=True):
        if not np.isnan(bonus):
            advantages[start:stop] += weight * bonus
    return advantages
