"""Overthinking and the calibration of errors, cross-fitted: the branches of one trace split in two halves.

The largest of several noisy values is too high on average. So one half of the branches chooses a boundary; the other
half is independent of that choice and judges it without bias.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from headway.core.values import Values, from_branches


class Overthinking(NamedTuple):
    """What one trace shows of overthinking (`overthinking`). NaN where branches are missing."""

    raw: float
    corrected: float
    gain: float


class Disagreement(NamedTuple):
    """The squared difference of two half estimates of each value, and what their errors say it should be."""

    squared: Float[np.ndarray, " J"]
    expected: Float[np.ndarray, " J"]


def halves(rewards: Float[np.ndarray, "J B"]) -> tuple[Values, Values]:
    """The values from every other branch, and those from the rest: independent where branches are."""
    return from_branches(rewards[:, ::2]), from_branches(rewards[:, 1::2])


def overthinking(rewards: Float[np.ndarray, "J B"]) -> Overthinking:
    """Whether a trace's value was higher at an earlier boundary than at its last.

        raw        1 if V_j > V_K for some j < K, from all branches: biased up, since it is a maximum over noise
        corrected  sign(V'_j* - V'_K): j* is where one half of the branches is highest (of equals the last), V' is
                   the value by the other half; both ways averaged
        gain       V'_j* - V'_K, likewise: what stopping at j* would have gained

    A trace whose true value never changes has corrected and gain 0 in expectation. The mean of `corrected` is at most
    the fraction of traces whose value was truly higher earlier, that of `gain` at most what the best stops would gain.
    """
    *earlier, last = from_branches(rewards).values.tolist()
    raw = np.nan if np.isnan(last) else float(any(value > last for value in earlier))
    one, other = (half.values for half in halves(rewards))
    gains = np.array([_gain(one, other), _gain(other, one)])
    return Overthinking(raw, float(np.sign(gains).mean()), float(gains.mean()))


def _gain(chooser: Float[np.ndarray, " J"], judge: Float[np.ndarray, " J"]) -> float:
    """What the judge says is gained by stopping at the last boundary of those where the chooser is highest."""
    if np.isnan(chooser).all():
        return np.nan
    chosen = np.flatnonzero(chooser == np.nanmax(chooser))[-1]
    return float(judge[chosen] - judge[-1])


def disagreement(rewards: Float[np.ndarray, "J B"]) -> Disagreement:
    """How far the two halves of a boundary's branches are apart, and how far their errors say they should be.

        squared_j = (V'_j - V''_j)^2        expected_j = se'_j^2 + se''_j^2

    Where branches are independent and errors are calibrated both have the same mean, since se^2 is unbiased: the
    ratio of their sums over many boundaries is the pooled variance of the z-scores, also where all branches agree (and
    z is 0/0). Copied answers or a shared seed show as a ratio away from 1. NaN where a half has fewer than two graded
    branches.
    """
    one, other = halves(rewards)
    squared = (one.values - other.values) ** 2
    expected = one.stderr**2 + other.stderr**2
    return Disagreement(np.where(np.isnan(expected), np.nan, squared), expected)
