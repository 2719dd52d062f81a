"""Progress: how much one episode moved the chance of success (MRT, arXiv:2503.07572, Def. 6.1)."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float

from headway.choices import lookup

Space = Literal["prob", "log", "logit"]


def progress(values: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J-1"]:
    """The progress made by each episode.

        r_j = V_{j+1} - V_j,    V_j = J_r(mu(. | x, z_{0:j}))

    It telescopes, sum_j r_j = V_K - V_0: what a trace gains in all does not depend on where it was cut. A NaN value
    (nothing there could be graded) makes the two progresses beside it NaN.

    Args:
        values: Success probability at each boundary, from before the first episode to after the last.

    Returns:
        One progress per episode, in [-1, 1].
    """
    return values[1:] - values[:-1]


def progress_stderr(stderr: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J-1"]:
    """The standard error of each progress, from those of the values, whose branches are independent.

        se(r_j) = sqrt(se_j^2 + se_{j+1}^2)

    Neighbouring progresses share a value with opposite sign, so their errors are anti-correlated: sums telescope and
    are as exact as the two values at their ends.
    """
    return np.hypot(stderr[:-1], stderr[1:])


def in_space(values: Float[np.ndarray, " J"], space: Space, *, floor: float = 0.01) -> Float[np.ndarray, " J"]:
    """Values on the scale on which progress is paid: as they are, their logarithm, or their log-odds.

        prob: V        log: log max(V, floor)        logit: log V' / (1 - V'),  V' = V within floor and 1 - floor

    Of two episodes that change V by as much, the logarithm pays the one that starts lower more, and log-odds those
    near 0 and 1 more than those in the middle. The floor says where a change is no longer worth telling, and keeps
    what an estimate of 0 would make infinite finite: progress lies within log(1 / floor), or twice that for log-odds.
    """
    return lookup(SPACES, space, "progress_space")(values, floor)


def _log_odds(values: Float[np.ndarray, " J"], floor: float) -> Float[np.ndarray, " J"]:
    within = np.clip(values, floor, 1 - floor)
    return np.log(within / (1 - within))


SPACES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "prob": lambda values, _: values,
    "log": lambda values, floor: np.log(np.clip(values, floor, 1.0)),
    "logit": _log_odds,
}


def watermark(values: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J"]:
    """The highest value so far: with it only new maxima are progress, and going back and forth earns nothing.

        M_j = max_{i <= j} V_i

    After the historical watermark of MIG (arXiv:2602.01034). M_j is a function of the prefix as V_j is. Of noisy
    estimates the maximum is too high, the more so the longer the trace: use it with values that hardly vary. NaN
    values stay NaN and are passed over.
    """
    highest = np.fmax.accumulate(values) if len(values) else values
    return np.where(np.isnan(values), np.nan, highest)
