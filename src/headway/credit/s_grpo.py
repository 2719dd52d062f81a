"""S-GRPO (Dai et al., 2025, arXiv:2505.07686): a serial group of early exits from one trace, paid less the later."""

import numpy as np
from jaxtyping import Float

from headway.credit.common import Bonuses, Group, choices, following


def bonuses(group: Group) -> Bonuses:
    """The advantages of the exits that come after each episode: the boundaries, and the trace's own end.

        b_j = (1 / J) sum_{k > j} (R_k - mean_k R_k),    end_j = b_{j+1}

    In the paper the tokens of a prefix have the advantage of each exit whose completion begins with it; R is
    `exit_rewards`. The last exit is the trace itself with its outcome, and the last episode includes the answer.
    There are J exits, not a fixed number, and neither the forced answers nor the text that forces them is trained.
    The mean over a trace's own exits depends on what comes later: the update is not the gradient of an objective.
    Unknown values are no exits.
    """
    result = []
    for values, reward, n in zip(group.values, group.rewards, choices(group), strict=True):
        exits = np.append(values[:-1], values[-1] if np.isnan(reward) else reward)
        rewards = exit_rewards(exits)
        known = ~np.isnan(rewards)
        advantages = np.where(known, rewards - rewards[known].sum() / max(known.sum(), 1), 0.0) / max(known.sum(), 1)
        later = np.append(np.cumsum(advantages[::-1])[::-1][1:], 0.0)
        own = later[:n] if known.any() else np.full(n, np.nan)
        result.append(np.stack([own, following(own)]))
    return result


def exit_rewards(values: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J"]:
    """The expected reward of each exit of a serial group.

        R_k = V_k * prod_{i < k} (1 - V_i / 2)

    The n-th correct exit is worth 1 / 2^(n - 1), a wrong one 0: with values 0 and 1 (one answer an exit) this is R
    itself, else its mean over independent answers. Unknown values are passed over and stay NaN.
    """
    halved = np.cumprod(1 - np.nan_to_num(values) / 2)
    return values * np.append(1.0, halved[:-1])[: len(values)]
