"""GRPO (Shao et al., 2024, arXiv:2402.03300): the outcome's advantage alone."""

import numpy as np

from headway.credit.common import Bonuses, Group, with_stop


def bonuses(group: Group) -> Bonuses:
    """No bonus: TRL's own step.

        b_j = 0,    b_stop = 0

    The trainer neither cuts nor proves a trace for it: the step is TRL's, bit for bit.
    """
    zeros = [np.zeros(len(episodes)) for episodes in group.episodes]
    return [with_stop(z, stopped) for z, stopped in zip(zeros, group.stopped, strict=True)]
