"""GRPO (Shao et al., 2024, arXiv:2402.03300): the outcome's advantage alone."""

import numpy as np

from headway.credit.common import Bonuses, Group, choices


def bonuses(group: Group) -> Bonuses:
    """No bonus: TRL's own step.

        b_j = 0

    The trainer neither cuts nor proves a trace for it: the step is TRL's, bit for bit.
    """
    return [np.zeros((2, n)) for n in choices(group)]
