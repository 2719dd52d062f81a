"""GRPO (Shao et al., 2024, arXiv:2402.03300): the outcome's advantage alone."""

import numpy as np

from headway.credit.common import Bonuses, Group


def bonuses(group: Group) -> Bonuses:
    """No bonus: TRL's own step.

        b_j = 0,    b_stop = 0

    The trainer neither cuts nor proves a trace for it: the step is TRL's, bit for bit.
    """
    choices = zip(group.episodes, group.stopped, strict=True)
    return [np.zeros(len(episodes) + stopped) for episodes, stopped in choices]
