import base64
import json
import math
import re
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from headway.core import stats
from headway.core.segment import by_markers, to_tokens
from headway.engines.scripted import ScriptedEngine, ramps
from headway.problems.graders import load_grader
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, grade_traces, make_trace, sample
from headway.report.numbers.comparison import compare, difference_rows, estimate_rows, markdown_table
from headway.report.numbers.findings import accuracy_bounds, cautions, findings
from headway.report.numbers.table import RunTable, run_table, summarize
from headway.report.page import charts
from headway.report.page.explorer import PageRun
from headway.report.page.render import render_compare, render_run
from headway.report.quantities import verdict
from headway.report.text import interval, plus_minus, visible
from headway.text.prompts import meta_prover, prompt_ids
from headway.text.tags import ThinkTags
from headway.types import Branch, Completion, Episode, HeadwayError, Problem, Trace

TAGS = ThinkTags("", "</think>")
BUDGET, ANSWER_TOKENS = 400, 60
PAYLOAD = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></pre><!--"
HOSTILE = PAYLOAD + "\u202egnissim\u202c\x00\u2028\u200b&amp;"
CHROMIUM = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=10000", "--dump-dom",
]  # fmt: skip
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(6)]


class Run(NamedTuple):
    table: RunTable
    traces: list[Trace]
    branches: list[Branch]
    report: dict[str, Any]


def cut(trace: Trace) -> list[Episode]:
    return to_tokens(by_markers(trace.thought), trace.offsets[: trace.thinking])


def run(
    problems: Sequence[Problem] = PROBLEMS,
    *,
    values: dict[str, list[float]] | None = None,
    traces: int = 3,
    seed: int = 0,
    thoughts: Sequence[str] = (),
    model: str = "scripted",
) -> Run:
    """A run of the scripted policy; `thoughts` adds completions of the first problem that say exactly that."""
    engine = ScriptedEngine(problems, values or ramps(problems, episodes=3))
    grader, by_id = load_grader("exact"), {p.id: p for p in problems}
    limits = {"budget": BUDGET, "answer_tokens": ANSWER_TOKENS}
    sampling = Sampling(traces, seed=seed, **limits)
    made = [t for group in sample(engine, problems, grader, TAGS, sampling) for t in group]
    prompt = prompt_ids(engine.tokenizer, problems[0].prompt, TAGS)
    for i, thought in enumerate(thoughts):
        ids = tuple(engine.tokenizer.encode(thought, add_special_tokens=False))
        trace = make_trace(engine.tokenizer, problems[0].id, traces + i, prompt, Completion(ids, "stop"), TAGS)
        made.extend(grade_traces([trace], by_id, grader))
    prover = meta_prover(TAGS, branches=4, max_tokens=200)
    proving = Prover(engine, prover, by_id, grader=grader, segmenter=cut)
    branches = [b for group in proving.draw(made, seed=seed) for b in group]
    table = run_table(made, branches, cut)
    report = summarize(table, model=model, problems="sums", **limits)
    return Run(table, [made[i] for i in table.order], branches, report)


def page(r: Run, *, problems: dict[str, Problem] | None = None, **keywords: Any) -> str:
    return render_run(PageRun(r.report["model"], r.report, r.table, r.traces, problems or {}), **keywords)


def embedded(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    data = json.loads(found[1])
    made = data["explorer"]
    if made:
        blocks = [json.loads(zlib.decompress(base64.b64decode(block))) for block in made["blocks"]]
        places = zip(made["index"]["block"], made["index"]["place"], strict=True)
        data["traces"] = [blocks[block][place] for block, place in places]
    return data


def dom(html: str) -> tuple[list[str], list[str]]:
    """The tags and the texts of a page."""
    tags, texts = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: tags.append(tag)
    parser.handle_data = texts.append
    parser.feed(html)
    return tags, texts


@pytest.fixture(scope="module")
def one() -> Run:
    return run()


@pytest.fixture(scope="module")
def hostile() -> Run:
    thought = f"Okay\n\n{HOSTILE}\n\nHm.\n\nWait\n\n{HOSTILE}\n\nHm.\n\n</think>{HOSTILE} \\boxed{{{HOSTILE}}}"
    problems = [Problem(HOSTILE, f"{HOSTILE}?", HOSTILE), *PROBLEMS[1:]]
    return run(problems, thoughts=[thought], model=HOSTILE)


def test_a_run_does_not_differ_from_itself(one):
    comparison = compare([("a", one.table, one.report), ("b", one.table, one.report)], [50, 200])
    first, second = comparison["runs"]
    assert first["differences"] == []
    assert second["common_problems"] == len(PROBLEMS)
    for record in second["differences"]:
        assert (record["value"], record["stderr"]) == (0.0, 0.0)
        low, high = record["ci95"]
        # six problems that agree do not say that none differs; how much longer episodes could be is not known
        if record["quantity"] in ("pass_at_1", "accuracy", "normalized_regret"):
            assert [low, high] == pytest.approx([-3.8416 / 9.8416, 3.8416 / 9.8416])
        else:
            assert low < 0 < high or math.isnan(low)
        assert record["n_problems"] == len(PROBLEMS)
    assert second["estimates"] == first["estimates"]


def test_estimates_of_a_comparison_are_those_of_the_report(one):
    [compared] = compare([("a", one.table, one.report)], [460])["runs"]
    found = {record["quantity"]: record for record in compared["estimates"]}
    for quantity in ("pass_at_1", "tokens", "thinking_tokens", "episodes"):
        assert {**one.report[quantity], "quantity": quantity, "budget": None} == found[quantity]
    assert one.report["normalized_regret"][-1] == {
        "budget": 460, **{k: found["normalized_regret"][k] for k in ("value", "stderr", "ci95", "n", "n_problems")}
    }  # fmt: skip
    assert one.report["budget_curve"][-1]["accuracy"] == found["accuracy"]["value"]


def test_a_difference_is_paired_on_the_problems_both_have(one):
    # p0..p5 against p2..p7: four are common
    other = run([Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(2, 8)], seed=1)
    second = compare([("a", one.table, one.report), ("b", other.table, other.report)], [])["runs"][1]
    a, b = (stats.by_problem(r.table.rewards, r.table.problems) for r in (one, other))
    by_hand = np.mean([b[p] - a[p] for p in ("p2", "p3", "p4", "p5")])
    assert second["common_problems"] == second["differences"][0]["n_problems"] == 4
    assert second["differences"][0]["value"] == pytest.approx(by_hand)


def test_runs_that_share_no_problem_are_refused(one):
    other = run([Problem("elsewhere", "What?", "this")])
    with pytest.raises(HeadwayError, match=r"'a' and 'b' share no problem.*'p0'.*'elsewhere'.*measure both"):
        compare([("a", one.table, one.report), ("b", other.table, other.report)], [100])


def test_runs_with_one_label_are_refused(one):
    with pytest.raises(HeadwayError, match="different labels, got a, a"):
        compare([("a", one.table, one.report)] * 2, [100])


def test_every_cell_of_the_tables_carries_its_error(one):
    other = run(seed=1)
    comparison = compare([("a|b", one.table, one.report), ("c", other.table, other.report)], [100])
    header, *rows = estimate_rows(comparison)
    assert header == ["", "a|b", "c"]
    assert [row[0] for row in rows][:4] == ["pass@1", "pass@3", "maj@3", "tokens"]
    assert rows[-1][0] == "accuracy at 100 tokens"
    assert all(re.fullmatch(r"[\d.]+ ± [\d.]+", cell) for row in rows for cell in row[1:])
    header, *rows = difference_rows(comparison)
    assert header == ["", "c − a|b"]
    signed = r"[+−][\d.]+"
    assert all(re.fullmatch(rf"{signed} ± [\d.]+ \(95% ({signed} to {signed}|–)\)", row[1]) for row in rows)
    assert "| a\\|b" in markdown_table(comparison)


def test_unknown_numbers_are_a_dash_whether_nan_or_null():
    for unknown in (None, math.nan):
        assert plus_minus({"value": 0.5, "stderr": unknown}) == "0.500 ± –"
        assert interval({"ci95": [unknown, unknown]}) == "–"


def test_estimates_are_rounded_by_their_standard_error():
    cases = [
        (0.4123, 0.0184, "0.412 ± 0.018"),
        (148.34, 12.4, "148 ± 12"),
        (7.21, 3.7, "7.2 ± 3.7"),
        (1.0, 0.0, "1.000 ± 0.000"),
    ]
    for value, stderr, text in cases:
        assert plus_minus({"value": value, "stderr": stderr}) == text
    assert interval({"stderr": 3.7, "ci95": [0.04, 14.4]}, signed=True) == "+0.0 to +14.4"


def difference_of(quantity: str, value: float, low: float, high: float, **place: int) -> dict[str, Any]:
    return {"quantity": quantity, "budget": None, "value": value, "ci95": [low, high], **place}


def test_findings_say_what_the_intervals_tell_apart_and_what_not():
    differences = [
        difference_of("pass_at_1", 0.067, 0.008, 0.126),
        difference_of("pass_at_k", -0.092, -0.18, -0.002, k=4),
        difference_of("tokens", 9.2, 0.3, 18.1),
        difference_of("normalized_regret", -0.01, -0.04, 0.02, budget=96),
        difference_of("normalized_regret", -0.02, -0.05, 0.01, budget=208),
    ]
    assert findings("base", [{"label": "mrt", "differences": differences}]) == [
        "mrt against base: it is right 6.7 points more often (95% 0.8 to 12.6); its pass@4 is 9.2 points lower "
        "(95% 0.2 to 18.0); its traces are 9.2 tokens longer (95% 0.3 to 18.1); no difference can be told in "
        "normalized regret at 208 tokens."
    ]
    [alike] = findings("a", [{"label": "b", "differences": [difference_of("pass_at_1", 0.1, math.nan, math.nan)]}])
    assert alike == "b against a: no difference can be told in pass@1."
    assert [verdict(d) for d in differences] == ["better", "worse", "worse", "", ""]


def test_cautions_bound_the_accuracy_of_truncated_traces():
    report = {
        "n_problems": 12, "n_traces": 40, "pass_at_1": {"value": 0.3, "n": 40},
        "counts": {"correct": 12, "wrong": 20, "no_answer": 0, "undecided": 0, "truncated": 8},
    }  # fmt: skip
    assert accuracy_bounds(report) == (0.3, 0.5)
    few, cut = cautions(report)
    assert few == "only 12 problems" and "20% of the traces were truncated" in cut and "0.30 and 0.50" in cut


def test_the_difference_curve_is_paired_and_its_band_is_around_it(one):
    other = run(seed=1)
    runs = [("a", one.table, one.report), ("b", other.table, other.report)]
    curve = compare(runs, [460])["difference_curve"]
    last = curve[-1]
    [told] = [d for d in compare(runs, [460])["runs"][1]["differences"] if d["quantity"] == "accuracy"]
    assert last["budget"] == 460 and last["value"] == pytest.approx(told["value"])
    assert all(low <= r["value"] <= high for r in curve for low, high in [r["band"]])
    assert all(r["band"][0] <= r["ci95"][0] + 1e-9 for r in curve if r["stderr"] > 0)


def test_labels_at_the_ends_of_lines_do_not_cover_each_other(one):
    spec = charts.budget_curve([(name, one.report) for name in "abc"]).to_dict()
    labels = spec["datasets"][spec["layer"][-1]["data"]["name"]]
    places = sorted(row["label_at"] for row in labels)
    assert {row["run"] for row in labels} == set("abc") and min(np.diff(places)) > 0


def test_charts_skip_what_is_not_known():
    report = {"budget_curve": [
        {"budget": 10, "accuracy": None, "stderr": None, "ci95": [None, None], "n": 0},
        {"budget": 20, "accuracy": 0.5, "stderr": math.nan, "ci95": [math.nan, math.nan], "n": 4},
        {"budget": 30, "accuracy": 0.6, "stderr": 0.1, "ci95": [0.4, 0.8], "n": 4},
    ]}  # fmt: skip
    spec = charts.budget_curve([("a", report)]).to_dict()
    band, line = ([row["budget"] for row in spec["datasets"][layer["data"]["name"]]] for layer in spec["layer"])
    assert (band, line) == ([30], [20, 30])
    assert "NaN" not in json.dumps(spec)


def test_a_run_without_episodes_has_a_page_and_charts(tmp_path):
    r = run(PROBLEMS[:2], values={p.id: [0.5] for p in PROBLEMS})
    assert r.report["progress"] == []
    charts.save(charts.progress([("a", r.report)]), tmp_path / "progress.png", "png")
    assert [len(t["boundaries"]) for t in embedded(page(r))["traces"]] == [1] * 6


def test_charts_of_several_runs_name_and_colour_each(one):
    reports = [("a", one.report), ("b", one.report)]
    for chart in (charts.budget_curve, charts.normalized_regret, charts.progress):
        colour = chart(reports).to_dict()["layer"][-1]["encoding"]["color"]
        assert colour["scale"]["domain"] == ["a", "b"]
        assert len(set(colour["scale"]["range"])) == 2
        assert (colour["legend"] is not None) == (chart is charts.progress)  # lines are labelled at their ends
        assert chart(reports[:1]).to_dict()["layer"][-1]["encoding"]["color"]["legend"] is None


def test_votes_over_several_traces_are_a_chart_and_a_table_where_a_report_has_them(one):
    assert "several_traces" not in charts.all_charts([("a", one.report)])
    at = [{"k": k, "tokens": 200.0 * k, "value": 0.4 + k / 10, "stderr": 0.1, "ci95": [0.2, 0.8]} for k in (1, 2)]
    unknown = {"k": 4, "tokens": 800.0, "value": math.nan, "stderr": math.nan, "ci95": [math.nan, math.nan]}
    report = {**one.report, "maj_at_k": [*at, unknown], "pass_at_k": at}
    spec = charts.all_charts([("a", report), ("b", one.report)])["several_traces"][1].to_dict()
    bars, lines, points = (spec["datasets"][layer["data"]["name"]] for layer in spec["layer"])
    assert points == lines
    assert [(r["run"], r["quantity"], r["tokens"], r["low"]) for r in lines] == [
        ("a", quantity, tokens, 0.2) for quantity in ("majority of k", "any of k") for tokens in (200.0, 400.0)
    ]
    assert len(bars) == 4
    html = page(one._replace(report=report))
    assert "Majority of k traces" in html and "0.60 ± 0.10" in html
    assert "several_traces" in embedded(html)["charts"]


def test_a_chart_is_saved_as_png(one, tmp_path):
    charts.save(charts.progress([("a", one.report)]), tmp_path / "progress.png", "png")
    assert (tmp_path / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_text_that_hides_is_written_out():
    assert visible("a\u202eb\x00c\u2028\u200b\ud800\U000e0041") == r"a\u202eb\x00c\u2028\u200b\ud800\U000e0041"
    assert visible("Zeile\n\tÄ 中 ≤ 🙂 \\u202e") == "Zeile\n\tÄ 中 ≤ 🙂 \\u202e"


def test_hostile_text_is_never_raw_in_a_page(hostile):
    reports = [(PAYLOAD + "\u202e", hostile.report), ("b", hostile.report)]
    comparison = compare([(label, hostile.table, report) for label, report in reports], [100])
    problems = {p.id: p for p in [Problem(HOSTILE, HOSTILE, HOSTILE)]}
    for html in (page(hostile, problems=problems), render_compare(comparison, reports)):
        for raw in ("<script>document", "<img src=x", "</pre><!--", "\u202e", "\x00", "\u2028", "\u200b"):
            assert raw not in html
        assert html.count("<script") == html.count("</script") == 3  # the data, Vega, ours
        assert "&lt;script&gt;document" in html
        assert r"\u003cscript\u003edocument" in html
        assert r"\\u202e" in html
    assert visible(HOSTILE) in {trace["question"] for trace in embedded(page(hostile, problems=problems))["traces"]}


def test_the_policy_allows_only_our_scripts(one):
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page(one))
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe-eval" not in policy[1]
    assert "http" not in policy[1]


def test_the_page_says_what_was_measured_and_how_well(one):
    html = page(one)
    assert plus_minus(one.report["pass_at_1"]) in html
    assert f"n = {one.report['pass_at_1']['n']} traces, {len(PROBLEMS)} problems" in html
    assert one.report["comparator"] in html
    for outcome, count in one.report["counts"].items():
        assert f"<b>{count}</b> {outcome.replace('_', ' ')}" in html
    assert f"<b>{len(one.branches)}</b> sampled" in html
    assert html.count('<tr><th scope="row">') == len(one.report["budget_curve"])


def test_a_report_read_from_disk_makes_the_same_page():
    r = run(PROBLEMS[:1])  # one problem: no error is known
    read = json.loads(re.sub(r"\bNaN\b", "null", json.dumps(r.report)))
    assert page(r) == page(r._replace(report=read))
    assert "± –" in page(r)


def test_the_explorer_has_each_episode_between_its_boundaries(one):
    traces = embedded(page(one, problems={p.id: p for p in PROBLEMS}))["traces"]
    assert len(traces) == len(one.traces)
    for shown, trace, curve in zip(traces, one.traces, one.table.curves, strict=True):
        assert "".join(e["text"] for e in shown["episodes"]) == trace.thought
        assert trace.thought + shown["after"] == trace.text
        assert len(shown["boundaries"]) == len(shown["episodes"]) + 1
        assert [b["value"] for b in shown["boundaries"]] == curve.values.values.tolist()
        for j, e in enumerate(shown["episodes"]):
            before, after = shown["boundaries"][j], shown["boundaries"][j + 1]
            assert e["progress"] == pytest.approx(after["value"] - before["value"])
        for b in shown["boundaries"]:
            assert len(b["branches"]) == b["n"] == 4
            assert sum(branch["verdict"] == "right" for branch in b["branches"]) == 4 * b["value"]
        assert shown["question"].startswith("What is")


def test_a_page_without_room_for_all_traces_has_the_first_of_each_problem(one):
    copies = 34
    first = [i for i, t in enumerate(one.traces) if t.index == 0]
    many = [(i, k) for i in first for k in range(copies)]
    traces = [msgspec.structs.replace(one.traces[i], index=k) for i, k in many]
    drawn = [msgspec.structs.replace(b, index=k) for b in one.branches if b.index == 0 for k in range(copies)]
    long = Run(run_table(traces, drawn, cut), traces, drawn, {**one.report, "n_traces": len(many)})
    assert len(embedded(page(long))["traces"]) == 204
    html = page(long, limit=1_500)
    data = embedded(html)
    shown = data["traces"]
    assert sum(map(len, data["explorer"]["blocks"])) <= 1_500
    assert 6 < len(shown) < 204
    assert f"{len(shown)} of 204 traces" in html
    common = len(shown) // len(PROBLEMS)
    assert {t["problem"] for t in shown if t["index"] == common - 1} == {f"p{i}" for i in range(6)}
    assert max(t["index"] for t in shown) <= common
    assert [(t["problem"], t["index"]) for t in shown] == sorted((t["problem"], t["index"]) for t in shown)


@pytest.mark.browser
def test_pages_open_in_a_browser_without_a_network(hostile, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    label = f"a {PAYLOAD}"
    comparison = compare([(x, hostile.table, hostile.report) for x in (label, "b")], [100])
    pages = {
        "report": page(hostile, problems={HOSTILE: Problem(HOSTILE, HOSTILE, HOSTILE)}),
        "compare": render_compare(comparison, [(label, hostile.report), ("b", hostile.report)]),
    }
    for name, html in pages.items():
        file = tmp_path / f"{name}.html"
        file.write_text(html, encoding="utf-8")
        seen = subprocess.run(
            [chromium, *CHROMIUM, f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        console = [line for line in seen.stderr.splitlines() if "CONSOLE" in line]
        assert not [line for line in console if re.search("error|refused|uncaught|violat", line, re.IGNORECASE)]
        tags, texts = dom(seen.stdout)
        # the charts and the menu button of each, and the value line of the open trace
        assert tags.count("svg") == (2 * 3 + 1 if name == "report" else 2 * 4)
        assert (tags.count("script"), tags.count("img")) == (3, 0)
        assert visible(HOSTILE) in "".join(texts)
        assert "owned" not in texts
