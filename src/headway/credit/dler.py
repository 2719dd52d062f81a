"""DLER (Liu et al., 2025, arXiv:2510.15110), what is not an option of TRL's: its boost of correct traces."""

import numpy as np

from headway.credit.common import Bonuses, Group, throughout


def bonuses(group: Group) -> Bonuses:
    """One bonus for a completion: 1 if it is correct and others of its group are not, without a baseline.

        b = 1[correct] 1[the group's outcomes differ]

    The authors' code adds 0.1 (the weight) to the normalized advantage of each correct trace. It drops groups of one
    outcome and samples others (dynamic sampling); here they get nothing and are not replaced. All else of DLER is
    TRL's: recipes/rivals/dler.yaml. The expected gradient is that of alpha * E[ b ] for one trace of pi in a group of
    pi_old. An undecided outcome gives NaN.
    """
    known = group.rewards[~np.isnan(group.rewards)]
    differ = len(np.unique(known)) > 1
    return throughout([np.array([reward * differ]) for reward in group.rewards])
