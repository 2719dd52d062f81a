"""Progress: how much one episode moved the probability of success (MRT, arXiv:2503.07572, Def. 6.1)."""

import numpy as np
from jaxtyping import Float


def progress(values: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J-1"]:
    """The progress made by each episode, in [-1, 1], from the values before the first to after the last.

        r_j = V_{j+1} - V_j,    V_j = J_r(mu(. | x, z_{0:j}))

    It telescopes, sum_j r_j = V_K - V_0: the total progress of a trace does not depend on where it was cut. A NaN
    value (nothing there could be graded) makes the two progresses beside it NaN.
    """
    return values[1:] - values[:-1]


def progress_stderr(stderr: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J-1"]:
    """The standard error of each progress, from those of the values, whose branches are independent.

        se(r_j) = sqrt(se_j^2 + se_{j+1}^2)

    Neighbouring progresses share a value with opposite sign: sums are as exact as the two values at their ends.
    """
    return np.hypot(stderr[:-1], stderr[1:])
