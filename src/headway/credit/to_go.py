"""The progress to the end of the thinking, after VinePPO (Kazemnejad et al., 2024, arXiv:2410.01679)."""

from headway.credit.common import Bonuses, Group, centred, with_stop


def bonuses(group: Group) -> Bonuses:
    """Each episode's progress from its start to the end of the thinking.

        b_j = V_K - V_j = sum_{i >= j} r_i,    b_stop = 0,    centred over the group

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi}[ V_K ]: V_j is only a baseline.
    """
    stopped = zip(group.values, group.stopped, strict=True)
    return centred([with_stop(v[-1] - v[:-1], s) for v, s in stopped])
