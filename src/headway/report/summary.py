"""A run's numbers: what report.json holds. Every estimate with its error; problems are clusters."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from headway import stats
from headway.progress import progress
from headway.prove import Segmenter, ValueCurve
from headway.regret import budget_curve, normalized_regret
from headway.score import ValueKind, curve_of, known_share
from headway.stats import Estimate
from headway.types import Branch, Outcome, Score, Trace


class Measured(NamedTuple):
    """The traces of a run and the value curve of each."""

    traces: list[Trace]
    curves: list[ValueCurve]

    @property
    def problems(self) -> list[str]:
        """The problem of each trace."""
        return [t.problem_id for t in self.traces]

    def pass_at_1(self) -> Float[np.ndarray, " traces"]:
        """The outcome of each trace; NaN where undecided."""
        return np.array([np.nan if t.reward is None else t.reward for t in self.traces])

    def accuracy(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The budget curve of each trace."""
        return np.array([budget_curve(c.tokens, c.values.values, budgets) for c in self.curves])

    def regret(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The normalized regret of each trace, against the perfect policy."""
        return np.array([normalized_regret(c.tokens, c.values.values, budgets) for c in self.curves])


def measured(
    traces: Sequence[Trace],
    branches: Sequence[Branch],
    segmenter: Segmenter,
    *,
    scores: Sequence[Score] = (),
    values: ValueKind = "branches",
) -> Measured:
    """Puts each trace's branches and scores back on its boundaries; traces are ordered by problem and index."""
    of_trace: dict[tuple[str, int], list[Branch]] = defaultdict(list)
    scores_of: dict[tuple[str, int], list[Score]] = defaultdict(list)
    for branch in branches:
        of_trace[branch.problem_id, branch.index].append(branch)
    for score in scores:
        scores_of[score.problem_id, score.index].append(score)
    ordered = sorted(traces, key=lambda t: (t.problem_id, t.index))
    return Measured(
        ordered,
        [
            curve_of(
                values,
                t,
                segmenter(t),
                branches=of_trace[t.problem_id, t.index],
                scores=scores_of[t.problem_id, t.index],
            )
            for t in ordered
        ],
    )


def value_quality(
    run: Measured, branches: Sequence[Branch], scores: Sequence[Score], segmenter: Segmenter
) -> dict[str, Any]:
    """What the values rest on: their kind, the part that the known forms carry, and how they fit the branches.

    `known_share` is the known forms' probability over the value, both summed over all boundaries. `calibration` is the
    mean over boundaries of the mean reward of their branches less the value: 0 if the values are right on average.
    """
    kind = run.curves[0].kind if run.curves else "branches"
    quality: dict[str, Any] = {"kind": kind}
    if scores:
        quality["known_share"] = known_share(run.curves, scores)
    if branches and kind != "branches":
        plain = measured(run.traces, branches, segmenter)
        gaps = [
            (t.problem_id, gap)
            for t, theirs, ours in zip(run.traces, plain.curves, run.curves, strict=True)
            for gap in (theirs.values.values - ours.values.values).tolist()
        ]
        quality["calibration"] = entry(stats.mean(np.array([gap for _, gap in gaps]), [name for name, _ in gaps]))
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
        "n_traces": len(run.traces),
        "budget": budget,
        "answer_tokens": answer_tokens,
        "comparator": "perfect (accuracy 1 at every budget)",
        "pass_at_1": entry(stats.mean(run.pass_at_1(), ids)),
        "forced_at_start": entry(stats.mean(np.array([c.values.values[0] for c in run.curves]), ids)),
        "budget_curve": over(run.accuracy(budgets), "accuracy"),
        "normalized_regret": over(run.regret(budgets), "value"),
        "episodes": entry(stats.mean(np.array([len(c.boundaries) - 1.0 for c in run.curves]), ids)),
        "tokens": entry(stats.mean(np.array([float(len(t.token_ids)) for t in run.traces]), ids)),
        "thinking_tokens": entry(stats.mean(np.array([float(t.thinking) for t in run.traces]), ids)),
        "progress": [{"episode": j, **entry(stats.mean(column, ids))} for j, column in enumerate(steps.T)],
        "counts": {outcome: sum(t.outcome == outcome for t in run.traces) for outcome in get_args(Outcome)},
    }


def branch_counts(branches: Sequence[Branch]) -> dict[str, int]:
    """What became of the branches, and the tokens sampled for them."""
    return {
        "branches": len(branches),
        "undecided": sum(b.reward is None for b in branches),
        "no_answer": sum(b.answer is None for b in branches),
        "tokens": sum(b.sampled for b in branches),
    }


def entry(estimate: Estimate, name: str = "value") -> dict[str, Any]:
    """An estimate as report.json writes it."""
    return {
        name: estimate.value,
        "stderr": estimate.stderr,
        "ci95": list(estimate.ci95),
        "n": estimate.n,
        "n_problems": estimate.n_problems,
    }
