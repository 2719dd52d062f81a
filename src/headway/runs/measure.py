"""Measuring: the stages of a measurement over its run folder, each going on where it stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from headway.core.segment import cut
from headway.core.tally import ESTIMATORS
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.procedures.adaptive import answer_costs, first_rounds, more_rounds
from headway.procedures.prove import Prover, Rounds
from headway.procedures.sample import sample
from headway.report.files import Format
from headway.report.numbers.table import RunTable
from headway.runs.records import Records, TraceLine
from headway.runs.report import Proved
from headway.runs.settings import MAY_CHANGE, Settings, open_engine, problems_of
from headway.runs.store import Run
from headway.text.prompts import ThinkTags, find_think_tags, meta_prover
from headway.types import BranchHead, Engine, Episode, Grader, HeadwayError, MetaProver, Trace

Tell = Callable[[str, int, int], None]


class Measurement:
    """One measurement over its run folder; models, problems and graders are loaded when first needed.

    A context manager: leaving it ends the grader's processes and the engine's connections.
    """

    def __init__(self, run: Run, tell: Tell = lambda stage, done, total: None) -> None:
        self.run = run
        try:
            self.settings = msgspec.convert(run.settings, Settings)
        except msgspec.ValidationError as error:
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
            load_grader(settings.grader) if settings.grader != "auto" else None
        run = Run.create(
            path, msgspec.to_builtins(settings), asked.problems, name=asked.name, grader=asked.grader,
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
        return self.problems.grader if self.settings.grader == "auto" else self.settings.grader

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
        s = self.settings
        return find_think_tags(
            self.engine.tokenizer, think_open=s.think_open, think_close=s.think_close, think_format=s.think_format
        )

    @property
    def meta_prover(self) -> MetaProver:
        """The meta-prover."""
        s = self.settings
        return meta_prover(self.tags, suffix=s.suffix, end=s.end, branches=s.branches, max_tokens=s.answer_tokens)

    def segmenter(self, trace: Trace) -> list[Episode]:
        """Cuts a trace as the settings say."""
        s = self.settings
        return cut(
            trace,
            segment=s.segment,
            min_paragraphs=s.min_paragraphs,
            episode_tokens=s.episode_tokens,
            max_episodes=s.max_episodes,
        )

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
        total = len(self.problems.problems) * s.traces
        self._tell("sample", len(done), total)
        if len(done) >= total:
            return
        chunks = sample(
            self.engine, self.problems.problems, self.grader, self.tags, traces=s.traces, budget=s.budget,
            answer_tokens=s.answer_tokens, temperature=s.temperature, top_p=s.top_p, seed=s.seed, done=done,
        )  # fmt: skip
        made = len(done)
        for traces in chunks:
            self.run.append(traces)
            made += len(traces)
            self._tell("sample", made, total)

    @cached_property
    def prover(self) -> Prover:
        """What proves the run's traces."""
        by_id = {p.id: p for p in self.problems.problems}
        return Prover(self.engine, self.meta_prover, by_id, grader=self.grader, segmenter=self.segmenter)

    def prove(self) -> None:
        """Makes the scores and draws the branches that are not there yet, as the kind of values needs them.

        Raises:
            HeadwayError: there are no traces, or the engine cannot do it.
        """
        traces = self.ordered_traces()
        if not traces:
            raise HeadwayError(f"{self.run.path} has no traces to prove; `headway sample` makes them")
        target, needs = self.settings.target, ESTIMATORS[self.settings.values].needs
        if target is not None:
            costs = answer_costs(traces, self.prover.forced)
            self._draw(traces, first_rounds(costs, target))
            self._draw(traces, more_rounds(costs, self.run.branches().read_as(BranchHead), target))
            return
        boundaries = {(t.problem_id, t.index): len(self.segmenter(t)) + 1 for t in traces}
        if "scores" in needs:
            self._score(traces, total=sum(boundaries.values()))
        if "branches" in needs:
            self._draw(traces, {key: [range(1)] * J for key, J in boundaries.items()})

    def _score(self, traces: Records[Trace], *, total: int) -> None:
        """Scores the known answers at the boundaries, `total` of them, where that was not done."""
        done = {((s.problem_id, s.index), s.boundary) for s in self.run.scores()}
        made = len(done)
        self._tell("score", made, total)
        if made >= total:
            return
        for scores in self.prover.score(traces, done=done):
            self.run.append(scores)
            made += len(scores)
            self._tell("score", made, total)

    def _draw(self, traces: Records[Trace], rounds: Rounds) -> None:
        """Draws these rounds of branches, but for those that are there."""
        s = self.settings
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
        made = len(done)
        marks = "scores" in ESTIMATORS[s.values].needs
        for branches in self.prover.draw(traces, seed=s.seed, mark_known=marks, done=done, rounds=rounds):
            self.run.append(branches)
            made += len(branches)
            self._tell("prove", made, wanted)

    @property
    def proved(self) -> Proved:
        """The run as it is now, to report on."""
        return Proved(self.run, self.settings, self.problems, self.grader, self.segmenter)

    def table(self) -> RunTable:
        """The traces and branches as numbers."""
        return self.proved.table()

    def report(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """Writes report.json, report.html and what other formats are asked for, and returns the first.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        self._tell("report", 0, 1)
        report = self.proved.write(formats)
        self._tell("report", 1, 1)
        return report

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()
