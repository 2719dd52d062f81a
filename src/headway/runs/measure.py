"""Measuring: the procedures put together over a run folder, each going on where it stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from headway.core.segment import cut
from headway.problems import ProblemSet
from headway.problems.graders import compares, load_grader, one_right
from headway.procedures.adaptive import Rounds, answer_costs, first_rounds, more_rounds, realized
from headway.procedures.prove import TRACES_AT_ONCE, prove
from headway.procedures.sample import sample
from headway.procedures.score import DRAWN, FORMS, Known, score
from headway.report.files import Format, write_files
from headway.report.numbers.comparison import compare, markdown_table, regret_against_best, token_efficiency
from headway.report.numbers.diagnosis import diagnose
from headway.report.numbers.evaluation import Voted, evaluate, voted
from headway.report.numbers.parity import as_authors
from headway.report.numbers.table import Measured, branch_counts, measured, summarize, value_quality
from headway.report.page.explorer import Shown
from headway.report.page.render import render_compare, render_run
from headway.runs.records import Records, TraceLine
from headway.runs.settings import MAY_CHANGE, Settings, open_engine, problems_of
from headway.runs.store import Run
from headway.text.equivalence import answer_classes
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags, find_think_tags
from headway.types import BranchHead, Engine, Episode, Grader, HeadwayError, MetaProver, Trace

Tell = Callable[[str, int, int], None]


class Measurement:
    """One measurement over its run folder; models, problems and graders are loaded when first needed.

    A context manager: leaving it ends the grader's processes and the engine's connections.
    """

    def __init__(self, run: Run, tell: Tell = lambda stage, done, total: None) -> None:
        self.run = run
        try:
            self.settings = Settings.of(**run.settings)
        except (msgspec.ValidationError, HeadwayError) as error:
            raise HeadwayError(f"{run.path / 'run.json'}: {error}; measure again into a new folder") from error
        self._tell = tell
        self._stack = ExitStack()

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Settings,
        tell: Tell = lambda stage, done, total: None,
        *,
        problems: ProblemSet | None = None,
    ) -> "Measurement":
        """A new measurement, or the one at `path` to go on with; what cannot be used is refused before it is made.

        The problems are those that the settings name, unless given.
        """
        settings.check()
        asked = problems or problems_of(settings)
        if not (path / "run.json").exists():
            load_grader(settings.problems.grader) if settings.problems.grader != "auto" else None
        run = Run.create(
            path, settings.flat(), asked.problems, name=asked.name, grader=asked.grader,
            may_change=MAY_CHANGE,
        )  # fmt: skip
        return cls(run, tell)

    def __enter__(self) -> "Measurement":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems that the run was made with, from its own copy."""
        kept, about = self.run.problems(), self.run.problem_set
        if kept and about:
            return ProblemSet(about["name"], kept, about["grader"])
        return problems_of(self.settings)  # an older version made the run

    @cached_property
    def engine(self) -> Engine:
        """The model behind its engine."""
        engine = open_engine(self.settings, self.problems)
        if hasattr(engine, "close"):
            self._stack.callback(engine.close)
        return engine

    @property
    def grader_name(self) -> str:
        """The grader's name."""
        named = self.settings.problems.grader
        return self.problems.grader if named == "auto" else named

    @cached_property
    def grader(self) -> Grader:
        """The grader."""
        grader = load_grader(self.grader_name)
        if hasattr(grader, "close"):
            self._stack.callback(grader.close)
        return grader

    @cached_property
    def tags(self) -> ThinkTags:
        """The think tags."""
        s = self.settings.engine
        return find_think_tags(
            self.engine.tokenizer, think_open=s.think_open, think_close=s.think_close, think_format=s.think_format
        )

    @property
    def prover(self) -> MetaProver:
        """The meta-prover."""
        s, most = self.settings.proving, self.settings.sampling.answer_tokens
        return meta_prover(self.tags, suffix=s.suffix, end_suffix=s.end_suffix, branches=s.branches, max_tokens=most)

    def segmenter(self, trace: Trace) -> list[Episode]:
        """Cuts a trace as the settings say."""
        return cut(trace, self.settings.cutting)

    def ordered_traces(self) -> Records[Trace]:
        """The traces by problem and index, on disk."""
        there = self.run.traces()
        keys = [(t.problem_id, t.index) for t in there.read_as(TraceLine)]
        return there.take(sorted(range(len(keys)), key=keys.__getitem__))

    def sample(self) -> None:
        """Samples the traces that are not there yet.

        Raises:
            HeadwayError: the traces were made elsewhere.
        """
        s = self.settings
        if s.author is not None:
            raise HeadwayError(
                f"{self.run.path} holds traces by {s.author} that were imported; there is nothing to sample"
            )
        done = {(t.problem_id, t.index) for t in self.run.traces().read_as(TraceLine)}
        total = len(self.problems.problems) * s.sampling.traces
        self._tell("sample", len(done), total)
        if len(done) >= total:
            return
        chunks = sample(self.engine, self.problems.problems, self.grader, self.tags, s.sampling, done=done)
        made = len(done)
        for traces in chunks:
            self.run.append(traces)
            made += len(traces)
            self._tell("sample", made, total)

    @cached_property
    def known(self) -> Known:
        """The known right answers of the problems."""
        return Known(self.engine, self.prover, self.grader)

    def prove(self) -> None:
        """Makes the scores and draws the branches that are not there yet, as the kind of values needs them.

        Raises:
            HeadwayError: there are no traces, or the engine cannot do it.
        """
        traces = self.ordered_traces()
        if not traces:
            raise HeadwayError(f"{self.run.path} has no traces to prove; `headway sample` makes them")
        target, kind = self.settings.target, self.settings.proving.values
        if target is not None:
            costs = answer_costs(traces, self.engine.tokenizer, self.prover, self.segmenter)
            self._draw(traces, first_rounds(costs, target))
            self._draw(traces, more_rounds(costs, self.run.branches().read_as(BranchHead), target))
            return
        boundaries = {(t.problem_id, t.index): len(self.segmenter(t)) + 1 for t in traces}
        if kind in FORMS:
            self._score(traces, total=sum(boundaries.values()))
        if kind in DRAWN:
            self._draw(traces, {key: [range(1)] * J for key, J in boundaries.items()})

    def _score(self, traces: Records[Trace], *, total: int) -> None:
        """Scores the known answers at the boundaries, `total` of them, where that was not done."""
        done = {((s.problem_id, s.index), s.boundary) for s in self.run.scores()}
        made = len(done)
        self._tell("score", made, total)
        if made >= total:
            return
        by_id = {p.id: p for p in self.problems.problems}
        for scores in score(self.engine, traces, by_id, self.known, self.prover, self.segmenter, done=done):
            self.run.append(scores)
            made += len(scores)
            self._tell("score", made, total)

    def _draw(self, traces: Records[Trace], rounds: Rounds) -> None:
        """Draws these rounds of branches, but for those that are there."""
        s, seed = self.settings.proving, self.settings.sampling.seed
        wanted = sum(len(r) for of_trace in rounds.values() for r in of_trace) * s.branches
        names = {key: key for key in rounds}  # one tuple a trace, not one a branch
        done = {
            (key, b.boundary, b.branch)
            for b in self.run.branches().read_as(BranchHead)
            if (key := names.get((b.problem_id, b.index))) and b.branch // s.branches in rounds[key][b.boundary]
        }
        self._tell("prove", len(done), wanted)
        if len(done) >= wanted:
            return
        by_id = {p.id: p for p in self.problems.problems}
        made = len(done)
        chunks = prove(
            self.engine, traces, by_id, self.grader, self.prover, self.segmenter, seed=seed, done=done, rounds=rounds
        )
        for start, branches in zip(range(0, len(traces), TRACES_AT_ONCE), chunks, strict=True):
            if s.values in FORMS:
                proved = traces[start : start + TRACES_AT_ONCE]
                branches = self.known.marked(branches, proved, by_id, self.segmenter)
            self.run.append(branches)
            made += len(branches)
            self._tell("prove", made, wanted)

    def measured(self) -> Measured:
        """The traces with their value curves."""
        run, kind = self.run, self.settings.proving.values
        return measured(run.traces(), run.branches(), self.segmenter, scores=run.scores(), values=kind)

    def voted(self) -> Voted:
        """The traces with their value curves, and which answers vote together."""
        made, branches = self.measured(), self.run.branches()
        items = [(f.problem_id, f.answer, f.reward) for f in made.facts]
        items += [(b.problem_id, b.answer, b.reward) for b in branches]
        classes = answer_classes(
            items,
            one_right=one_right(self.grader),
            same=self.grader if compares(self.grader) else None,
        )
        return voted(made, branches, classes[: len(made.facts)], classes[len(made.facts) :])

    def shown(self, label: str | None = None, votes: Voted | None = None) -> Shown:
        """The run as pages and files take it: with its report, under a label (its folder's name unless given).

        Args:
            votes: What `voted` returned, where it is there already.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        branches, scores, kind = self.run.branches(), self.run.scores(), self.settings.proving.values
        for needed, made_of, what in ((FORMS, scores, "scores"), (DRAWN, branches, "branches")):
            if kind in needed and not made_of:
                raise HeadwayError(
                    f"{self.run.path} has no {what} to report on; `headway prove --out {self.run.path}`"
                )
        s, votes = self.settings, votes or self.voted()
        made, most = votes.run, s.sampling.budget + s.sampling.answer_tokens
        report = summarize(
            made,
            model=s.author or s.engine.model,
            problems=self.problems.name,
            budget=s.sampling.budget,
            answer_tokens=s.sampling.answer_tokens,
        )
        report["meta_prover"] = s.engine.model
        report["branches"] = branch_counts(branches)
        keys = [(f.problem_id, f.index) for f in made.facts]
        report["precision"] = realized(keys, made.curves, most)._asdict()
        report["values"] = value_quality(made, branches, scores, self.segmenter)
        report |= evaluate(votes, budget=most) | diagnose(votes, budget=most)
        report["authors"] = as_authors(votes, budget=most)
        by_id = {p.id: p for p in self.problems.problems}
        return Shown(label or self.run.path.resolve().name, report, made, branches, by_id)

    def report(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """Writes report.json, report.html and what other formats are asked for, and returns the first.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        self._tell("report", 0, 1)
        shown = self.shown()
        self.run.write_json("report.json", shown.report)
        self.run.write_text("report.html", render_run(*shown[1:4], problems=shown.problems, label=shown.label))
        write_files(self.run.path, formats, [shown])
        self._tell("report", 1, 1)
        return shown.report

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()


def compare_runs(
    runs: Sequence[tuple[str, Path]],
    out: Path,
    *,
    budgets: Sequence[int] | None = None,
    formats: Sequence[Format] = ("png",),
) -> str:
    """Puts run folders side by side into `out`: compare.json, report.html, files of the formats; returns a table.

    Accuracy and regret are compared at the given budgets, or at half and all of the first run's.

    Raises:
        HeadwayError: a folder is no run or has no branches, or two runs share no problem.
    """
    shown, votes = [], []
    for label, path in runs:
        with Measurement(Run.load(path)) as measurement:
            own = measurement.voted()
            votes.append((label, own))
            shown.append(measurement.shown(label, own))
    whole = shown[0].report["budget"]
    comparison = compare([(s.label, s.measured, s.report) for s in shown], budgets or (whole // 2, whole))
    most = whole + shown[0].report["answer_tokens"]
    comparison["token_efficiency"] = token_efficiency(votes)
    comparison["regret_by_comparator"] = regret_against_best([(s.label, s.measured) for s in shown], budget=most)
    folder = Run(out, {})
    out.mkdir(parents=True, exist_ok=True)
    folder.write_json("compare.json", comparison)
    folder.write_text("report.html", render_compare(comparison, [(s.label, s.report) for s in shown], shown))
    write_files(out, formats, shown, comparison)
    return markdown_table(comparison)
