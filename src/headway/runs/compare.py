"""Comparing: run folders in, compare.json and a page of all of them out."""

from collections.abc import Sequence
from pathlib import Path

from headway.report.files import Format, write_files
from headway.report.numbers.comparison import compare, markdown_table, regret_against_best, token_efficiency
from headway.report.page.render import render_compare
from headway.runs.open_run import OpenRun
from headway.runs.report import page_run
from headway.runs.store import Run


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
    made = []
    for label, path in runs:
        with OpenRun(Run.load(path)) as run:
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
