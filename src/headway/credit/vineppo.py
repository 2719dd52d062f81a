"""VinePPO (Kazemnejad et al., 2024, arXiv:2410.01679): step values of the policy that goes on by itself."""

from headway.credit.common import Bonuses, Group, greedy, returns


def bonuses(group: Group) -> Bonuses:
    """Each step's own progress in the policy's chance of success; the last step includes the answer.

        b_j = V_{j+1} - V_j,    end_j = b_j + b_{j+1},    V_K = r, the outcome

    V_j is the mean outcome of `branches` traces that the policy continues from boundary j, without a forced answer. It
    is a baseline for what follows, so there is none of the group, and the expected gradient is that of
    alpha * E_{z ~ pi}[ r ]: with the outcome's own advantage switched off (`reward_weights: [0.0]`) this is VinePPO's.
    Its steps end with a token of their own; here the token after an episode decides that it ends, and is paid for both.
    A thought that stops at once has one boundary, whose value is its outcome, and the bonus 0.
    """
    own = [returns(v, stopped, decay=0.0) for v, stopped in zip(group.values, group.stopped, strict=True)]
    return greedy(own, own)
