"""MRT's practical RL form (Qu et al., 2025, arXiv:2503.07572): completions continue a prefix of an old trace."""

import numpy as np

from headway.credit.common import Bonuses, Group


def bonuses(group: Group) -> Bonuses:
    """One bonus for a completion that continues a prefix of an old trace: its reward minus the prefix's value.

        b = r - V_prefix

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi(.|prefix)}[ r ]. The authors' v0.1 calls it
    "offline". In a reward it would cancel, since the group shares V_prefix. An undecided outcome or an unknown value
    gives no bonus (NaN).
    """
    return [np.array([r - v[-1]]) for r, v in zip(group.rewards.tolist(), group.values, strict=True)]
