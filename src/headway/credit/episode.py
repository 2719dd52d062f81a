"""MRT's objective (Qu et al., 2025, arXiv:2503.07572, Eq. l_MRT): each episode is paid for its own progress."""

from headway.credit.common import Bonuses, Group, centred, greedy, returns


def bonuses(group: Group) -> Bonuses:
    """Each episode's own progress.

        b_j = V_{j+1} - V_j,    end_j = b_j + b_{j+1}

    A token is paid for the progress of the episode that is under way and of the one that it opens. At pi = pi_old the
    expected gradient is that of

        alpha * sum over prefixes h of pi_old(h) * E_{token ~ pi(.|h)} [ r_{e(h)} + r_next [the token opens one] ]

    with what follows the token from pi_old. Where only whole episodes are chosen this is the bonus of the paper's MRT
    objective, alpha * E_{c ~ pi_old} [ sum_j E_{z_j ~ pi(.|c_j)} [ r_prg(z_j; c_j) ] ], r_prg(stop; c) = 0. Its group
    baseline is for b_j alone. The authors' v0.1 calls it "online".
    """
    own = returns(group, decay=0.0)
    return greedy(centred(own), own)
