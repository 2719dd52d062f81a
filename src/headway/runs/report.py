"""Reporting: run folders in, their numbers, pages and files out, of one run or of several side by side."""

from collections.abc import Sequence
from pathlib import Path

from headway.core.tally import ESTIMATORS
from headway.procedures.adaptive import realized
from headway.report.files import Format, write_files
from headway.report.numbers.comparison import compare, markdown_table, regret_against_best, token_efficiency
from headway.report.numbers.diagnosis import diagnose
from headway.report.numbers.escapes import BranchEnd, escapes
from headway.report.numbers.evaluation import evaluate
from headway.report.numbers.parity import as_authors
from headway.report.numbers.table import branch_counts, last_budget, summarize, value_quality
from headway.report.page.explorer import PageRun
from headway.report.page.render import render_compare
from headway.runs.open_run import OpenRun
from headway.runs.store import Run
from headway.types import HeadwayError

LABEL = 255  # characters, as a folder name has
Labelled = Sequence[tuple[str, Path | PageRun]]


def page_run(run: OpenRun, label: str | None = None) -> PageRun:
    """A run with its numbers; the default label is its folder's name. Missing records are a HeadwayError."""
    folder, s = run.run, run.settings
    for what, there in (("scores", folder.scores()), ("branches", folder.branches())):
        if what in ESTIMATORS[s.proving.values].needs and not there:
            raise HeadwayError(f"{folder.path} has no {what} to report on; `headway prove --out {folder.path}`")
    scores = list(folder.scores())
    made = run.table(scores)
    whole = last_budget(made, s.whole)
    model, budget, answer_tokens = s.author or s.engine.model, s.sampling.budget, s.sampling.answer_tokens
    report = summarize(made, model=model, problems=run.problems.name, budget=budget, answer_tokens=answer_tokens)
    report["meta_prover"] = s.engine.model
    report["settings"] = {
        "engine": s.engine.name, "dtype": s.engine.dtype, "temperature": s.sampling.temperature,
        "top_p": s.sampling.top_p, "seed": s.sampling.seed, "traces": s.sampling.traces,
        "grader": run.grader_name,
        "values": s.proving.values, "branches": s.proving.branches, "segment": s.cutting.segment,
    }  # fmt: skip
    report["branches"] = branch_counts(made)
    report["escapes"] = escapes(folder.branches().read_as(BranchEnd))
    report["precision"] = realized(made.problems, made.curves, whole)._asdict()
    report["values"] = value_quality(made, scores)
    if (coverage := folder.coverage()) is not None:
        report["values"]["coverage"] = coverage
    report |= evaluate(made, budget=whole) | diagnose(made, budget=whole)
    report["authors"] = as_authors(made, budget=whole)
    by_id = {p.id: p for p in run.problems.problems}
    return PageRun(label or folder.path.resolve().name, report, made, folder.traces().take(made.order), by_id)


def compare_runs(
    runs: Labelled, out: Path, *, budgets: Sequence[int] | None = None, formats: Sequence[Format] = ("png",)
) -> str:
    """Puts labelled runs (or run folders) side by side into `out`: compare.json, report.html, other formats.

    Budgets are by default half and all of the smallest of the runs'. A label of more than 255
    characters, and runs that share no problem, are a HeadwayError.
    """
    made = []
    if long := max((label for label, _ in runs if len(label) > LABEL), key=len, default=None):
        raise HeadwayError(f"a label of {len(long)} characters ({long[:40]}…); give labels of at most {LABEL}")
    for label, one in runs:
        if isinstance(one, PageRun):
            made.append(one._replace(label=label))
            continue
        with OpenRun.load(one) as run:
            made.append(page_run(run, label))
    whole, end = (min(r.report["budget"] for r in made), min(r.report["budget_curve"][-1]["budget"] for r in made))
    tables = [(run.label, run.table) for run in made]
    comparison = compare([(run.label, run.table, run.report) for run in made], budgets or (whole // 2, whole))
    comparison["token_efficiency"] = token_efficiency(tables)
    comparison["regret_by_comparator"] = regret_against_best(tables, budget=end)
    folder = Run(out, {})
    out.mkdir(parents=True, exist_ok=True)
    folder.write_json("compare.json", comparison)
    folder.write_text("report.html", render_compare(comparison, [(run.label, run.report) for run in made], made))
    write_files(out, formats, made, comparison)
    return markdown_table(comparison)
