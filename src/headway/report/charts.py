"""Charts of reports, as Altair specifications: the same for one run and for several, on the page and as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import altair as alt

from headway.report.text import is_known

Reports = Sequence[tuple[str, dict[str, Any]]]
Row = dict[str, Any]

# Okabe and Ito's colour-blind-safe colours; those that stand out on white and on black come first
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
WIDTH, HEIGHT = 440, 260


def budget_curve(reports: Reports) -> alt.LayerChart:
    """Accuracy at each budget, a step from one budget to the next, with pointwise 95% intervals.

    Args:
        reports: Label and report (`summarize`) of each run.
    """
    return _over_budgets(reports, "budget_curve", "accuracy", title="Accuracy", interpolate="step-after")


def normalized_regret(reports: Reports) -> alt.LayerChart:
    """Normalized regret up to each budget, with pointwise 95% intervals; lower is better.

    Args:
        reports: Label and report (`summarize`) of each run.
    """
    return _over_budgets(reports, "normalized_regret", "value", title="Normalized regret", interpolate="linear")


def progress(reports: Reports) -> alt.LayerChart:
    """The mean progress of each episode over the traces that have it, with 95% intervals and a line at zero.

    The intervals of episodes that few traces have may run out of the frame, so that the others can be read.

    Args:
        reports: Label and report (`summarize`) of each run.
    """
    rows = _rows(reports, "progress", "episode", "value")
    sure = [row for row in rows if row["low"] is not None]
    most = max((row["n"] for row in rows), default=0)
    common = [row[end] for row in sure if 4 * row["n"] >= most for end in ("low", "high")]
    seen = [0.0, *common, *(row["value"] for row in rows)]
    lowest, highest = (min(seen), max(seen)) if any(seen) else (-1.0, 1.0)
    frame = alt.Scale(domain=[max(-1.0, lowest), min(1.0, highest)], nice=True)
    colour = _colour(reports)
    x = alt.X("episode:O", title="Episode", axis=alt.Axis(labelAngle=0, labelOverlap=True, grid=False))
    beside = alt.XOffset("run:N", scale=alt.Scale(domain=[label for label, _ in reports]))
    y, low = (alt.Y(f"{name}:Q", title="Progress", scale=frame) for name in ("value", "low"))
    zero = _chart([{"zero": 0}]).mark_rule(color="#888888").encode(y="zero:Q")
    bars = (
        _chart(sure)
        .mark_rule(strokeWidth=1.5, clip=True)
        .encode(x=x, xOffset=beside, y=low, y2="high:Q", color=colour)
    )
    points = (
        _chart(rows)
        .mark_point(filled=True, size=40, opacity=1)
        .encode(x=x, xOffset=beside, y=y, color=colour, tooltip=_tooltip("episode", "n"))
    )
    return _finish(alt.LayerChart(layer=[zero, bars, points]), "Mean progress of each episode, with 95% intervals")


def save_png(chart: alt.LayerChart, path: Path) -> None:
    """Writes a chart as PNG at twice its size in pixels; no browser is needed."""
    chart.save(path, format="png", scale_factor=2)


def _over_budgets(
    reports: Reports, series: str, name: str, *, title: str, interpolate: Literal["step-after", "linear"]
) -> alt.LayerChart:
    rows = _rows(reports, series, "budget", name)
    colour = _colour(reports)
    most = max((row["budget"] for row in rows), default=1)
    x = alt.X("budget:Q", title="Budget (completion tokens)", scale=alt.Scale(domain=[0, most], nice=False))
    unit = alt.Scale(domain=[0, 1])
    bands = (
        _chart([row for row in rows if row["low"] is not None])
        .mark_area(interpolate=interpolate, opacity=0.18, clip=True)
        .encode(x=x, y=alt.Y("low:Q", title=title, scale=unit), y2="high:Q", color=colour)
    )
    lines = (
        _chart(rows)
        .mark_line(interpolate=interpolate, strokeWidth=2, point=alt.OverlayMarkDef(size=22, opacity=1))
        .encode(x=x, y=alt.Y("value:Q", title=title, scale=unit), color=colour, tooltip=_tooltip("budget"))
    )
    return _finish(alt.LayerChart(layer=[bands, lines]), f"{title} at each budget, with 95% intervals")


def _rows(reports: Reports, series: str, x: str, name: str) -> list[Row]:
    """A row for each point that is known; `low` and `high` are None where the interval is not."""
    rows = []
    for label, report in reports:
        for point in report[series]:
            if is_known(point[name]):
                low, high = point["ci95"] if is_known(point["ci95"][0]) else (None, None)
                values = {"value": point[name], "low": low, "high": high, "n": point["n"]}
                rows.append({"run": label, x: point[x], **values})
    return rows


def _chart(rows: list[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def _colour(reports: Reports) -> alt.Color:
    labels = [label for label, _ in reports]
    legend = alt.Legend(title=None, orient="top", labelLimit=320, columns=2, symbolType="stroke", symbolOpacity=1)
    scale = alt.Scale(domain=labels, range=[COLOURS[i % len(COLOURS)] for i in range(len(labels))])
    return alt.Color("run:N", scale=scale, legend=legend if len(labels) > 1 else None)


def _tooltip(*names: str) -> list[alt.Tooltip]:
    numbers = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    return [alt.Tooltip("run:N"), *(alt.Tooltip(f"{name}:Q") for name in names), *numbers]


def _finish(chart: alt.LayerChart, description: str) -> alt.LayerChart:
    return (
        chart.properties(width=WIDTH, height=HEIGHT, description=description)
        .configure_view(stroke=None)
        .configure_axis(gridOpacity=0.6, labelFontSize=11, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelFontSize=12)
    )
