"""The length penalty of Arora and Zanette (2025, arXiv:2502.04463): correct traces pay for their length."""

import numpy as np
from jaxtyping import Float

from headway.credit.common import Bonuses, Group, centred, throughout


def bonuses(group: Group) -> Bonuses:
    """One bonus for a completion: minus its length if it is correct, relative to the group's correct ones.

        b = -1[correct] sigmoid((L - mean) / std),    mean and std of L over the group's correct traces; centred

    With the outcome of `scale_rewards: none` and weight a (G - 1) / G, G the size of a group, the advantage is the
    paper's up to a factor: reward 1[correct] (1 - a sigmoid(...)), leave-one-out baseline. Where the correct traces
    have one length std is 0, and each pays sigmoid(0) = 1/2. The expected gradient is that of
    alpha * E[ b - mean of the others' b ] for one trace of pi in a group of pi_old: its length moves the others' pay
    too. An undecided outcome gives NaN.
    """
    paid = penalties(group.rewards, np.array(group.lengths, dtype=float))
    return throughout(centred([np.array([-p]) for p in paid]))


def penalties(rewards: Float[np.ndarray, " G"], lengths: Float[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
    """What each trace of a group pays, from 0 to 1: 0 if it is wrong, NaN if its outcome is unknown.

    The standard deviation is that of the correct traces themselves (divided by their number).
    """
    correct = rewards > 0
    if not correct.any():
        return rewards * 0.0
    spread = lengths[correct].std()
    z = (lengths - lengths[correct].mean()) / (spread if spread > 0 else np.inf)
    return rewards * np.exp(-np.logaddexp(0.0, -z))  # the sigmoid, without an overflow
