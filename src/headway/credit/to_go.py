"""The progress to the end of the thinking, after VinePPO (Kazemnejad et al., 2024, arXiv:2410.01679)."""

from headway.credit.common import Bonuses, Group, centred, choices, throughout


def bonuses(group: Group) -> Bonuses:
    """The progress from the start of each episode to the end of the thinking.

        b_j = V_K - V_j = sum_{i >= j} r_i,    centred over the group

    With weight alpha, its expected gradient is that of alpha * E_{z ~ pi}[ V_K ]: V_j is only a baseline.
    """
    return throughout(centred([(v[-1] - v)[:n] for v, n in zip(group.values, choices(group), strict=True)]))
