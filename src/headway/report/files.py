"""A report's numbers and charts as files for other tools: CSV, Parquet, Markdown, PNG, SVG and PDF.

report.csv report.parquet report.md      one estimate per row, of all runs
traces.csv traces.parquet                one trace per row, of all runs
budget_curve.png ...                     a file for each chart
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from headway.report.numbers.comparison import markdown, markdown_cell, markdown_table
from headway.report.page import charts
from headway.report.page.explorer import PageRun, sort_keys
from headway.report.quantities import headline
from headway.report.text import UNKNOWN, interval, known, plus_minus, visible
from headway.types import HeadwayError

Format = Literal["json", "csv", "parquet", "md", "png", "svg", "pdf"]
ERRORS = ("value", "stderr", "ci_low", "ci_high", "band_low", "band_high")
NUMBERS = ("value", "accuracy", "stderr", "ci95", "n", "n_problems")
# a spreadsheet reads a cell with such a beginning as a formula; labels and ids are hostile
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def parse_formats(given: Iterable[str]) -> list[Format]:
    """The formats of `--format`, each of which may be several, separated by commas.

    Raises:
        HeadwayError: there is no such format.
    """
    names = [name.strip() for part in given for name in part.split(",") if name.strip()]
    known: tuple[Format, ...] = get_args(Format)
    for name in names:
        if name not in known:
            raise HeadwayError(f"no format '{name}'; --format takes {', '.join(known)}, several separated by commas")
    return [kind for kind in known if kind in names]


def write_files(
    out: Path, formats: Sequence[Format], runs: Sequence[PageRun], comparison: dict[str, Any] | None = None
) -> None:
    """Writes the formats into a folder; the caller always writes JSON."""
    reports = [(visible(run.label), run.report) for run in runs]
    tables: dict[str, list[dict[str, Any]]] = {}
    if {"csv", "parquet"} & set(formats):
        tables = {"report": estimates(reports), "traces": [row for run in runs for row in trace_rows(run)]}
    for kind in formats:
        if kind == "md":
            (out / "report.md").write_text(_markdown(reports, comparison), encoding="utf-8")
        elif kind in ("csv", "parquet"):
            for name, rows in tables.items():
                _write_table(rows, out / f"{name}.{kind}")
        elif kind in ("png", "svg", "pdf"):
            for name, (_, chart) in charts.all_charts(reports, comparison).items():
                charts.save(chart, out / f"{name}.{kind}", kind)


def estimates(reports: charts.Reports) -> list[dict[str, Any]]:
    """A row for each estimate of each report: run, quantity, its key (budget, episode, ...), and numbers.

    `ci_low` and `ci_high` are the 95% interval, `band_low` and `band_high` the simultaneous band over budgets, where
    there is one. None is unknown, or does not apply.
    """
    found = []
    for label, report in reports:
        for quantity, entry, band in _entries(report):
            value = entry["accuracy"] if "accuracy" in entry else entry["value"]
            numbers = dict(zip(ERRORS, (value, entry["stderr"], *entry["ci95"], *band), strict=True))
            key = {name: x for name, x in entry.items() if name not in NUMBERS}
            counts = {"n": entry["n"], "n_problems": entry["n_problems"]}
            found.append(({"run": label, "quantity": quantity}, key, known(**numbers) | counts))
    names = dict.fromkeys(name for _, key, _ in found for name in key)
    return [{**head, **{name: key.get(name) for name in names}, **numbers} for head, key, numbers in found]


def _entries(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Sequence[float | None]]]:
    """Each estimate of a report with the name of its entry and its band (None, None where there is none)."""
    for quantity, content in report.items():
        entries = content if isinstance(content, list) else [content]
        bands = report.get("bands", {}).get(quantity) or [(None, None)] * len(entries)
        for entry, band in zip(entries, bands, strict=True):
            if isinstance(entry, dict):
                named = [(quantity, entry), *((f"{quantity}.{k}", e) for k, e in entry.items() if isinstance(e, dict))]
                yield from ((name, e, band) for name, e in named if "ci95" in e)


def trace_rows(run: PageRun) -> list[dict[str, Any]]:
    """A row for each trace of a run: its outcome, its lengths, and what the page sorts by."""
    table, columns = run.table, sort_keys(run)
    return [
        {
            "run": visible(run.label), "problem": visible(problem), "index": table.indices[i],
            "outcome": table.outcomes[i], **known(reward=table.rewards[i]),
            "tokens": int(table.tokens[i]), "thinking_tokens": int(table.thinking[i]),
            "episodes": len(table.curves[i].boundaries) - 1,
            **known(**{name: column[i] for name, column in columns.items()}),
        }
        for i, problem in enumerate(table.problems)
    ]  # fmt: skip


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _no_formula(cell) for name, cell in row.items()} for row in rows)
        return
    import pyarrow  # slow to import, and rarely needed
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _markdown(reports: charts.Reports, comparison: dict[str, Any] | None) -> str:
    """The numbers as Markdown tables."""
    if comparison is not None:
        return markdown_table(comparison)
    [(_, report)] = reports
    head = [["", "estimate", "95%: problems like these", "95%: these problems"]]
    for label, estimate, digits, these in headline(report):
        ends = [interval(e, digits) if e else UNKNOWN for e in (estimate, these)]
        head.append([label, plus_minus(estimate, digits), *ends])
    curve = [["budget", "accuracy", "95%", "normalized regret", "95%"]]
    for a, r in zip(report["budget_curve"], report["normalized_regret"], strict=True):
        curve.append([str(a["budget"]), plus_minus(a, name="accuracy"), interval(a, 3), plus_minus(r), interval(r, 3)])
    title = markdown_cell(f"{report['model']} on {report['problems']}")
    counts = f"{report['n_traces']} traces of {report['n_problems']} problems"
    return f"# {title}\n\n{counts}.\n\n{markdown(head)}\n{markdown(curve)}"
