"""Reports as pages: one HTML file each, with everything inside, that opens without a network.

All that a model, a problem or a label says is hostile: it is escaped, its hidden characters are written out, and the
page may run only the scripts that were put into it here (their hashes are in its content security policy).
"""

import base64
import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert

from headway import stats
from headway.progress import progress, progress_stderr
from headway.prove import ValueCurve
from headway.report import charts
from headway.report.compare import difference_rows, estimate_rows
from headway.report.summary import Measured, branch_counts
from headway.report.text import interval, is_known, number, plus_minus, visible
from headway.types import Branch, Problem, Trace

MAX_TRACES = 200


def render_run(
    report: dict[str, Any],
    measured: Measured,
    branches: Sequence[Branch],
    *,
    problems: Mapping[str, Problem] | None = None,
) -> str:
    """The content of report.html: a run's numbers, charts, budget curve and its traces to look into.

    At most `MAX_TRACES` traces are put into the page, the first of each problem first.

    Args:
        report: What `summarize` returned, or report.json.
        measured: The run's traces with their curves.
        branches: The run's branches.
        problems: The questions and reference answers by id, to show beside the traces.
    """
    of_trace: dict[tuple[str, int], list[Branch]] = defaultdict(list)
    for branch in branches:
        of_trace[branch.problem_id, branch.index].append(branch)
    traces = [
        _trace(t, curve, of_trace[t.problem_id, t.index], (problems or {}).get(t.problem_id))
        for t, curve in _first_of_each(measured)
    ]
    accuracy, regret = report["budget_curve"], report["normalized_regret"]
    return _render(
        "run.html.jinja",
        {"charts": _charts([(report["model"], report)]), "traces": traces},
        report=report,
        headline=[
            ("pass@1", report["pass_at_1"], 3),
            ("tokens", report["tokens"], 1),
            ("episodes", report["episodes"], 2),
            (f"normalized regret at {regret[-1]['budget']} tokens", regret[-1], 3),
            ("accuracy without thinking", report["forced_at_start"], 3),
        ],
        budgets=list(zip(accuracy, regret, strict=True)),
        branch_counts=branch_counts(branches),
        shown=len(traces),
    )


def render_compare(comparison: dict[str, Any], labelled_reports: charts.Reports) -> str:
    """Several runs side by side: estimates, paired differences and charts with all runs.

    Args:
        comparison: What `compare` returned.
        labelled_reports: Label and report (`summarize`) of each run.
    """
    return _render(
        "compare.html.jinja",
        {"charts": _charts(labelled_reports)},
        comparison=comparison,
        estimates=estimate_rows(comparison),
        differences=difference_rows(comparison),
    )


def _render(template: str, data: dict[str, Any], **context: Any) -> str:
    scripts = [_bundle(), resources.files("headway").joinpath("report", "page.js").read_text("utf-8")]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # Vega interprets its expressions (`ast` in page.js), so no 'unsafe-eval'; Vega-Embed writes style elements
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headway", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    # `tojson` writes <, >, & and ' as \u003c and so on, and all that is not ASCII; NaN is no JSON
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(plus_minus=plus_minus, interval=interval, number=number)
    page = environment.get_template(template)
    return page.render(data=data, policy=policy, scripts=scripts, **context)


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that may stand in HTML."""
    version = alt.SCHEMA_VERSION.rsplit(".", 1)[0]
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    # within JavaScript these can only be in strings and patterns, where the backslash changes nothing
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _charts(reports: charts.Reports) -> dict[str, dict[str, Any]]:
    """The specification of each chart, by the id of its place in the page."""
    shown = [(visible(label), report) for label, report in reports]
    return {
        "budget-curve": charts.budget_curve(shown).to_dict(),
        "normalized-regret": charts.normalized_regret(shown).to_dict(),
        "progress": charts.progress(shown).to_dict(),
    }


def _first_of_each(measured: Measured) -> list[tuple[Trace, ValueCurve]]:
    """At most `MAX_TRACES` traces in the order they are in: every problem's first, then every second, and so on."""
    seen: dict[str, int] = defaultdict(int)
    turns = []
    for position, problem in enumerate(measured.problems):
        turns.append((seen[problem], position))
        seen[problem] += 1
    kept = sorted(position for _, position in sorted(turns)[:MAX_TRACES])
    return [(measured.traces[i], measured.curves[i]) for i in kept]


def _trace(trace: Trace, curve: ValueCurve, branches: list[Branch], problem: Problem | None) -> dict[str, Any]:
    """A trace as page.js reads it; None where a number is not known."""
    starts = [*trace.offsets, len(trace.text)]
    made = zip(
        itertools.pairwise(curve.boundaries),
        progress(curve.values.values),
        progress_stderr(curve.values.stderr),
        strict=True,
    )
    at_boundary: dict[int, list[Branch]] = defaultdict(list)
    for branch in sorted(branches, key=lambda b: (b.boundary, b.branch)):
        at_boundary[branch.boundary].append(branch)
    return {
        "problem": visible(trace.problem_id),
        "index": trace.index,
        "question": problem and visible(problem.prompt),
        "reference": problem and visible(problem.answer),
        "outcome": trace.outcome,
        "tokens": len(trace.token_ids),
        "thinking": trace.thinking,
        "answer": trace.answer and visible(trace.answer),
        "after": visible(trace.text[len(trace.thought) :]),
        "episodes": [
            {
                "start": start,
                "stop": stop,
                "text": visible(trace.text[starts[start] : starts[stop]]),
                "progress": _or_none(gain),
                "stderr": _or_none(error),
            }
            for (start, stop), gain, error in made
        ],
        "boundaries": [
            {
                "budget": _or_none(budget),
                "value": _or_none(value),
                "stderr": _or_none(error),
                "n": int(n),
                "ci95": [_or_none(end) for end in _ci95(value, error, int(n), curve.kind)],
                "branches": [{"text": visible(b.text), "verdict": _verdict(b)} for b in at_boundary[j]],
            }
            for j, (budget, value, error, n) in enumerate(zip(curve.tokens, *curve.values, strict=True))
        ],
    }


def _ci95(value: float, error: float, n: int, kind: str) -> tuple[float, float]:
    """The interval of one value: Wilson's where it is a proportion of n branches."""
    return stats.wilson(value * n, n) if kind == "branches" else (value - 1.96 * error, value + 1.96 * error)


def _verdict(branch: Branch) -> str:
    if branch.reward is None:
        return "undecided"
    if branch.reward > 0:
        return "right"
    return "wrong" if branch.answer else "no answer"


def _or_none(value: float) -> float | None:
    return float(value) if is_known(value) else None
