"""MRT's practical RL form as drawn (Qu et al., 2025, arXiv:2503.07572): half of a group is forced to answer."""

import numpy as np

from headway.credit.common import Bonuses, Group, throughout


def is_direct(index: int, size: int) -> bool:
    """Whether a completion of a group of `size` is forced to answer at the stale prefix: the second half is."""
    return index % size >= size // 2


def bonuses(group: Group) -> Bonuses:
    """One bonus for a completion, in a group half of which answers at the prefix: its reward minus their mean.

        b_i = r_i - mean(direct r) if i continues the prefix, 0 if i is direct; minus the mean of the group's b

    Outcome and bonus together are r' minus its mean over the group, r' = r + alpha (r - mean(direct r)) for those that
    continue and r for the others: both kinds are trained. With V_c and V_d the success from the prefix of either kind
    and G traces, the expected gradient is that of ((1 + alpha) (1 - 1/G) V_c + (1 - (1 - alpha) / G) V_d) / 2. An
    undecided outcome gives no bonus (NaN) and does not enter the means.
    """
    rewards, size = group.rewards, len(group.rewards)
    direct = np.array([is_direct(i, size) for i in range(size)])
    known = ~np.isnan(rewards)
    if not (known & direct).any():
        return throughout([np.array([np.nan]) for _ in rewards])
    raw = np.where(direct, 0.0, rewards - rewards[known & direct].mean())
    return throughout([np.array([b]) for b in np.where(known, raw - raw[known].mean(), np.nan)])
