"""Reporting: run folders in, their numbers, pages and files out: of one run, or of several side by side."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from headway.core.tally import ESTIMATORS
from headway.problems.graders import compares, one_right
from headway.procedures.adaptive import realized
from headway.report.files import Format, write_files
from headway.report.numbers.comparison import compare, markdown_table, regret_against_best, token_efficiency
from headway.report.numbers.diagnosis import diagnose
from headway.report.numbers.evaluation import evaluate
from headway.report.numbers.parity import as_authors
from headway.report.numbers.table import RunTable, branch_counts, run_table, summarize, value_quality
from headway.report.page.explorer import PageRun
from headway.report.page.render import render_compare, render_run
from headway.runs.open_run import OpenRun
from headway.runs.store import Run
from headway.text.equivalence import answer_classes
from headway.types import HeadwayError, Score


def table(run: OpenRun, scores: Sequence[Score] | None = None) -> RunTable:
    """The traces and branches of a run as numbers; every record is read once."""
    same = run.grader if compares(run.grader) else None
    return run_table(
        run.run.traces(),
        run.run.branches(),
        run.segmenter,
        kind=run.settings.proving.values,
        scores=run.run.scores() if scores is None else scores,
        classify=partial(answer_classes, one_right=one_right(run.grader), same=same),
    )


def page_run(run: OpenRun, label: str | None = None) -> PageRun:
    """A run as pages and files show it, with its numbers, under a label (its folder's name unless given).

    Raises:
        HeadwayError: there are no branches, or no scores.
    """
    folder, s = run.run, run.settings
    for what, there in (("scores", folder.scores()), ("branches", folder.branches())):
        if what in ESTIMATORS[s.proving.values].needs and not there:
            raise HeadwayError(f"{folder.path} has no {what} to report on; `headway prove --out {folder.path}`")
    scores, whole = list(folder.scores()), s.sampling.budget + s.sampling.answer_tokens
    made = table(run, scores)
    report = summarize(
        made,
        model=s.author or s.engine.model,
        problems=run.problems.name,
        budget=s.sampling.budget,
        answer_tokens=s.sampling.answer_tokens,
    )
    report["meta_prover"] = s.engine.model
    report["branches"] = branch_counts(made)
    report["precision"] = realized(made.problems, made.curves, whole)._asdict()
    report["values"] = value_quality(made, scores)
    report |= evaluate(made, budget=whole) | diagnose(made, budget=whole)
    report["authors"] = as_authors(made, budget=whole)
    by_id = {p.id: p for p in run.problems.problems}
    return PageRun(label or folder.path.resolve().name, report, made, folder.traces().take(made.order), by_id)


def write(run: OpenRun, formats: Sequence[Format] = ()) -> PageRun:
    """Writes report.json, report.html and what other formats are asked for, and returns the run as they show it."""
    made = page_run(run)
    run.run.write_json("report.json", made.report)
    run.run.write_text("report.html", render_run(made))
    write_files(run.run.path, formats, [made])
    return made


def compare_runs(
    runs: Sequence[tuple[str, Path | PageRun]],
    out: Path,
    *,
    budgets: Sequence[int] | None = None,
    formats: Sequence[Format] = ("png",),
) -> str:
    """Puts runs (or their folders) side by side into `out`: compare.json, report.html, the formats; returns a table.

    Accuracy and regret are compared at the given budgets, or at half and all of the first run's.

    Raises:
        HeadwayError: a folder is no run or has no branches, or two runs share no problem.
    """
    made = []
    for label, one in runs:
        if isinstance(one, PageRun):
            made.append(one._replace(label=label))
            continue
        with OpenRun(Run.load(one)) as run:
            made.append(page_run(run, label))
    whole, tables = made[0].report["budget"], [(run.label, run.table) for run in made]
    comparison = compare([(run.label, run.table, run.report) for run in made], budgets or (whole // 2, whole))
    comparison["token_efficiency"] = token_efficiency(tables)
    comparison["regret_by_comparator"] = regret_against_best(tables, budget=whole + made[0].report["answer_tokens"])
    folder = Run(out, {})
    out.mkdir(parents=True, exist_ok=True)
    folder.write_json("compare.json", comparison)
    folder.write_text("report.html", render_compare(comparison, [(run.label, run.report) for run in made], made))
    write_files(out, formats, made, comparison)
    return markdown_table(comparison)
