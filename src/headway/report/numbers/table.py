"""A run's numbers: what report.json holds. Every estimate with its error; problems are clusters."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, get_args, overload

import msgspec
import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress
from headway.core.regret import budget_curve, normalized_regret
from headway.core.stats import Estimate
from headway.procedures.prove import Segmenter, ValueCurve
from headway.procedures.score import PROBABLE, ValueKind, curve_of, known_share
from headway.types import Branch, Outcome, Score, Trace


class Facts(msgspec.Struct, frozen=True):
    """What the numbers need of a trace: its outcome, and the tokens of the prompt, the completion and its thinking.

    Its tokens and its text stay where they are, which may be a disk.
    """

    problem_id: str
    index: int
    prompt: int
    tokens: int
    thinking: int
    outcome: Outcome
    reward: float | None
    answer: str | None


class Measured:
    """The traces of a run, the value curve of each, and what is light enough to keep of all of them.

    `traces` may be a sequence that reads from a disk: go through it once, or by position. `forced` holds the tokens
    sampled for each trace's branches; NaN where that is not known.
    """

    def __init__(
        self,
        traces: Sequence[Trace],
        curves: list[ValueCurve],
        *,
        facts: list[Facts] | None = None,
        forced: Float[np.ndarray, " traces"] | None = None,
    ) -> None:
        self.traces = traces
        self.curves = curves
        self.facts = [facts_of(t) for t in traces] if facts is None else facts
        self.forced = np.full(len(curves), np.nan) if forced is None else forced

    @property
    def problems(self) -> list[str]:
        """The problem of each trace."""
        return [f.problem_id for f in self.facts]

    def pass_at_1(self) -> Float[np.ndarray, " traces"]:
        """The outcome of each trace; NaN where undecided."""
        return np.array([np.nan if f.reward is None else f.reward for f in self.facts], dtype=float)

    def tokens(self) -> Float[np.ndarray, " traces"]:
        """The completion tokens of each trace, answer included."""
        return np.array([float(f.tokens) for f in self.facts])

    def thinking(self) -> Float[np.ndarray, " traces"]:
        """The thinking tokens of each trace."""
        return np.array([float(f.thinking) for f in self.facts])

    def episodes(self) -> Float[np.ndarray, " traces"]:
        """The number of episodes of each trace."""
        return np.array([len(c.boundaries) - 1.0 for c in self.curves])

    def accuracy(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The budget curve of each trace."""
        return np.array([budget_curve(c.tokens, c.values.values, budgets) for c in self.curves])

    def regret(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The normalized regret of each trace, against the perfect policy."""
        return np.array([normalized_regret(c.tokens, c.values.values, budgets) for c in self.curves])


def facts_of(trace: Trace) -> Facts:
    """The facts of a trace."""
    return Facts(
        problem_id=sys.intern(trace.problem_id),
        index=trace.index,
        prompt=len(trace.prompt_ids),
        tokens=len(trace.token_ids),
        thinking=trace.thinking,
        outcome=trace.outcome,
        reward=trace.reward,
        answer=trace.answer,
    )


class _Ordered(Sequence[Trace]):
    """Traces in another order, each read when it is asked for."""

    def __init__(self, traces: Sequence[Trace], order: Sequence[int]) -> None:
        self._traces, self._order = traces, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, position: int) -> Trace: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Trace]: ...
    def __getitem__(self, position: int | slice) -> Trace | Sequence[Trace]:
        if isinstance(position, slice):
            return _Ordered(self._traces, self._order[position])
        return self._traces[self._order[position]]


def measured(
    traces: Sequence[Trace],
    branches: Iterable[Branch],
    segmenter: Segmenter,
    *,
    scores: Iterable[Score] = (),
    values: ValueKind = "branches",
) -> Measured:
    """Puts each trace's branches and scores back on its boundaries; traces are ordered by problem and index.

    All are read once, one by one, and of each no more is kept than the numbers need.
    """
    of_trace: dict[tuple[str, int], list[Branch]] = defaultdict(list)
    scores_of: dict[tuple[str, int], list[Score]] = defaultdict(list)
    for b in branches:
        ids = b.token_ids if values in PROBABLE else ()
        light = msgspec.structs.replace(b, problem_id=sys.intern(b.problem_id), text="", token_ids=ids)
        of_trace[light.problem_id, light.index].append(light)
    for score in scores:
        scores_of[score.problem_id, score.index].append(score)
    made = []
    for position, trace in enumerate(traces):
        key = trace.problem_id, trace.index
        drawn = of_trace.pop(key, [])
        curve = curve_of(values, trace, segmenter(trace), branches=drawn, scores=scores_of.pop(key, ()))
        made.append((position, facts_of(trace), curve, float(sum(b.sampled for b in drawn))))
    made.sort(key=lambda m: (m[1].problem_id, m[1].index))
    return Measured(
        _Ordered(traces, [position for position, *_ in made]),
        [curve for _, _, curve, _ in made],
        facts=[facts for _, facts, *_ in made],
        forced=np.array([forced for *_, forced in made], dtype=float),
    )


def value_quality(
    run: Measured, branches: Iterable[Branch], scores: Sequence[Score], segmenter: Segmenter
) -> dict[str, Any]:
    """What the values rest on: their kind, the part that the known forms carry, and how they fit the branches.

    `known_share` is the known forms' probability over the value, both summed over all boundaries. `calibration` is the
    mean over boundaries of the mean reward of their branches less the value: 0 if the values are right on average.
    """
    kind = run.curves[0].kind if run.curves else "branches"
    quality: dict[str, Any] = {"kind": kind}
    if scores:
        quality["known_share"] = known_share(run.curves, scores)
    if kind in PROBABLE:
        plain = measured(run.traces, branches, segmenter)
        gaps = [
            theirs.values.values - ours.values.values for theirs, ours in zip(plain.curves, run.curves, strict=True)
        ]
        names = [fact.problem_id for fact, gap in zip(run.facts, gaps, strict=True) for _ in gap]
        quality["calibration"] = entry(stats.mean(np.concatenate(gaps), names))
    return quality


def default_budgets(budget: int, points: int = 16) -> Float[np.ndarray, " C"]:
    """Evenly spaced budgets up to the one the traces were sampled with."""
    return np.unique(np.ceil(np.arange(1, points + 1) * budget / points))


def summarize(run: Measured, *, model: str, problems: str, budget: int, answer_tokens: int) -> dict[str, Any]:
    """The content of report.json; `docs/measuring.md` explains each entry. NaN where nothing is known.

    Budgets go up to `budget + answer_tokens`, the completion tokens a trace had.
    """
    ids = run.problems
    budgets = default_budgets(budget + answer_tokens)
    accuracy, regret = run.accuracy(budgets), run.regret(budgets)

    def over(columns: Float[np.ndarray, "traces C"], name: str) -> list[dict[str, Any]]:
        estimates = [stats.mean(column, ids) for column in columns.T]
        return [{"budget": int(b), **entry(e, name)} for b, e in zip(budgets, estimates, strict=True)]

    longest = max((len(c.boundaries) - 1 for c in run.curves), default=0)
    steps = np.full((len(run.curves), longest), np.nan)
    for row, curve in zip(steps, run.curves, strict=True):
        row[: len(curve.boundaries) - 1] = progress(curve.values.values)
    return {
        "model": model,
        "problems": problems,
        "n_problems": len(set(ids)),
        "n_traces": len(run.facts),
        "budget": budget,
        "answer_tokens": answer_tokens,
        "comparator": "perfect (accuracy 1 at every budget)",
        "pass_at_1": entry(stats.mean(run.pass_at_1(), ids)),
        "forced_at_start": entry(stats.mean(np.array([c.values.values[0] for c in run.curves]), ids)),
        "budget_curve": over(accuracy, "accuracy"),
        "normalized_regret": over(regret, "value"),
        "bands": {"budget_curve": band(accuracy, ids), "normalized_regret": band(regret, ids)},
        "episodes": entry(stats.mean(run.episodes(), ids)),
        "tokens": entry(stats.mean(run.tokens(), ids)),
        "thinking_tokens": entry(stats.mean(run.thinking(), ids)),
        "progress": [{"episode": j, **entry(stats.mean(column, ids))} for j, column in enumerate(steps.T)],
        "counts": {outcome: sum(f.outcome == outcome for f in run.facts) for outcome in get_args(Outcome)},
    }


def band(columns: Float[np.ndarray, "traces C"], problems: Sequence[str]) -> list[list[float]]:
    """Simultaneous 95% bounds around the mean of each column, from the bootstrap over problems (`stats.bootstrap`)."""
    names, row = np.unique(problems, return_inverse=True)
    known = ~np.isnan(columns)
    totals, counts = np.zeros((2, len(names), columns.shape[1]))
    np.add.at(totals, row, np.where(known, columns, 0.0))
    np.add.at(counts, row, known)
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    low, high = stats.bootstrap(means)
    observed = known.sum(axis=0)
    centre = np.divide(totals.sum(axis=0), observed, out=np.full(len(observed), np.nan), where=observed > 0)
    half = (high - low) / 2  # problems may differ in their number of traces: around the mean over traces, as the curve
    return np.stack([centre - half, centre + half], axis=1).tolist()


def branch_counts(branches: Iterable[Branch]) -> dict[str, int]:
    """What became of the branches, and the tokens sampled for them."""
    counts = {"branches": 0, "undecided": 0, "no_answer": 0, "tokens": 0}
    for b in branches:
        counts["branches"] += 1
        counts["undecided"] += b.reward is None
        counts["no_answer"] += b.answer is None
        counts["tokens"] += b.sampled
    return counts


def entry(estimate: Estimate, name: str = "value") -> dict[str, Any]:
    """An estimate as report.json writes it."""
    return {
        name: estimate.value,
        "stderr": estimate.stderr,
        "ci95": list(estimate.ci95),
        "n": estimate.n,
        "n_problems": estimate.n_problems,
    }
