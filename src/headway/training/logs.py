"""What a training step leaves behind: metrics in TRL's log, and a file of traces with their values and bonuses."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float

from headway.core.progress import progress
from headway.core.regret import cumulative_regret, normalized_regret
from headway.core.tally import ESTIMATORS, ValueCurve
from headway.credit import SCHEMES, Bonuses
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
    bonuses: Bonuses
    branches: list[Branch]
    known_share: float  # the fraction of the value that comes from the known correct answers


def metrics(result: StepResult, *, budget: float) -> dict[str, float]:
    """The step's metrics; NaN where nothing is known. Regret is normalized to one budget for all traces."""
    traces, curves, bonuses, branches, share = result
    values = [c.values.values for c in curves]
    steps = _known(map(progress, values))
    credit = _known(b.ravel() for b in bonuses)
    budgets = np.array([budget])
    return {
        "accuracy": _mean([np.nan if t.reward is None else t.reward for t in traces]),
        "regret/normalized": _mean(normalized_regret(c.tokens, c.values.values, budgets)[0] for c in curves),
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


def group_metrics(rewards_PG: Float[np.ndarray, "P G"], bonuses: Bonuses) -> dict[str, float]:
    """What the groups of a step can teach: which have a correct trace, and which differ in outcome or progress."""
    P, G = rewards_PG.shape
    moves = np.array([np.nanmax(np.abs(b), initial=0.0) > 0 for b in bonuses]).reshape(P, G).any(axis=1)
    same = np.array([len(np.unique(row[~np.isnan(row)])) < 2 for row in rewards_PG])
    return {
        "groups/pass": float((rewards_PG > 0).any(axis=1).mean()),
        "groups/no_outcome_signal": float(same.mean()),
        "groups/progress_signal_alone": float((same & moves).mean()),
    }


class Fall:
    """Warns once when a number of each step is much lower than at first."""

    FIRST = 10  # steps whose mean is the usual one

    def __init__(self, below: Callable[[float, float], float], warning: str) -> None:
        self._below, self._warning = below, warning  # of the first steps' mean and deviation; with {now} and {usual}
        self._seen: list[float] = []
        self._warned = False

    def add(self, number: float) -> None:
        """Adds the number of one step; NaN is left out. The warning is about the mean of the last `FIRST` steps."""
        if np.isnan(number) or self._warned:
            return
        self._seen.append(number)
        usual, now = (float(np.mean(part)) for part in (self._seen[: self.FIRST], self._seen[-self.FIRST :]))
        if len(self._seen) >= 2 * self.FIRST and now < self._below(usual, float(np.std(self._seen[: self.FIRST]))):
            self._warned = True
            logger.warning(self._warning.format(now=now, usual=usual))


def known_share_watch() -> Fall:
    """Warns when the known correct answers have less than half of their usual share of the value."""
    return Fall(
        lambda usual, _: 0.5 * usual,
        "the known correct answers have {now:.0%} of the value, {usual:.0%} at first: the policy now writes its "
        "answers in other forms; add these forms (candidates), or use values: distinct",
    )


def competence_watch(name: str) -> Fall:
    """Warns when a skill has fallen by more than two points, and by more than three errors of the difference."""
    return Fall(
        lambda usual, deviation: usual - max(0.02, 3 * deviation * (2 / Fall.FIRST) ** 0.5),
        f"competence/{name} is {{now:.3f}}, {{usual:.3f}} at first: training wears down what the model could do; use "
        "a lower learning_rate, or a KL term (beta)",
    )


class StepLog:
    """Writes the metrics and traces of each step, and counts steps without values."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._share = known_share_watch()
        self._competence: dict[str, Fall] = {}
        self._begun = False  # whether this process has written to the file of traces

    def competence(self, thoughts: Sequence[str], rewards: Sequence[float | None]) -> None:
        """Adds what the grader says of the thinking, if it does: higher is better."""
        t = self._trainer
        judge = getattr(t.grader, "competence", None)
        for name, value in (judge(thoughts, rewards) if judge and t.model.training else {}).items():
            mean = t.accelerator.gather(torch.tensor([value], device=t.accelerator.device)).nanmean().item()
            t._metrics["train"][f"mrt/competence/{name}"].append(mean)
            self._competence.setdefault(name, competence_watch(name)).add(mean)

    def signals(self, rewards_PG: Float[np.ndarray, "P G"], bonuses: Bonuses) -> None:
        """Adds what the groups of all processes can teach to TRL's log."""
        for name, value in group_metrics(rewards_PG, bonuses).items():
            self._trainer._metrics["train"][f"mrt/{name}"].append(value)

    def check_scores(self, prover: Prover, traces: list[Trace], seed: int) -> None:
        """Logs, every `CHECK_EVERY` steps, how many of the correct answers likelihood values count; may warn."""
        t, needs = self._trainer, ESTIMATORS[self._trainer.args.values].needs
        if "scores" not in needs or "branches" in needs or t.state.global_step % CHECK_EVERY:
            return
        found = coverage.sampled(prover, traces, seed=seed)
        all_found = coverage.Coverage(*np.sum(gather_object([found]), axis=0).tolist())
        t.cost.sampled(found.sampled)
        t._metrics["train"]["mrt/value/coverage"] = [all_found.share]
        if t.accelerator.is_main_process:
            all_found.warn_if_low()

    def write(self, result: StepResult) -> None:
        """Adds the step's metrics to TRL's log and its traces to the file."""
        t = self._trainer
        log = t._metrics["train"]
        for name, value in metrics(result, budget=t.budget).items():
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
                "stderr": curve.values.stderr.tolist(), "bonuses": bonuses[0].tolist(),
                "end_bonuses": bonuses[1].tolist(),
            }
            for trace, curve, bonuses in zip(result.traces, result.curves, result.bonuses, strict=True)
        ])  # fmt: skip
        if t.accelerator.is_main_process:
            file = Path(t.args.output_dir) / TRACES_FILE
            if not self._begun:
                begin_traces(file, t.state.global_step)
                self._begun = True
            with file.open("ab") as out:
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


def begin_traces(file: Path, step: int) -> None:
    """Makes the file of traces ready for those of a step: it keeps the steps before, whole lines only.

    A training that begins anew moves what an earlier one wrote to `traces.old.jsonl`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        return
    if step == 0:
        old = file.with_suffix(f".old{file.suffix}")
        file.replace(old)
        logger.warning(f"{file} is of an earlier training: moved to {old.name}")
        return
    kept = file.with_name(f".{file.name}.kept")
    with file.open("rb") as before, kept.open("wb") as out:
        for line in before:
            with suppress(msgspec.DecodeError):  # torn by a kill: the step is made again
                if msgspec.json.decode(line, type=_Line).step < step:
                    out.write(line)
    kept.replace(file)


class _Line(msgspec.Struct):
    step: int


def _known(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The numbers of all arrays that are not NaN."""
    together = np.concatenate([np.empty(0), *arrays])
    return together[~np.isnan(together)]


def _mean(values: Iterable[Any]) -> float:
    """The mean of the values that are not NaN; NaN where there is none."""
    known = _known([np.array([*values], dtype=float)])
    return float(known.mean()) if len(known) else float("nan")
