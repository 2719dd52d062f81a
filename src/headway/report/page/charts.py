"""Charts of reports, as Altair specifications: the same for one run and for several, on the page and as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import altair as alt

from headway.report.text import is_known, visible

Reports = Sequence[tuple[str, dict[str, Any]]]  # label and report (`summarize`) of each run
Row = dict[str, Any]
Picture = Literal["png", "svg", "pdf"]

# the colour-blind-safe palette of Okabe and Ito; those with contrast on white and on black come first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
WIDTH, HEIGHT = 440, 260
FEW = 10  # traces without which a point is faint
SEVERAL = {"maj_at_k": "majority of k", "pass_at_k": "any of k"}


def budget_curve(reports: Reports) -> alt.LayerChart:
    """Accuracy at each budget as a step function; of one run with simultaneous 95% bands."""
    return _over_budgets(reports, "budget_curve", "accuracy", title="Accuracy", interpolate="step-after")


def normalized_regret(reports: Reports) -> alt.LayerChart:
    """Normalized regret up to each budget, lower is better; of one run with simultaneous 95% bands."""
    return _over_budgets(reports, "normalized_regret", "value", title="Normalized regret", interpolate="linear")


def difference(reports: Reports, records: Sequence[Row]) -> alt.LayerChart:
    """The accuracy of each run minus that of the first, paired by problem, with simultaneous 95% bands.

    `records` are compare.json's `difference_curve`.
    """
    rows = [
        {
            "run": visible(r["label"]),
            "budget": r["budget"],
            "value": r["value"],
            "low": r["band"][0],
            "high": r["band"][1],
        }
        for r in records
        if is_known(r["value"])
    ]
    title = f"Accuracy minus that of {reports[0][0]}"
    return _lines(rows, reports, title=title, interpolate="step-after", bands=True, zero=True)


def progress(reports: Reports) -> alt.LayerChart:
    """The mean progress of each episode over the traces that have it, with 95% intervals and a line at zero.

    The intervals of episodes that few traces have may be clipped, so that the others stay readable; with fewer than
    `FEW` traces they are faint.
    """
    rows, bounded = _rows(reports, "progress", "episode", "value")
    most = max((row["n"] for row in rows), default=0)
    common = [row[end] for row in bounded if 4 * row["n"] >= most for end in ("low", "high")]
    seen = [0.0, *common, *(row["value"] for row in rows)]
    lowest, highest = (min(seen), max(seen)) if any(seen) else (-1.0, 1.0)
    frame = alt.Scale(domain=[max(-1.0, lowest), min(1.0, highest)], nice=True)
    x = alt.X("episode:O", title="Episode", axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False))
    beside = alt.XOffset("run:N", scale=alt.Scale(domain=[label for label, _ in reports]))
    y, low = (alt.Y(f"{name}:Q", title="Progress", scale=frame) for name in ("value", "low"))
    points = _chart(rows, reports).mark_point(filled=True, size=40)
    faint = alt.condition(alt.datum.n < FEW, alt.value(0.25), alt.value(1.0))
    layers = [
        alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color="#888888").encode(y="zero:Q"),
        _chart(bounded, reports)
        .mark_rule(strokeWidth=1.5, clip=True)
        .encode(x=x, xOffset=beside, y=low, y2="high:Q", opacity=faint),
        points.encode(x=x, xOffset=beside, y=y, opacity=faint, tooltip=_tooltip("episode", "n")),
    ]
    return _finish(layers, "Mean progress of each episode, with 95% intervals")


def several_traces(reports: Reports) -> alt.LayerChart:
    """maj@k and pass@k against the total tokens of k traces; reports without them are left out."""
    rows, bounded = list[Row](), list[Row]()
    for series, name in SEVERAL.items():
        having = [(label, r) for label, r in reports if series in r]
        for found, more in zip((rows, bounded), _rows(having, series, "tokens", "value", also="k"), strict=True):
            found.extend({**row, "quantity": name} for row in more)
    x = alt.X("tokens:Q", title="Tokens of k traces", scale=alt.Scale(zero=True, nice=False))
    y, low = (alt.Y(f"{name}:Q", title="Accuracy", scale=alt.Scale(domain=[0, 1])) for name in ("value", "low"))
    scale = alt.Scale(domain=list(SEVERAL.values()), range=[[1, 0], [5, 4]])
    legend = alt.Legend(title=None, orient="bottom", symbolType="stroke", symbolSize=400)
    dash = alt.StrokeDash("quantity:N", scale=scale, legend=legend)
    # separate points: points on the lines would hide their dashes in the legend
    points = _chart(rows, reports).mark_point(filled=True, size=30, opacity=1)
    layers = [
        _chart(bounded, reports).mark_rule(strokeWidth=1, opacity=0.5, clip=True).encode(x=x, y=low, y2="high:Q"),
        _chart(rows, reports).mark_line(strokeWidth=2).encode(x=x, y=y, strokeDash=dash),
        points.encode(x=x, y=y, tooltip=[alt.Tooltip("quantity:N"), *_tooltip("k", "tokens")]),
    ]
    return _finish(layers, "Accuracy of k traces against their tokens, with 95% intervals")


def all_charts(reports: Reports, comparison: Row | None = None) -> dict[str, tuple[str, alt.LayerChart]]:
    """The charts whose numbers these reports, or a comparison of them (compare.json), have: by name, with captions."""
    drawn = {"budget_curve": ("Accuracy at each budget, if thinking is stopped there.", budget_curve(reports))}
    if records := (comparison or {}).get("difference_curve"):
        caption = f"Accuracy minus that of {reports[0][0]}, paired by problem, with 95% bands over all budgets."
        drawn["difference"] = (caption, difference(reports, records))
    drawn |= {
        "normalized_regret": ("Normalized regret up to each budget: lower is better.", normalized_regret(reports)),
        "progress": (
            "Progress of each episode: mean change of value (faint: fewer than 10 traces).",
            progress(reports),
        ),
    }
    if any(report.get(series) for _, report in reports for series in SEVERAL):
        caption = "Several traces per problem: accuracy of the majority and of any of them, against their tokens."
        drawn["several_traces"] = (caption, several_traces(reports))
    return drawn


def save(chart: alt.LayerChart, path: Path, kind: Picture) -> None:
    """Writes a chart as PNG (with twice its size in pixels), SVG or PDF, without a browser."""
    chart.save(path, format=kind, scale_factor=2 if kind == "png" else 1)


def _over_budgets(
    reports: Reports, series: str, name: str, *, title: str, interpolate: Literal["step-after", "linear"]
) -> alt.LayerChart:
    rows, _ = _rows(reports, series, "budget", name)
    # bands of several runs lie on each other, and do not say whether the runs differ
    return _lines(rows, reports, title=title, interpolate=interpolate, bands=len(reports) == 1)


def _lines(
    rows: list[Row], reports: Reports, *, title: str, interpolate: Literal["step-after", "linear"], bands: bool,
    zero: bool = False,
) -> alt.LayerChart:  # fmt: skip
    """A line over budgets for each run, labelled at its end; the vertical axis fits what is drawn."""
    bounded = [row for row in rows if is_known(row["low"])] if bands else []
    seen = [row["value"] for row in rows] + [row[end] for row in bounded for end in ("low", "high")] + [0.0] * zero
    low, high = (min(seen), max(seen)) if seen else (0.0, 1.0)
    room = 0.05 * (high - low) or 0.05
    frame = alt.Scale(domain=[low - room if low - room > 0 or zero else min(0.0, low), high + room], nice=False)
    most = max((row["budget"] for row in rows), default=1)
    x = alt.X("budget:Q", title="Budget (completion tokens)", scale=alt.Scale(domain=[0, most], nice=False))
    y, lower = (alt.Y(f"{end}:Q", title=title, scale=frame) for end in ("value", "low"))
    point = alt.OverlayMarkDef(size=22, opacity=1)
    marks = _chart(rows, reports, legend=False).mark_line(interpolate=interpolate, strokeWidth=2, point=point)
    layers = [marks.encode(x=x, y=y, tooltip=_tooltip("budget"))]
    if bounded:
        area = _chart(bounded, reports, legend=False).mark_area(interpolate=interpolate, opacity=0.18, clip=True)
        layers.insert(0, area.encode(x=x, y=lower, y2="high:Q"))
    if zero:
        layers.insert(0, alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color="#888888").encode(y="zero:Q"))
    if len(reports) > 1:
        ends = _apart(
            [row for row in rows if row["budget"] == max(r["budget"] for r in rows if r["run"] == row["run"])],
            0.07 * (high - low + 2 * room),
        )
        text = _chart(ends, reports, legend=False).mark_text(align="left", dx=7, fontSize=12, limit=150)
        layers.append(text.encode(x=x, y=alt.Y("label_at:Q", title=title, scale=frame), text="run:N"))
    return _finish(layers, f"{title} at each budget" + ", with 95% bands" * bool(bounded))


def _apart(ends: list[Row], least: float) -> list[Row]:
    """The ends of lines with places for their labels, `label_at`, at least this far apart."""
    placed: list[Row] = []
    for row in sorted(ends, key=lambda r: r["value"]):
        at = max(row["value"], placed[-1]["label_at"] + least) if placed else row["value"]
        placed.append({**row, "label_at": at})
    return placed


def _rows(reports: Reports, series: str, x: str, name: str, *, also: str | None = None) -> tuple[list[Row], list[Row]]:
    """A row for each known point, and those with bounds: the simultaneous band if there is one, else the interval."""
    rows = []
    for label, report in reports:
        bands = report.get("bands", {}).get(series) or [point["ci95"] for point in report[series]]
        for point, (low, high) in zip(report[series], bands, strict=True):
            if is_known(point[name]) and point[x] is not None:
                ends = {"low": low, "high": high} if is_known(low) else {"low": None, "high": None}
                more = {also: point[also]} if also else {}
                rows.append({"run": label, x: point[x], "value": point[name], **ends, "n": point.get("n"), **more})
    return rows, [row for row in rows if row["low"] is not None]


def _chart(rows: list[Row], reports: Reports, *, legend: bool = True) -> alt.Chart:
    """A chart of rows in which each run has its colour."""
    labels = [label for label, _ in reports]
    named = alt.Legend(title=None, orient="top", labelLimit=320, columns=2, symbolType="stroke", symbolOpacity=1)
    scale = alt.Scale(domain=labels, range=[COLOURS[i % len(COLOURS)] for i in range(len(labels))])
    colour = alt.Color("run:N", scale=scale, legend=named if legend and len(labels) > 1 else None)
    return alt.Chart(alt.InlineData(values=rows)).encode(color=colour)


def _tooltip(*names: str) -> list[alt.Tooltip]:
    numbers = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    return [alt.Tooltip("run:N"), *(alt.Tooltip(f"{name}:Q") for name in names), *numbers]


def _finish(layers: list[alt.Chart], description: str) -> alt.LayerChart:
    return (
        alt.LayerChart(layer=layers)
        .properties(width=WIDTH, height=HEIGHT, description=description)
        .configure_view(stroke=None)
        .configure_axis(gridOpacity=0.6, labelFontSize=11, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelFontSize=12)
    )
