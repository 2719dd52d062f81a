"""A run as a table, and its main numbers: what report.json holds. Problems are clusters in every error."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice, zip_longest
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
from jaxtyping import Float, Int

from headway.core import stats
from headway.core.progress import progress
from headway.core.regret import budget_curve, normalized_regret
from headway.core.resampling import simultaneous_bands
from headway.core.segment import boundaries
from headway.core.stats import SIGNED, UNIT, Estimate, Within
from headway.core.tally import ESTIMATORS, Tally, ValueCurve, ValueKind, known_share, lay_out, value_curve
from headway.core.votes import NO_VOTE
from headway.procedures.forced import Segmenter
from headway.text.equivalence import Item, answer_classes
from headway.types import Branch, HeadwayError, Outcome, Score, Trace

POINTS = 16  # budgets of a report
PERFECT = "perfect (accuracy 1 at every budget)"
ONE_RIGHT = partial(answer_classes, one_right=True)


class RunTable(NamedTuple):
    """A run as numbers: a row for each trace, by problem and index."""

    problems: list[str]
    indices: list[int]
    order: list[int]  # where each trace is among the traces as they were read
    outcomes: list[Outcome]
    rewards: Float[np.ndarray, " traces"]  # NaN where undecided
    prompt: Float[np.ndarray, " traces"]  # tokens of each prompt
    tokens: Float[np.ndarray, " traces"]  # tokens of each completion, answer included
    thinking: Float[np.ndarray, " traces"]  # tokens of its thinking
    classes: Int[np.ndarray, " traces"]  # of answers, for votes
    tallies: list[Tally]
    curves: list[ValueCurve]
    texts: list[tuple[str, ...]]  # of each trace's branches, by boundary and number

    @property
    def episodes(self) -> Float[np.ndarray, " traces"]:
        """The number of episodes of each trace."""
        return np.array([len(c.boundaries) - 1.0 for c in self.curves])

    @property
    def spacing(self) -> Float[np.ndarray, " traces"]:
        """The mean tokens between the boundaries of each trace; NaN where it has but one."""
        return self.thinking / np.where(self.episodes > 0, self.episodes, np.nan)

    @property
    def mean_spacing(self) -> float:
        """Its mean over the traces; NaN where none has two boundaries."""
        return float(np.ma.masked_invalid(self.spacing).mean()) if (self.episodes > 0).any() else float("nan")

    @property
    def forced(self) -> Float[np.ndarray, " traces"]:
        """The tokens sampled for each trace's branches."""
        return np.array([np.nansum(t.sampled) for t in self.tallies], dtype=float)

    def accuracy(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The budget curve of each trace."""
        return np.array([budget_curve(c.tokens, c.values.values, budgets) for c in self.curves])

    def regret(self, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, "traces C"]:
        """The normalized regret of each trace, against the perfect policy."""
        return np.array([normalized_regret(c.tokens, c.values.values, budgets) for c in self.curves])


class _Row(NamedTuple):
    problem: str
    number: int
    position: int
    outcome: Outcome
    reward: float | None
    tokens: tuple[int, int, int]
    answer: str | None
    boundaries: list[int]


def run_table(
    traces: Iterable[Trace], branches: Iterable[Branch], segmenter: Segmenter, *, kind: ValueKind = "branches",
    scores: Iterable[Score] = (), classify: Callable[[Sequence[Item]], list[int]] = ONE_RIGHT,
) -> RunTable:  # fmt: skip
    """The table of a run, from its records in any order, each read once; `classify` is as `answer_classes`."""
    rows = sorted(
        _Row(
            sys.intern(t.problem_id), t.index, position, t.outcome, t.reward,
            (len(t.prompt_ids), len(t.token_ids), t.thinking), t.answer, boundaries(segmenter(t)),
        )
        for position, t in enumerate(traces)
    )  # fmt: skip
    once: dict[str, str] = {}  # forced answers repeat: equal texts are one object
    with_ids = "logprobs" in ESTIMATORS[kind].needs
    light = [
        msgspec.structs.replace(
            b, problem_id=sys.intern(b.problem_id), text=once.setdefault(b.text, b.text),
            answer=b.answer and once.setdefault(b.answer, b.answer), token_ids=b.token_ids if with_ids else (),
        )
        for b in branches
    ]  # fmt: skip
    branches_of: dict[tuple[str, int], list[Branch]] = defaultdict(list)
    for branch in light:
        branches_of[branch.key].append(branch)
    scores_of: dict[tuple[str, int], list[Score]] = defaultdict(list)
    for score in scores:
        scores_of[score.key].append(score)
    del light
    keys = [(r.problem, r.number) for r in rows]
    own = [sorted(branches_of[key], key=lambda b: (b.boundary, b.branch)) for key in keys]
    refuse_repeated("traces.jsonl", len(keys) - len(set(keys)))
    refuse_repeated("branches.jsonl", sum(len(some) - len({(b.boundary, b.branch) for b in some}) for some in own))
    refuse_repeated("scores.jsonl", sum(len(some) - len({s.boundary for s in some}) for some in scores_of.values()))
    answers: list[Item] = [(r.problem, r.answer, r.reward) for r in rows]
    classes = classify([*answers, *((b.problem_id, b.answer, b.reward) for some in own for b in some)])
    voting = iter(classes[len(rows) :])
    tallies = [
        lay_out(key, r.boundaries, some, scores_of[key], classes=list(islice(voting, len(some))))
        for key, r, some in zip(keys, rows, own, strict=True)
    ]
    texts = [tuple(b.text for b in some) for some in own]
    prompt, tokens, thinking = np.array([r.tokens for r in rows], dtype=float).reshape(-1, 3).T
    return RunTable(
        problems=[r.problem for r in rows], indices=[r.number for r in rows], order=[r.position for r in rows],
        outcomes=[r.outcome for r in rows],
        rewards=np.array([np.nan if r.reward is None else r.reward for r in rows], dtype=float),
        prompt=prompt, tokens=tokens, thinking=thinking, classes=np.array(classes[: len(rows)], dtype=int),
        tallies=tallies, curves=[value_curve(t, kind) for t in tallies], texts=texts,
    )  # fmt: skip


def refuse_repeated(file: str, repeated: int) -> None:
    """Raises HeadwayError where records of a file are there more than once."""
    if repeated:
        raise HeadwayError(
            f"{file} has {repeated} lines more than records, as when two processes wrote at once; they would count "
            "twice. Keep one line of each record, or measure into a new folder"
        )


def value_quality(run: RunTable, scores: Sequence[Score]) -> dict[str, Any]:
    """The kind of the values, the fraction of them that is from known forms, and how they fit the branches.

    `without_form`, where there is such, counts what has no known form of a correct answer: its likelihood is unknown.
    `mean_gap` is the mean over boundaries of the branches' mean reward minus the value: 0 if values are unbiased.
    """
    kind: ValueKind = run.curves[0].kind if run.curves else "branches"
    quality: dict[str, Any] = {"kind": kind}
    if scores:
        quality["known_share"] = known_share(run.curves, scores)
        if unknown := [s.problem_id for s in scores if s.probability is None]:
            quality["without_form"] = {"problems": len(set(unknown)), "boundaries": len(unknown)}
    if "logprobs" in ESTIMATORS[kind].needs:
        pairs = zip(run.tallies, run.curves, strict=True)
        gaps = [value_curve(t).values.values - c.values.values for t, c in pairs]
        names = [problem for problem, gap in zip(run.problems, gaps, strict=True) for _ in gap]
        quality["mean_gap"] = entry(stats.mean(np.concatenate(gaps), names, within=SIGNED))
    return quality


def last_budget(run: RunTable, budget: int) -> int:
    """The largest budget of a report: `budget`, or that of the last boundary where a long suffix makes it larger."""
    ends = [np.nanmax(c.tokens) for c in run.curves if not np.isnan(c.tokens).all()]
    return max(budget, int(np.ceil(max(ends, default=0.0))))


def budget_points(budget: int) -> Float[np.ndarray, " C"]:
    """The `POINTS` evenly spaced budgets of a report, in whole tokens; some are equal where it has fewer tokens."""
    return np.ceil(np.arange(1, POINTS + 1) * budget / POINTS)


def by_budget(
    columns: Float[np.ndarray, "traces C"], problems: Sequence[str], budgets: Iterable[float], name: str = "value",
    *, within: Within = UNIT,
) -> list[dict[str, Any]]:  # fmt: skip
    """An entry for the mean of each column; of equal budgets, for the last."""
    means = {int(b): stats.mean(column, problems, within=within) for b, column in zip(budgets, columns.T, strict=True)}
    return [{"budget": b, **entry(estimate, name)} for b, estimate in means.items()]


def summarize(run: RunTable, *, model: str, problems: str, budget: int, answer_tokens: int) -> dict[str, Any]:
    """The content of report.json; `docs/measuring.md` explains each entry. NaN where nothing is known.

    Budgets go up to `budget + answer_tokens`, the maximum completion tokens of a trace, or to `last_budget`.
    """
    ids, whole = run.problems, float(budget + answer_tokens)
    budgets = np.unique(budget_points(last_budget(run, budget + answer_tokens)))
    accuracy, regret = run.accuracy(budgets), run.regret(budgets)
    steps = zip_longest(*(progress(c.values.values).tolist() for c in run.curves), fillvalue=np.nan)
    columns: dict[str, tuple[Float[np.ndarray, " traces"], Within | None]] = {
        "pass_at_1": (run.rewards, UNIT),
        "forced_at_start": (np.array([c.values.values[0] for c in run.curves]), UNIT),
        "normalized_regret": (regret[:, -1], UNIT),
        "episodes": (run.episodes, None), "tokens": (run.tokens, (0.0, whole)),
        "thinking_tokens": (run.thinking, (0.0, float(budget))),
    }  # fmt: skip
    means = {name: entry(stats.mean(x, ids, within=within)) for name, (x, within) in columns.items()}
    return {
        "model": model, "problems": problems, "n_problems": len(set(ids)), "n_traces": len(ids),
        "budget": budget, "answer_tokens": answer_tokens, "comparator": PERFECT,
        "pass_at_1": means["pass_at_1"], "forced_at_start": means["forced_at_start"],
        "budget_curve": by_budget(accuracy, ids, budgets, "accuracy"),
        "normalized_regret": by_budget(regret, ids, budgets),
        "bands": {"budget_curve": band(accuracy, ids), "normalized_regret": band(regret, ids)},
        **{name: means[name] for name in ("episodes", "tokens", "thinking_tokens")},
        "these_problems": {
            name: ({"budget": int(budgets[-1])} if name == "normalized_regret" else {})
            | entry(stats.mean_of_these(x, ids, within=within))
            for name, (x, within) in columns.items()
        },
        "progress": [
            {"episode": j, **entry(stats.mean(np.array(step), ids, within=SIGNED))} for j, step in enumerate(steps)
        ],
        "counts": {outcome: run.outcomes.count(outcome) for outcome in get_args(Outcome)},
    }  # fmt: skip


def band(columns: Float[np.ndarray, "traces C"], problems: Sequence[str]) -> list[list[float]]:
    """Simultaneous 95% bounds around the mean of each column, from the bootstrap over problems."""
    sums = stats.sums_by_problem(columns, problems)
    # problems may differ in their number of traces: around the mean over traces, as the curve
    traces, means = (np.ma.masked_invalid(x).mean(axis=0).filled(np.nan) for x in (columns, sums.means))
    return (simultaneous_bands(sums.means) + (traces - means)).T.tolist()


def branch_counts(run: RunTable) -> dict[str, int]:
    """What became of the branches, and the tokens sampled for them."""
    return {
        "branches": sum(int(t.drawn.sum()) for t in run.tallies),
        "undecided": sum(int((t.drawn & np.isnan(t.rewards)).sum()) for t in run.tallies),
        "no_answer": sum(int(((t.rewards == 0) & (t.classes == NO_VOTE)).sum()) for t in run.tallies),
        "tokens": int(run.forced.sum()),
        "long": sum(map(long_answers, run.tallies)),
    }


def long_answers(tally: Tally) -> int:
    """The branches whose answer has more tokens than the trace's mean answer by more than the boundaries are apart.

    The budget curve charges each boundary the mean answer (`Tally.tokens`). A hard limit cuts these, and the curve
    counts them at budgets that do not hold them; a few tokens more or less than the mean do not matter.
    """
    mean = np.nanmean(tally.tokens - tally.forced) if tally.drawn.any() else np.nan
    spacing = tally.positions[-1] / max(len(tally.positions) - 1, 1)
    return int((tally.sampled > mean + spacing).sum())


def entry(estimate: Estimate, name: str = "value") -> dict[str, Any]:
    """An estimate as report.json writes it."""
    value, stderr, ci95, n, n_problems = estimate
    return {name: value, "stderr": stderr, "ci95": list(ci95), "n": n, "n_problems": n_problems}
