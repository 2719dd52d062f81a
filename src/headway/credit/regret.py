"""The gradient of normalized regret: progress counts as much as budget is left when it is made (ours)."""

import numpy as np
from jaxtyping import Float

from headway.credit.common import Bonuses, Group, centred, choices, throughout


def bonuses(group: Group) -> Bonuses:
    """The progress to come, each piece weighted by the share of the budget that is left when it is made.

        b_j = sum_{i >= j} r_i rho_{i+1} = (1 / C0) * integral_{c_j}^{C0} ( V(C) - V_j ) dC,    centred over the group
        rho_i = max(0, C0 - c_i) / C0

    c_i is the budget of an answer at boundary i, V(C) the step curve of the trace, C0 the group's `budget`. With
    weight alpha, the expected gradient is that of -alpha * E_{z ~ pi}[ Reg(C0) ] (`core.regret.normalized_regret`):
    V_j, the value of stopping and holding it, is the baseline. Towards an endless budget it is `to_go`. It is also
    AnytimeReasoner's objective (arXiv:2505.13438) for budgets of a uniform prior up to C0.

    Raises:
        ValueError: the group's `budget` is not above 0.
    """
    if not group.budget > 0:
        raise ValueError(f"regret needs a budget above 0 tokens, got {group.budget}; set the group's budget")
    each = zip(group.values, group.costs, choices(group), strict=True)
    return throughout(centred([_area(v, c, group.budget)[:n] for v, c, n in each]))


def _area(values: Float[np.ndarray, " J"], costs: Float[np.ndarray, " J"], budget: float) -> Float[np.ndarray, " J"]:
    """The area between the value curve and each boundary's value, from there to the budget, as a share of the budget.

    Boundaries without a value or a cost are passed over; their own area is NaN.
    """
    known = np.flatnonzero(~np.isnan(values) & ~np.isnan(costs))
    left = np.clip(1 - costs[known] / budget, 0, 1)
    made = np.append(np.diff(values[known]) * left[1:], 0.0)
    area = np.full(len(values), np.nan)
    area[known] = np.cumsum(made[::-1])[::-1][: len(known)]
    return area
