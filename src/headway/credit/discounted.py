"""Progress to go with a discount per episode: between the paper's greedy bonus and the value at the end."""

from headway.credit.common import Bonuses, Group, centred, greedy, returns


def bonuses(group: Group) -> Bonuses:
    """The progress to come, that of later episodes discounted by `progress_lambda`.

        b_j = sum_{i >= j} lambda^(i - j) r_i,    end_j = b_j + (1 - lambda) b_{j+1}

    lambda = 0 is `episode`, 1 is `to_go`. A token is paid in full for the progress of the episode under way and of the
    one that it opens, lambda^k for that of the k-th after these. At pi = pi_old the expected gradient is that of

        alpha * sum over prefixes h of pi_old(h) * E_{token ~ pi(.|h)} [ that sum ]

    with what follows the token from pi_old. The group baseline is for b_j alone.

    Raises:
        ValueError: the group's `decay` is not from 0 to 1.
    """
    if not 0 <= group.decay <= 1:
        raise ValueError(f"lambda must be from 0 to 1, got {group.decay}; set the group's decay")
    own = returns(group, decay=group.decay)
    return greedy(centred(own), own, decay=group.decay)
