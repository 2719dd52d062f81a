"""A report's numbers and charts as files for other tools: CSV, Parquet, Markdown, PNG, SVG and PDF.

report.csv report.parquet report.md      an estimate a row, of all runs
traces.csv traces.parquet                a trace a row, of all runs
budget_curve.png ...                     a file for each chart
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from headway.report import charts
from headway.report.compare import markdown, markdown_cell, markdown_table
from headway.report.explorer import Shown, measures
from headway.report.text import interval, is_known, plus_minus, visible
from headway.types import HeadwayError

Format = Literal["json", "csv", "parquet", "md", "png", "svg", "pdf"]
PLACES = ("budget", "episode", "k", "tokens", "use")  # what tells apart the estimates of one quantity
TEXTS = ("run", "quantity", "use", "problem", "outcome")
COUNTS = ("budget", "episode", "k", "n", "n_problems", "index", "episodes")
# a cell that begins so is a formula to a spreadsheet, and labels and ids are hostile
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def parse_formats(given: Iterable[str]) -> list[Format]:
    """The formats of `--format`, which may be given several times or hold several, separated by commas.

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
    out: Path, formats: Sequence[Format], runs: Sequence[Shown], comparison: dict[str, Any] | None = None
) -> list[Path]:
    """Writes what was asked for into a folder and returns the paths; JSON is always there and written elsewhere."""
    made: list[Path] = []
    reports = [(visible(run.label), run.report) for run in runs]
    tables = {"report": estimates(reports), "traces": [row for run in runs for row in trace_rows(run)]}
    for kind in formats:
        if kind == "md":
            made.append(out / "report.md")
            made[-1].write_text(_markdown(reports, comparison), encoding="utf-8")
        elif kind in ("csv", "parquet"):
            for name, rows in tables.items():
                made.append(out / f"{name}.{kind}")
                _write_table(rows, made[-1])
        elif kind in ("png", "svg", "pdf"):
            for name, (_, chart) in charts.all_charts(reports).items():
                made.append(out / f"{name}.{kind}")
                charts.save(chart, made[-1], kind)
    return made


def estimates(reports: charts.Reports) -> list[dict[str, Any]]:
    """A row for each estimate of each report: run, quantity, where it was taken, value, stderr, low, high, n.

    `low` and `high` are the 95% interval, `band_low` and `band_high` the band for all budgets at once, where there is
    one. None is unknown.
    """
    rows = []
    for label, report in reports:
        for quantity, content in report.items():
            entries = content if isinstance(content, list) else [content]
            bands = report.get("bands", {}).get(quantity, [(None, None)] * len(entries))
            for entry, (band_low, band_high) in zip(entries, bands, strict=True):
                if isinstance(entry, dict) and "ci95" in entry:
                    low, high = entry["ci95"]
                    value = entry["accuracy"] if "accuracy" in entry else entry["value"]
                    numbers = {"value": value, "stderr": entry["stderr"], "low": low, "high": high}
                    numbers |= {"band_low": band_low, "band_high": band_high}
                    rows.append(
                        {
                            "run": label,
                            "quantity": quantity,
                            **{place: entry.get(place) for place in PLACES},
                            **{name: x if is_known(x) else None for name, x in numbers.items()},
                            "n": entry.get("n"),
                            "n_problems": entry.get("n_problems"),
                        }
                    )
    return rows


def trace_rows(run: Shown) -> list[dict[str, Any]]:
    """A row for each trace of a run: what became of it, its lengths, and what the page sorts it by."""
    columns = measures(run)
    return [
        {
            "run": visible(run.label),
            "problem": visible(f.problem_id),
            "index": f.index,
            "outcome": f.outcome,
            "reward": f.reward,
            "tokens": f.tokens,
            "thinking_tokens": f.thinking,
            "episodes": len(run.measured.curves[i].boundaries) - 1,
            **{name: float(c[i]) if is_known(float(c[i])) else None for name, c in columns.items()},
        }
        for i, f in enumerate(run.measured.facts)
    ]


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _no_formula(cell) for name, cell in row.items()} for row in rows)
        return
    import pyarrow  # slow to import, and seldom needed
    from pyarrow import parquet

    kinds = {name: pyarrow.string() for name in TEXTS} | {name: pyarrow.int64() for name in COUNTS}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in rows[0]])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _markdown(reports: charts.Reports, comparison: dict[str, Any] | None) -> str:
    """The numbers as Markdown tables."""
    if comparison is not None:
        return markdown_table(comparison)
    [(_, report)] = reports
    regret = report["normalized_regret"][-1]
    named = {
        "pass@1": (report["pass_at_1"], 3),
        "accuracy without thinking": (report["forced_at_start"], 3),
        f"normalized regret at {regret['budget']} tokens": (regret, 3),
        "episodes": (report["episodes"], 2),
        "tokens": (report["tokens"], 1),
    }
    head = [["", "estimate", "95%"], *([n, plus_minus(e, d), interval(e, d)] for n, (e, d) in named.items())]
    curve = [["budget", "accuracy", "95%", "normalized regret", "95%"]]
    for a, r in zip(report["budget_curve"], report["normalized_regret"], strict=True):
        curve.append([str(a["budget"]), plus_minus(a, name="accuracy"), interval(a, 3), plus_minus(r), interval(r, 3)])
    title = markdown_cell(f"{report['model']} on {report['problems']}")
    counts = f"{report['n_traces']} traces of {report['n_problems']} problems"
    return f"# {title}\n\n{counts}.\n\n{markdown(head)}\n{markdown(curve)}"
