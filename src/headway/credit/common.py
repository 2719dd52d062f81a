"""What all credit schemes share: the group they see, the baseline, and the advantage of each token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headway.core.progress import progress
from headway.types import Episode

Each = list[Float[np.ndarray, " _"]]  # of each trace, a number for each choice
Bonuses = list[Float[np.ndarray, "2 _"]]  # of each trace: of the tokens within each episode, of the token that ends it


class Group(NamedTuple):
    """The traces of one prompt: everything that credit may depend on.

    With a stale prefix, `values`, `episodes` and `costs` are those of the prefix, which is one episode.
    """

    rewards: Float[np.ndarray, " G"]  # the outcomes; NaN where undecided
    values: Sequence[Float[np.ndarray, " J"]]  # at each boundary of each trace; NaN where unknown
    episodes: Sequence[Sequence[Episode]]
    stopped: Sequence[bool]  # whether each trace ended by itself; a budget cut the others
    costs: Sequence[Float[np.ndarray, " J"]]  # the budget of an answer at each boundary; NaN where unknown
    lengths: Sequence[int]  # completion tokens, end of text included
    budget: float = float("nan")  # the largest that counts, in completion tokens
    decay: float = float("nan")  # lambda: what an episode's progress is worth to the episode before it


def choices(group: Group) -> list[int]:
    """How many bonuses each trace has: one an episode, and one if it stopped before it thought at all."""
    return [max(len(e), int(stopped)) for e, stopped in zip(group.episodes, group.stopped, strict=True)]


def returns(group: Group, *, decay: float) -> Each:
    """The discounted progress of each trace from each episode on.

        b_j = sum_{i >= j} decay^(i - j) r_i,    r_i = V_{i+1} - V_i

    A thought that stopped at once has the one return 0. An unknown progress makes those before it unknown, unless the
    decay is 0.
    """
    result = [progress(v) if len(v) > 1 else np.zeros(n) for v, n in zip(group.values, choices(group), strict=True)]
    for found in result if decay else ():
        for j in range(len(found) - 2, -1, -1):
            found[j] += decay * found[j + 1]
    return result


def centred(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> Each:
    """Each bonus minus the mean bonus of the *other* traces of its group for the same episode.

    A baseline leaves the expected gradient unchanged if it depends on what came before a token alone. The episode that
    is under way does, and so all tokens within it and the one that ends it, a stop included, pay the same. NaN bonuses
    stay NaN and are left out of the means; a trace alone in its group has the baseline 0.
    """
    baselines = others_mean(bonuses_G)
    return [b - baselines[i, : len(b)] for i, b in enumerate(bonuses_G)]


def others_mean(bonuses_G: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "G K"]:
    """The mean bonus of the other traces for each episode.

    Where no other trace has that many episodes, the mean over all bonuses of the others; 0 where they have none.
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


def throughout(bonuses_G: Each) -> Bonuses:
    """Bonuses of which the token that ends an episode has the same as those within it."""
    return [np.stack([b, b]) for b in bonuses_G]


def greedy(bonuses_G: Each, opened_G: Each, *, decay: float = 0.0) -> Bonuses:
    """Bonuses of which the token that ends an episode also has that of the episode it opens.

        end_j = b_j + (1 - decay) opened_{j+1},    opened_K = 0: a stop opens none

    `b` may have a baseline. `opened`, the same returns, may not: whether a token opens an episode is its own choice.
    """
    each = zip(bonuses_G, opened_G, strict=True)
    return [np.stack([b, b + (1 - decay) * following(opened)]) for b, opened in each]


def following(bonuses: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """The bonus of the episode after each; 0 after the last."""
    return np.append(bonuses[1:], 0.0)[: len(bonuses)]


def token_advantages(
    outcome: float,
    bonuses: Float[np.ndarray, "2 K"],
    episodes: Sequence[Episode],
    n_tokens: int,
    *,
    weight: float,
) -> Float[np.ndarray, " T"]:
    """The advantage of each token of a completion.

        A_t = outcome + weight * bonuses[0, j]   for the tokens t after the first of episode j
        A_t = outcome + weight * bonuses[1, j]   for the token after episode j: it opens the next, or stops
        A_t = outcome                            for the answer

    A token is paid for the episode that is under way *before* it: whether the episode goes on is the token's own
    choice. The first token of all belongs to episode 0. A thought that stops at once has no episode, and its first
    token has `bonuses[1, 0]`. Each token has its whole bonus: log pi(z_j) is the sum over its tokens. A NaN bonus
    adds nothing. Weight 0 gives the outcome, bit for bit.

    Raises:
        ValueError: there are not as many bonuses as episodes, or tokens are missing.
    """
    end, K = episodes[-1].stop if episodes else 0, bonuses.shape[1]
    if (len(episodes) != K and (K, end) != (1, 0)) or max(end, K) > n_tokens:
        raise ValueError(
            f"got {K} bonuses for {len(episodes)} episodes that end at token {end} of {n_tokens}; expected one an "
            "episode, or one for a thought that stopped at once"
        )
    advantages = np.full(n_tokens, outcome)
    if weight == 0:
        return advantages
    added = np.zeros(n_tokens)
    for j, (start, stop) in enumerate(episodes):
        added[start + (j > 0) : stop] = bonuses[0, j]
    ends = [e.stop for e in episodes] or [0]
    for stop, bonus in zip(ends, bonuses[1], strict=False):
        added[stop : stop + 1] = bonus
    return advantages + weight * np.nan_to_num(added)
