"""Measuring: the stages of a measurement over its run folder, each going on where it stopped."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from headway.core.tally import ESTIMATORS
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.procedures import coverage
from headway.procedures.adaptive import Of, Target, answer_costs, first_rounds, more_rounds
from headway.procedures.forced import Segmenter
from headway.procedures.prove import Prover, Rounds
from headway.procedures.sample import sample
from headway.report.files import Format, write_files
from headway.report.page.explorer import PageRun
from headway.report.page.render import render_run
from headway.runs.lock import writing
from headway.runs.open_run import OpenRun, Tell, quiet
from headway.runs.report import page_run
from headway.runs.settings import MAY_CHANGE, WERE, Settings, problems_of
from headway.runs.store import COVERAGE, Records, Run, check_folder
from headway.types import BranchHead, Grader, HeadwayError, Trace

logger = logging.getLogger(__name__)


class Measurement(OpenRun):
    """One measurement over its run folder: sample, prove, report."""

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Settings,
        tell: Tell = quiet,
        *,
        problems: ProblemSet | None = None,
        grader: Grader | None = None,
        segmenter: Segmenter | None = None,
    ) -> "Measurement":
        """A new measurement, or the one at `path` to continue; what is not given is what the settings name.

        This process holds the folder until the measurement is closed: a HeadwayError where another one does.
        """
        settings.check()
        asked = problems or problems_of(settings)
        if settings.problems.grader != "auto" and grader is None and not (path / "run.json").exists():
            load_grader(settings.problems.grader)
        check_folder(path)
        new = partial(Run.create, path, settings.flat(), asked, may_change=MAY_CHANGE, were=WERE)
        return cls._holding(path, new, tell, grader=grader, segmenter=segmenter)

    @classmethod
    def load(cls, path: Path, tell: Tell = quiet, **given: Any) -> "Measurement":
        """The measurement at a path, to continue it; held as by `create`."""
        Run.load(path)
        return cls._holding(path, partial(Run.load, path), tell, **given)

    @classmethod
    def _holding(cls, path: Path, run: Callable[[], Run], tell: Tell, **given: Any) -> "Measurement":
        with ExitStack() as stack:
            stack.enter_context(writing(path))
            made = cls(run(), tell, **given)
            made.push(stack.pop_all())
            return made

    def sample(self) -> None:
        """Samples the missing traces; a HeadwayError where the traces were imported."""
        s, done = self.settings, set(self.run.trace_keys())
        if s.author is not None:
            held = f"{self.run.path} holds traces by {s.author} that were imported"
            raise HeadwayError(f"{held}; there is nothing to sample")
        self.advance("sample", len(done), len(self.problems.problems) * s.sampling.traces, lambda: sample(
            self.engine, self.problems.problems, self.grader, self.tags, s.sampling, done=done
        ))  # fmt: skip

    @cached_property
    def prover(self) -> Prover:
        """What proves the run's traces."""
        by_id = {p.id: p for p in self.problems.problems}
        return Prover(self.engine, self.meta_prover, by_id, grader=self.grader, segmenter=self.segmenter)

    def prove(self) -> None:
        """Makes the missing scores and branches, whichever the kind of values needs."""
        traces, s = self.ordered_traces(), self.settings.proving
        needs = ESTIMATORS[s.values].needs
        if s.adaptive:
            of: Of = "values" if s.value_precision else "regret"
            target = Target(s.precision or s.value_precision, s.max_branches, of, self.settings.whole, s.branches)
            costs = answer_costs(traces, self.prover.forced)
            self._draw(traces, first_rounds(costs, target))
            self._draw(traces, more_rounds(costs, self.run.branches().read_as(BranchHead), target))
            return
        boundaries = {(t.problem_id, t.index): len(self.segmenter(t)) + 1 for t in traces}
        if "scores" in needs:
            done = {((s.problem_id, s.index), s.boundary) for s in self.run.scores()}
            self.advance("score", len(done), sum(boundaries.values()), lambda: self.prover.score(traces, done=done))
            self._say_unknown("branches" in needs)
            if "branches" not in needs:
                self._check_scores(traces)
        if "branches" in needs:
            self._draw(traces, {key: [range(1)] * J for key, J in boundaries.items()})

    def _say_unknown(self, sampled: bool) -> None:
        """Warns of problems without a known correct answer; a HeadwayError where no value would be known at all."""
        scores = [(s.problem_id, s.probability is None) for s in self.run.scores()]
        if not (unknown := sorted({problem for problem, none in scores if none})):
            return
        count = f"{len(unknown)} of {len({problem for problem, _ in scores})} problems"
        text = f"{count} (such as '{unknown[0]}') have no known form of a correct answer"
        if all(none for _, none in scores) and not sampled:
            raise HeadwayError(f"{text}: no value is known; use --values branches, or references that are answers")
        logger.warning("%s: %s", text, "branches alone give their values" if sampled else "their values are unknown")

    def _check_scores(self, traces: Records[Trace]) -> None:
        """Finds out once, by a few branches, how many of the correct answers the scores count, and warns."""
        if self.run.coverage() is None:
            found = coverage.sampled(self.prover, traces, seed=self.settings.sampling.seed)
            self.run.write_json(COVERAGE, found.record())
            found.warn_if_low()

    def _draw(self, traces: Records[Trace], rounds: Rounds) -> None:
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

    def write(self, formats: Sequence[Format] = ()) -> PageRun:
        """Writes report.json, report.html and the other formats; see `page_run`."""
        self._tell("report", 0, 1)
        made = page_run(self)
        self.run.write_json("report.json", made.report)
        self.run.write_text("report.html", render_run(made))
        write_files(self.run.path, formats, [made])
        self._tell("report", 1, 1)
        return made

    def report(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """The content of report.json, after all files of the report are written."""
        return self.write(formats).report

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()
