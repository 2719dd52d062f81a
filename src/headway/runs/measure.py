"""Measuring: the stages of a measurement over its run folder, each going on where it stopped."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from headway.core.tally import ESTIMATORS
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.procedures.adaptive import answer_costs, first_rounds, more_rounds
from headway.procedures.forced import Segmenter
from headway.procedures.prove import Prover, Rounds
from headway.procedures.sample import sample
from headway.report.files import Format
from headway.report.numbers.table import RunTable
from headway.runs import report
from headway.runs.open_run import OpenRun, Tell
from headway.runs.records import Records, TraceLine
from headway.runs.settings import MAY_CHANGE, Settings, problems_of
from headway.runs.store import Run
from headway.types import BranchHead, Grader, HeadwayError, Trace


class Measurement(OpenRun):
    """One measurement over its run folder: sample, prove, report."""

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Settings,
        tell: Tell = lambda stage, done, total: None,
        *,
        problems: ProblemSet | None = None,
        grader: Grader | None = None,
        segmenter: Segmenter | None = None,
    ) -> "Measurement":
        """A new measurement, or the one at `path` to go on with; what cannot be used is refused before it is made.

        The problems, the grader and the cut are those that the settings name, unless given.
        """
        settings.check()
        asked = problems or problems_of(settings)
        if not (path / "run.json").exists() and grader is None and settings.problems.grader != "auto":
            load_grader(settings.problems.grader)
        run = Run.create(
            path, settings.flat(), asked.problems, name=asked.name, grader=asked.grader,
            may_change=MAY_CHANGE,
        )  # fmt: skip
        return cls(run, tell, grader=grader, segmenter=segmenter)

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
        self.advance("sample", len(done), len(self.problems.problems) * s.sampling.traces, lambda: sample(
            self.engine, self.problems.problems, self.grader, self.tags, s.sampling, done=done
        ))  # fmt: skip

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
        target, needs = self.settings.target, ESTIMATORS[self.settings.proving.values].needs
        if target is not None:
            costs = answer_costs(traces, self.prover.forced)
            self._draw(traces, first_rounds(costs, target))
            self._draw(traces, more_rounds(costs, self.run.branches().read_as(BranchHead), target))
            return
        boundaries = {(t.problem_id, t.index): len(self.segmenter(t)) + 1 for t in traces}
        if "scores" in needs:
            done = {((s.problem_id, s.index), s.boundary) for s in self.run.scores()}
            self.advance("score", len(done), sum(boundaries.values()), lambda: self.prover.score(traces, done=done))
        if "branches" in needs:
            self._draw(traces, {key: [range(1)] * J for key, J in boundaries.items()})

    def _draw(self, traces: Records[Trace], rounds: Rounds) -> None:
        """Draws these rounds of branches, except for those that are there."""
        s, seed = self.settings.proving, self.settings.sampling.seed
        marks = "scores" in ESTIMATORS[s.values].needs
        names = {key: key for key in rounds}  # one tuple a trace, not one a branch
        done = {
            (key, b.boundary, b.branch)
            for b in self.run.branches().read_as(BranchHead)
            if (key := names.get((b.problem_id, b.index))) and b.branch // s.branches in rounds[key][b.boundary]
        }
        wanted = sum(len(r) for of_trace in rounds.values() for r in of_trace) * s.branches
        self.advance("prove", len(done), wanted, lambda: self.prover.draw(
            traces, seed=seed, mark_known=marks, done=done, rounds=rounds
        ))  # fmt: skip

    def table(self) -> RunTable:
        """The traces and branches as numbers."""
        return report.table(self)

    def report(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """Writes report.json, report.html and what other formats are asked for, and returns the first.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        self._tell("report", 0, 1)
        made = report.write(self, formats).report
        self._tell("report", 1, 1)
        return made

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()
