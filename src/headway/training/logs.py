"""What a training step leaves behind: metrics in TRL's log, and a file of traces with their values and bonuses."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from accelerate.utils import gather_object

from headway.core.progress import progress
from headway.core.regret import cumulative_regret, normalized_regret
from headway.credit import SCHEMES
from headway.procedures.prove import ValueCurve
from headway.types import Branch, Trace

logger = logging.getLogger(__name__)

TRACES_FILE = "traces.jsonl"


class StepResult(NamedTuple):
    """The traces of a step on this process, each with its value curve and bonuses, and the branches of all.

    `known_share` is the share of the value that the known right answers carry.
    """

    traces: list[Trace]
    curves: list[ValueCurve]
    bonuses: list[np.ndarray]
    branches: list[Branch]
    known_share: float


def metrics(result: StepResult) -> dict[str, float]:
    """The step's metrics; NaN where nothing is known. Regret is normalized to each trace's own last budget."""
    traces, curves, bonuses, branches, share = result
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


def records(step: int, result: StepResult) -> list[dict[str, Any]]:
    """The step's traces with their values and bonuses, one record each."""
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
        for t, c, b in zip(result.traces, result.curves, result.bonuses, strict=True)
    ]


class ShareWatch:
    """Warns once when the known right answers carry a much smaller share of the value than at first.

    Then the policy has begun to write its right answers in forms that are not scored.
    """

    FIRST = 10  # steps whose mean share is the usual one
    LOST = 0.5  # warns below this part of the usual share, on a mean over as many steps

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._warned = False

    def add(self, share: float) -> None:
        """Adds the share of one step; NaN is left out."""
        if np.isnan(share) or self._warned:
            return
        self._shares.append(share)
        usual, now = np.mean(self._shares[: self.FIRST]), np.mean(self._shares[-self.FIRST :])
        if len(self._shares) >= 2 * self.FIRST and now < self.LOST * usual:
            self._warned = True
            logger.warning(
                "the known right answers carry %.0f%% of the value, %.0f%% at first: the policy now writes its "
                "answers in other forms; add these forms (candidates), or use values: distinct",
                100 * now,
                100 * usual,
            )


class StepLog:
    """Writes the metrics and traces of each step, and counts sampled tokens and steps without values.

    Args:
        trainer: Has TRL's metrics and the two counts.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._share = ShareWatch()

    def count_tokens(self, n: int) -> None:
        """Adds to the tokens sampled so far on all processes."""
        self._trainer.generated_tokens += sum(gather_object([n]))
        self._metrics["mrt/generated_tokens"] = [float(self._trainer.generated_tokens)]

    def write(self, result: StepResult) -> None:
        """Adds the step's metrics to TRL's log and its traces to the file."""
        t = self._trainer
        for name, value in metrics(result).items():
            mine = torch.tensor([value], device=t.accelerator.device, dtype=torch.float32)
            mean = t.accelerator.gather(mine).nanmean().item()
            self._metrics[f"mrt/{name}"].append(mean)
            if name == "value/known_share" and t.args.values == "hybrid":
                self._share.add(mean)
            if name == "value/unknown_frac" and mean == 1 and SCHEMES[t.args.credit].needs_values:
                self._count_step_without_values()
        self._metrics["mrt/steps_without_values"] = [float(t.steps_without_values)]
        lines = gather_object(records(t.state.global_step, result))
        if t.accelerator.is_main_process:
            folder = Path(t.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / TRACES_FILE).open("ab") as out:
                out.write(b"".join(msgspec.json.encode(record) + b"\n" for record in lines))

    @property
    def _metrics(self) -> Any:
        return self._trainer._metrics["train"]

    def _count_step_without_values(self) -> None:
        """Counts a step without any known value, which is plain GRPO, and warns of the first."""
        t = self._trainer
        if not t.steps_without_values:
            logger.warning(
                "step %d: no value is known, so this step is plain GRPO. The engine, the grader or the reference "
                "answers do not support values: %s; choose other values, or credit: grpo. Such steps are counted in "
                "mrt/steps_without_values",
                t.state.global_step,
                t.args.values,
            )
        t.steps_without_values += 1


def _nanmean(values: Any) -> float:
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")
