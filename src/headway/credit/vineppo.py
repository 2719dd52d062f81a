"""VinePPO (Kazemnejad et al., 2024, arXiv:2410.01679): progress of the policy's own values, without forced answers."""

import numpy as np

from headway.credit.common import Bonuses, Group, choices, following


def bonuses(group: Group) -> Bonuses:
    """Each episode's progress in the policy's own probability of success; the last one includes the answer.

        b_j = V_{j+1} - V_j,    end_j = b_{j+1},    V_K = r, the outcome

    V_j is the mean outcome of `branches` traces that the policy continues from boundary j, without a forced answer.
    Here an episode ends with the token that opens the next one, as the paper's steps end with their newline, and each
    token is paid for its own episode. V_j is the baseline; there is none of the group. The expected gradient is that
    of alpha * E_{z ~ pi}[ r ]. With the outcome's own advantage switched off (`reward_weights: [0.0]`) the advantages
    are VinePPO's. An undecided outcome gives the last episode NaN.
    """
    result = []
    for values, reward, n in zip(group.values, group.rewards, choices(group), strict=True):
        own = np.diff(np.append(values[:-1], reward)) if len(values) > 1 else np.zeros(n)
        result.append(np.stack([own, following(own)]))
    return result
