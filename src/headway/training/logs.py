"""What a training step leaves behind: its metrics, named as the vocabulary has them, and its traces with values."""

import logging
from typing import Any

import numpy as np

from headway.core.progress import progress
from headway.core.regret import cumulative_regret, normalized_regret
from headway.core.tally import ValueCurve
from headway.types import Branch, Trace

logger = logging.getLogger(__name__)


def metrics(
    traces: list[Trace],
    curves: list[ValueCurve],
    bonuses: list[np.ndarray],
    branches: list[Branch],
    share: float,
) -> dict[str, float]:
    """The step's numbers; NaN where nothing is known. `share` is `tally.known_share`.

    Regret is normalized to each trace's own last budget.
    """
    steps = np.concatenate([np.empty(0), *(progress(c.values.values) for c in curves)])
    steps = steps[~np.isnan(steps)]
    known = np.concatenate([np.empty(0), *bonuses])
    known = known[~np.isnan(known)]
    return {
        "accuracy": _nanmean([np.nan if t.reward is None else t.reward for t in traces]),
        "regret/normalized": _nanmean(
            [normalized_regret(c.tokens, c.values.values, c.tokens[-1:])[0] for c in curves]
        ),
        "regret/cumulative": _nanmean([cumulative_regret(c.values.values)[-1] for c in curves]),
        "progress/mean": _nanmean(steps),
        "progress/negative_frac": _nanmean(steps < 0),
        "value/first": _nanmean([c.values.values[0] for c in curves]),
        "value/last": _nanmean([c.values.values[-1] for c in curves]),
        "value/stderr": _nanmean(np.concatenate([c.values.stderr for c in curves])),
        "value/unknown_frac": _nanmean(np.concatenate([np.isnan(c.values.values) for c in curves])),
        "value/known_share": share,
        "episodes/mean": _nanmean([len(c.boundaries) - 1 for c in curves]),
        "tokens/thinking": _nanmean([t.thinking for t in traces]),
        "branches/tokens": float(sum(b.sampled for b in branches)),
        "branches/ungraded_frac": _nanmean([b.reward is None for b in branches]),
        "credit/std": float(known.std()) if len(known) else np.nan,
    }


def records(
    step: int, traces: list[Trace], curves: list[ValueCurve], bonuses: list[np.ndarray]
) -> list[dict[str, Any]]:
    """The step's traces with their values, a line each."""
    return [
        {
            "step": step,
            "problem_id": t.problem_id,
            "index": t.index,
            "text": t.text,
            "reward": t.reward,
            "boundaries": c.boundaries,
            "values": c.values.values.tolist(),
            "stderr": c.values.stderr.tolist(),
            "bonuses": b.tolist(),
        }
        for t, c, b in zip(traces, curves, bonuses, strict=True)
    ]


def _nanmean(values: Any) -> float:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


class ShareWatch:
    """Warns, once, when the known right answers come to carry much less of the value than they did at first.

    That says that the policy has begun to write its right answers in a form that nobody scores.
    """

    FIRST = 10  # steps that say what is usual
    LOST = 0.5  # the part of the usual share below which it warns, on a mean over as many steps

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._warned = False

    def tell(self, share: float) -> None:
        """Adds one step's share."""
        if np.isnan(share) or self._warned:
            return
        self._shares.append(share)
        usual, now = np.mean(self._shares[: self.FIRST]), np.mean(self._shares[-self.FIRST :])
        if len(self._shares) >= 2 * self.FIRST and now < self.LOST * usual:
            self._warned = True
            logger.warning(
                "the known right answers carry %.0f%% of the value, %.0f%% at first: the policy writes its answers in "
                "other forms now; give their forms (candidates), or use values: distinct",
                100 * now,
                100 * usual,
            )
