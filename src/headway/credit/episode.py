"""MRT's objective (Qu et al., 2025, arXiv:2503.07572, Eq. l_MRT): each episode is paid for its own progress."""

from headway.core.progress import progress
from headway.credit.common import Bonuses, Group, centred, with_stop


def bonuses(group: Group) -> Bonuses:
    """Each episode's own progress.

        b_j = V_{j+1} - V_j,    b_stop = 0,    centred over the group

    With weight alpha, its expected gradient is that of

        alpha * E_{c ~ pi_old} [ sum_j E_{z_j ~ pi(.|c_j)} [ r_prg(z_j; c_j) ] ],    r_prg(stop; c) = 0

    at pi = pi_old: the bonus of the paper's MRT objective, contexts from the old policy. The authors' v0.1 calls it
    "online".
    """
    return centred(progress_bonuses(group))


def progress_bonuses(group: Group) -> Bonuses:
    """The progress of each episode and 0 for the stop, before any baseline."""
    return [with_stop(progress(v), stopped) for v, stopped in zip(group.values, group.stopped, strict=True)]
