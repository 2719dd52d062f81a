"""MRT's practical RL form (Qu et al., 2025, arXiv:2503.07572): completions continue a prefix of an old trace."""

import numpy as np

from headway.credit.common import Bonuses, Group, throughout


def bonuses(group: Group) -> Bonuses:
    """One bonus for a completion that continues a prefix of an old trace: its reward minus the prefix's value.

        b = r - V_prefix

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi(.|prefix)}[ r ]: V_prefix is a baseline, so
    beside the outcome's own advantage this is GRPO from stale prefixes with a larger step. In a reward it would
    cancel, since the group shares V_prefix. The authors' v0.1 calls it "offline"; this is their termination baseline,
    without the group's mean. An undecided outcome or an unknown value gives no bonus (NaN).
    """
    return throughout([np.array([r - v[-1]]) for r, v in zip(group.rewards.tolist(), group.values, strict=True)])
