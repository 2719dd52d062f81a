"""Reporting: a run folder in, its table, its numbers, its page and its files out."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from headway.core.tally import ESTIMATORS
from headway.problems import ProblemSet
from headway.problems.graders import compares, one_right
from headway.procedures.adaptive import realized
from headway.procedures.forced import Segmenter
from headway.report.files import Format, write_files
from headway.report.numbers.diagnosis import diagnose
from headway.report.numbers.evaluation import evaluate
from headway.report.numbers.parity import as_authors
from headway.report.numbers.table import RunTable, branch_counts, run_table, summarize, value_quality
from headway.report.page.explorer import PageRun
from headway.report.page.render import render_run
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.equivalence import answer_classes
from headway.types import Grader, HeadwayError, Score


class Proved(NamedTuple):
    """A run folder with what reading it needs: its settings, its problems, its grader, and how its traces are cut."""

    run: Run
    settings: Settings
    problems: ProblemSet
    grader: Grader
    segmenter: Segmenter

    def table(self, scores: Sequence[Score] | None = None) -> RunTable:
        """The traces and branches as numbers; every record is read once."""
        same = self.grader if compares(self.grader) else None
        return run_table(
            self.run.traces(),
            self.run.branches(),
            self.segmenter,
            kind=self.settings.values,
            scores=self.run.scores() if scores is None else scores,
            classify=partial(answer_classes, one_right=one_right(self.grader), same=same),
        )

    def page_run(self, label: str | None = None) -> PageRun:
        """The run as pages and files show it, with its numbers, under a label (its folder's name unless given).

        Raises:
            HeadwayError: there are no branches, or no scores.
        """
        run, s = self.run, self.settings
        for what, there in (("scores", run.scores()), ("branches", run.branches())):
            if what in ESTIMATORS[s.values].needs and not there:
                raise HeadwayError(f"{run.path} has no {what} to report on; `headway prove --out {run.path}`")
        scores, whole = list(run.scores()), s.budget + s.answer_tokens
        table = self.table(scores)
        report = summarize(
            table,
            model=s.author or s.model,
            problems=self.problems.name,
            budget=s.budget,
            answer_tokens=s.answer_tokens,
        )
        report["meta_prover"] = s.model
        report["branches"] = branch_counts(table)
        report["precision"] = realized(table.problems, table.curves, whole)._asdict()
        report["values"] = value_quality(table, scores)
        report |= evaluate(table, budget=whole) | diagnose(table, budget=whole)
        report["authors"] = as_authors(table, budget=whole)
        by_id = {p.id: p for p in self.problems.problems}
        return PageRun(label or run.path.resolve().name, report, table, run.traces().take(table.order), by_id)

    def write(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """Writes report.json, report.html and what other formats are asked for, and returns the first."""
        made = self.page_run()
        self.run.write_json("report.json", made.report)
        self.run.write_text("report.html", render_run(made))
        write_files(self.run.path, formats, [made])
        return made.report
