"""Progress above the historical watermark, after MIG (arXiv:2602.01034)."""

import numpy as np
from jaxtyping import Float

from headway.credit import episode
from headway.credit.common import Bonuses, Group


def bonuses(group: Group) -> Bonuses:
    """What each episode adds to the highest value so far; going back and forth earns nothing.

        b_j = M_{j+1} - M_j,    M_j = max_{i <= j} V_i,    end_j = b_j + b_{j+1}

    Its expected gradient is that of `episode` for M, a function of the prefix as V is.
    """
    return episode.bonuses(group._replace(values=[watermark(v) for v in group.values]))


def watermark(values: Float[np.ndarray, " J"]) -> Float[np.ndarray, " J"]:
    """The highest value so far.

        M_j = max_{i <= j} V_i

    The maximum of noisy estimates is biased upwards, more so for longer traces: use values of small error. NaN values
    stay NaN and are passed over.
    """
    highest = np.fmax.accumulate(values) if len(values) else values
    return np.where(np.isnan(values), np.nan, highest)
