"""The baseline of BRPO (Qi et al., 2025, arXiv:2505.13438) for the progress of episodes."""

import numpy as np

from headway.credit.common import Bonuses, Each, Group, greedy, others_mean, returns


def bonuses(group: Group) -> Bonuses:
    """Each episode's own progress, with a baseline from the earlier progress of its trace.

        b_j = V_{j+1} - V_j,    end_j = b_j + b_{j+1},    b_j centred by `centred_by_past`

    Its expected gradient is that of `episode`. It would bias `to_go`, whose earlier bonuses depend on the trace's end.
    """
    own = returns(group, decay=0.0)
    return greedy(centred_by_past(own), own)


def centred_by_past(bonuses_G: Each) -> Each:
    """Each bonus minus a mean of its own trace's *earlier* bonuses and of the other traces' for the same episode.

        b_j = w_j own_j + (1 - w_j) others_j,    own_j = sum_{i < j} 2^i r_i / sum_{i < j} 2^i,    w_j = min(1, j / S)

    S is the number of episodes of the longest other trace; BRPO has a fixed number of budgets instead. The baseline
    depends on what came before the episode and on other traces only, so the expected gradient is unchanged. Without a
    known earlier bonus it is the mean of the others.
    """
    others = others_mean(bonuses_G)
    result = []
    for i, bonuses in enumerate(bonuses_G):
        longest = max((len(b) for k, b in enumerate(bonuses_G) if k != i), default=1)
        known = ~np.isnan(bonuses)
        # halving the sums so far gives the ratio of doubled weights, without numbers that grow
        own, weight, baseline = 0.0, 0.0, np.zeros(len(bonuses))
        for j in range(len(bonuses)):
            share = min(1.0, j / max(longest, 1)) if weight > 0 else 0.0
            baseline[j] = share * (own / weight if weight > 0 else 0.0) + (1 - share) * others[i, j]
            own = own / 2 + (bonuses[j] if known[j] else 0.0)
            weight = weight / 2 + float(known[j])
        result.append(bonuses - baseline)
    return result
