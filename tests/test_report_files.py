"""A report's numbers beside its page: where tokens went, bands, and the other formats."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from headway import cli
from headway.core import stats
from headway.core.resampling import simultaneous_bands
from headway.core.tally import ValueKind
from headway.report.files import estimates, parse_formats, trace_rows, write_files
from headway.report.numbers.comparison import markdown_cell
from headway.report.numbers.diagnosis import token_use
from headway.report.numbers.table import band, run_table
from headway.report.quantities import usage_rows
from headway.runs.measure import Measurement
from headway.runs.report import compare_runs, page_run
from headway.runs.settings import Settings
from headway.runs.store import Records, Run
from headway.types import Branch, Episode, HeadwayError, Trace


def test_token_use_adds_up_to_the_trace() -> None:
    tokens, thinking = np.array([50.0, 40.0]), np.array([30.0, 40.0])
    use = token_use(tokens, thinking, np.array([20.0, np.nan]), np.array([24.0, 0.0]))
    assert {name: column.tolist() for name, column in use.items()} == {
        "thinking_before": [10, 40], "thinking_after": [20, 0], "answer": [20, 0], "forced_answers": [24, 0],
    }  # fmt: skip
    assert sum(list(use.values())[:3]).tolist() == tokens.tolist()


def test_bands_are_those_of_the_bootstrap_around_the_mean_over_traces() -> None:
    rng = np.random.default_rng(0)
    columns, problems = rng.random((40, 3)), [f"p{i // 2:02}" for i in range(40)]
    low, high = simultaneous_bands(columns.reshape(20, 2, 3).mean(axis=1))
    assert np.allclose(np.array(band(columns, problems)).T, [low, high])
    uneven = np.array(band(columns[:-1], problems[:-1]))
    assert np.allclose(uneven.mean(axis=1), columns[:-1].mean(axis=0))
    pointwise = [stats.mean(column, problems).ci95 for column in columns.T]
    assert all(b[0] < p[0] and p[1] < b[1] for b, p in zip(band(columns, problems), pointwise, strict=True))
    assert np.isnan(band(columns[:2], problems[:2])).all()  # one problem


class OneByOne(Sequence[Trace]):
    """Traces that are made when asked for; counts how often somebody went through them."""

    def __init__(self, n: int) -> None:
        self.n, self.passes = n, 0

    def __iter__(self) -> Iterator[Trace]:
        self.passes += 1
        return (self[i] for i in range(self.n))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Trace:  # type: ignore[override]
        if i >= self.n:
            raise IndexError
        return Trace(f"p{i % 3}", self.n - i, (1,), (1, 2), "ab", (0, 1), 2, False, "length")


def test_measuring_goes_through_the_traces_once_and_puts_them_in_order() -> None:
    traces = OneByOne(9)
    m = run_table(traces, [], lambda t: [Episode(0, 2)])
    assert (m.tokens.tolist(), m.thinking.tolist(), m.episodes.tolist()) == ([2] * 9, [2] * 9, [1] * 9)
    assert traces.passes == 1
    keys = list(zip(m.problems, m.indices, strict=True))
    assert keys == sorted(keys) == [(traces[i].problem_id, traces[i].index) for i in m.order]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, Path]]]:
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("a", 0), ("=b", 1)):
        settings = Settings.of(model="scripted", problems="countdown", limit=3, traces=2, branches=2, seed=seed)
        with Measurement.create(folder / name, settings) as measurement:
            measurement.sample()
            measurement.prove()
    yield [(name, folder / name) for name in ("a", "=b")]


@pytest.mark.parametrize("values", ["branches", "distinct", "likelihood", "hybrid"])
def test_a_report_reads_each_branch_and_cuts_each_trace_once(
    values: ValueKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.of(model="scripted", problems="countdown", limit=3, traces=2, branches=2, values=values)
    read, cuts = Counter[type](), Counter[str]()
    reading, cut = Records.__iter__, Measurement.segmenter

    def counted(self: Records[Any]) -> Iterator[Any]:  # by position beartype reads, too
        for record in reading(self):
            read[type(record)] += 1
            yield record

    def counted_cut(self: Measurement, trace: Trace) -> list[Episode]:
        cuts[trace.name] += 1
        return cut(self, trace)

    with Measurement.create(tmp_path, settings) as measurement:
        measurement.sample()
        measurement.prove()
        monkeypatch.setattr(Records, "__iter__", counted)
        monkeypatch.setattr(Measurement, "segmenter", counted_cut)
        measurement.report(["csv", "md"])
        assert read[Branch] == len(measurement.run.branches()) == (0 if values == "likelihood" else 6 * 7 * 2)
    assert set(cuts.values()) == {1} and len(cuts) == 6
    assert read[Trace] == 6


def test_every_format_is_written_for_one_run_and_for_several(runs: list[tuple[str, Path]], tmp_path: Path) -> None:
    formats = parse_formats(["csv,parquet", "md", "png, svg,pdf", "json"])
    [(_, one), _] = runs
    command = ["report", "--out", str(one), "--format", "csv,parquet,md", "--format", "png,svg,pdf"]
    cli.app(command, standalone_mode=False)
    compare_runs(runs, tmp_path, formats=formats)
    tables = {f"{name}.{kind}" for name in ("report", "traces") for kind in ("csv", "parquet")}
    charts = {
        f"{name}.{k}" for name in ("budget_curve", "normalized_regret", "progress") for k in ("png", "svg", "pdf")
    }
    for folder, first in ((one, "report.json"), (tmp_path, "compare.json")):
        made = {file.name for file in folder.iterdir()}
        assert {first, "report.html", "report.md", *tables, *charts} <= made
        starts = {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}
        assert all((folder / name).read_bytes().startswith(starts[name[-3:]]) for name in charts)


def test_tables_hold_the_numbers_of_the_report(runs: list[tuple[str, Path]], tmp_path: Path) -> None:
    with Measurement(Run.load(runs[0][1])) as measurement:
        shown = page_run(measurement)
    write_files(tmp_path, ["csv", "parquet"], [shown])
    report = (
        json.loads((runs[0][1] / "report.json").read_text()) if (runs[0][1] / "report.json").exists() else shown.report
    )
    table = datasets.Dataset.from_parquet(str(tmp_path / "report.parquet"), cache_dir=str(tmp_path / "cache"))
    curve = [row for row in table if row["quantity"] == "budget_curve"]
    assert [(r["budget"], r["value"], r["ci_low"], r["n"]) for r in curve] == [
        (e["budget"], e["accuracy"], e["ci95"][0], e["n"]) for e in report["budget_curve"]
    ]
    assert [[r["band_low"], r["band_high"]] for r in curve] == report["bands"]["budget_curve"]
    assert {r["use"] for r in table if r["quantity"] == "token_use"} == {e["use"] for e in report["token_use"]}
    with (tmp_path / "traces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["problem"], int(r["tokens"]), r["outcome"]) for r in rows] == [
        (t.problem_id, len(t.token_ids), t.outcome) for t in shown.traces
    ]
    assert np.isclose(np.mean([float(r["regret"]) for r in rows]), report["normalized_regret"][-1]["value"])
    assert len(estimates([("a", report)])) == len(table) and len(trace_rows(shown)) == len(rows)


def test_no_cell_is_a_formula_and_no_cell_is_markup(runs: list[tuple[str, Path]], tmp_path: Path) -> None:
    table = compare_runs(runs, tmp_path, formats=["csv", "md"])
    assert (tmp_path / "report.md").read_text() == table
    with (tmp_path / "report.csv").open(newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"a", "'=b"}
    assert markdown_cell("a|b\n<script>[x](javascript:1)`\u202e") == r"a\|b \<script>\[x](javascript:1)\`\u202e"


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(HeadwayError, match=r"no format 'docx'; --format takes json, csv"):
        parse_formats(["csv,docx"])


def test_how_well_tokens_were_used_by_hand() -> None:
    def entry(value: float | None, error: float = 0.1) -> dict[str, object]:
        ends = [None, None] if value is None else [value - 0.2, value + 0.2]
        return {"value": value, "stderr": error, "ci95": ends, "n": 9, "n_problems": 3}

    reports = [
        ("a", {"overthinking": {"raw": entry(0.5), "gain": entry(0.25)}, "calibration": entry(None)}),
        ("b", {"overthinking": {"raw": entry(0.4), "gain": entry(-0.25)}, "budget_to_90": entry(96.0, 4.0)}),
    ]
    thrift = [{"label": "b", "highest": h, **entry(1.5 + h)} for h in (False, True)]
    rows = {row[0]: row[1:] for row in usage_rows(reports, {"token_efficiency": thrift})}
    assert rows[""] == ["a", "b"]
    found = {name.split(" (")[0].split(",")[0]: cells for name, cells in rows.items()}
    assert found["accuracy gained by stopping at the best boundary"] == [
        "0.25 ± 0.10 (95% 0.05 to 0.45)",
        "−0.25 ± 0.10 (95% −0.45 to −0.05)",
    ]
    assert found["budget for 90% of the final accuracy"] == ["–", "96.0 ± 4.0 (95% 95.8 to 96.2)"]
    assert rows["observed over predicted variance of the values (1 = error bars are calibrated)"] == ["–", "–"]
    assert rows["tokens a needs per token of this run, at equal maj@k"] == [
        "–",
        "2.50 ± 0.10 (95% 2.30 to 2.70)",
    ]
    assert usage_rows([("a", {})], None) == [["", "a"]]
