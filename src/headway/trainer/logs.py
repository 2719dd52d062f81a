"""What a training step leaves behind: its metrics, named as the vocabulary has them, and its traces with values."""

from typing import Any

import numpy as np

from headway.progress import progress
from headway.prove import ValueCurve
from headway.regret import cumulative_regret, normalized_regret
from headway.types import Branch, Trace


def metrics(
    traces: list[Trace], curves: list[ValueCurve], bonuses: list[np.ndarray], branches: list[Branch]
) -> dict[str, float]:
    """The step's numbers; NaN where nothing is known. Regret is normalized to each trace's own last budget."""
    steps = np.concatenate([np.empty(0), *(progress(c.values.values) for c in curves)])
    steps = steps[~np.isnan(steps)]
    everything = np.concatenate([np.empty(0), *bonuses])
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
        "episodes/mean": _nanmean([len(c.boundaries) - 1 for c in curves]),
        "tokens/thinking": _nanmean([t.thinking for t in traces]),
        "branches/tokens": float(sum(b.sampled for b in branches)),
        "branches/ungraded_frac": _nanmean([b.reward is None for b in branches]),
        "credit/std": float(everything[~np.isnan(everything)].std()) if len(everything) else np.nan,
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
