"""What a training step leaves behind: metrics in TRL's log, and a file of traces with their values and bonuses."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from accelerate.utils import gather_object

from headway.core.progress import progress
from headway.core.regret import cumulative_regret, normalized_regret
from headway.core.tally import ESTIMATORS, ValueCurve
from headway.credit import SCHEMES
from headway.procedures import coverage
from headway.procedures.prove import Prover
from headway.types import Branch, Trace

logger = logging.getLogger(__name__)

TRACES_FILE = "traces.jsonl"
CHECK_EVERY = 50  # steps


class StepResult(NamedTuple):
    """The traces of a step on this process, each with its value curve and bonuses, and the branches of all."""

    traces: list[Trace]
    curves: list[ValueCurve]
    bonuses: list[np.ndarray]
    branches: list[Branch]
    known_share: float  # the fraction of the value that comes from the known correct answers


def metrics(result: StepResult) -> dict[str, float]:
    """The step's metrics; NaN where nothing is known. Regret is normalized to each trace's own last budget."""
    traces, curves, bonuses, branches, share = result
    values = [c.values.values for c in curves]
    steps = _known(map(progress, values))
    credit = _known(bonuses)
    return {
        "accuracy": _mean([np.nan if t.reward is None else t.reward for t in traces]),
        "regret/normalized": _mean(normalized_regret(c.tokens, c.values.values, c.tokens[-1:])[0] for c in curves),
        "regret/cumulative": _mean(cumulative_regret(v)[-1] for v in values),
        "progress/mean": _mean(steps),
        "progress/negative_frac": _mean(steps < 0),
        "value/first": _mean(v[0] for v in values),
        "value/last": _mean(v[-1] for v in values),
        "value/stderr": _mean(_known(c.values.stderr for c in curves)),
        "value/unknown_frac": _mean(np.concatenate([np.isnan(v) for v in values])),
        "value/known_share": share,
        "episodes/mean": _mean(len(v) - 1 for v in values),
        "tokens/thinking": _mean(t.thinking for t in traces),
        "branches/tokens": float(sum(b.sampled for b in branches)),
        "branches/ungraded_frac": _mean(b.reward is None for b in branches),
        "credit/std": float(credit.std()) if len(credit) else np.nan,
    }


class ShareWatch:
    """Warns once when the known correct answers have a much smaller share of the value than at first.

    Then the policy has begun to write its correct answers in forms that are not evaluated.
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
                f"the known correct answers have {now:.0%} of the value, {usual:.0%} at first: the policy now writes "
                "its answers in other forms; add these forms (candidates), or use values: distinct"
            )


class StepLog:
    """Writes the metrics and traces of each step, and counts sampled tokens and steps without values."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._share = ShareWatch()

    def count_tokens(self, n: int) -> None:
        """Adds to the tokens sampled so far on all processes."""
        self._trainer.generated_tokens += sum(gather_object([n]))
        self._trainer._metrics["train"]["mrt/generated_tokens"] = [float(self._trainer.generated_tokens)]

    def check_scores(self, prover: Prover, traces: list[Trace], seed: int) -> None:
        """Logs, every `CHECK_EVERY` steps, how many of the correct answers likelihood values count; may warn."""
        t, needs = self._trainer, ESTIMATORS[self._trainer.args.values].needs
        if "scores" not in needs or "branches" in needs or t.state.global_step % CHECK_EVERY:
            return
        found = coverage.sampled(prover, traces, seed=seed)
        all_found = coverage.Coverage(*np.sum(gather_object([found]), axis=0).tolist())
        self.count_tokens(found.sampled)
        t._metrics["train"]["mrt/value/coverage"] = [all_found.share]
        if t.accelerator.is_main_process:
            all_found.warn_if_low()

    def write(self, result: StepResult) -> None:
        """Adds the step's metrics to TRL's log and its traces to the file."""
        t = self._trainer
        log = t._metrics["train"]
        for name, value in metrics(result).items():
            mine = torch.tensor([value], device=t.accelerator.device, dtype=torch.float32)
            mean = t.accelerator.gather(mine).nanmean().item()
            log[f"mrt/{name}"].append(mean)
            if name == "value/known_share" and t.args.values == "hybrid":
                self._share.add(mean)
            if name == "value/unknown_frac" and mean == 1 and SCHEMES[t.args.credit].needs_values:
                self._count_step_without_values()
        log["mrt/steps_without_values"] = [float(t.steps_without_values)]
        lines = gather_object([
            {
                "step": t.state.global_step, "problem_id": trace.problem_id, "index": trace.index, "text": trace.text,
                "reward": trace.reward, "boundaries": curve.boundaries, "values": curve.values.values.tolist(),
                "stderr": curve.values.stderr.tolist(), "bonuses": bonuses.tolist(),
            }
            for trace, curve, bonuses in zip(result.traces, result.curves, result.bonuses, strict=True)
        ])  # fmt: skip
        if t.accelerator.is_main_process:
            folder = Path(t.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / TRACES_FILE).open("ab") as out:
                out.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def _count_step_without_values(self) -> None:
        """Counts a step without any known value, which is plain GRPO, and warns of the first."""
        t = self._trainer
        if not t.steps_without_values:
            logger.warning(
                f"step {t.state.global_step}: no value is known, so this step is plain GRPO. The engine, the grader "
                f"or the reference answers do not support values: {t.args.values}; choose other values, or credit: "
                "grpo. Such steps are counted in mrt/steps_without_values"
            )
        t.steps_without_values += 1


def _known(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The numbers of all arrays that are not NaN."""
    together = np.concatenate([np.empty(0), *arrays])
    return together[~np.isnan(together)]


def _mean(values: Iterable[Any]) -> float:
    """The mean of the values that are not NaN; NaN where there is none."""
    known = _known([np.array([*values], dtype=float)])
    return float(known.mean()) if len(known) else float("nan")
