"""Figures of a study, as Altair specifications: gains, regret against budgets, and success during training."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from headway.report.numbers.study import START, Cells
from headway.report.page.charts import COLOURS
from headway.report.page.study_page import Rows

WIDTH, HEIGHT = 260, 200
Row = dict[str, Any]


def figures(rows: Rows, cells: Cells) -> dict[str, tuple[str, alt.TopLevelMixin]]:
    """The figures of a study by file name, each with its title."""
    return {
        "gains": ("Gain in pass@1 over the start, with 95% intervals over seeds and problems", gains(rows)),
        "regret": ("Normalized regret up to each budget, means over seeds", regret(rows, cells)),
        "training": ("Success during training against sampled tokens, means over seeds", training(rows, cells)),
    }


def gains(rows: Rows) -> alt.TopLevelMixin:
    """The gain of each method in each setting."""
    found: list[Row] = []
    for setting in rows.settings:
        for method in rows.methods(setting):
            record = rows.get(setting, method, "pass_at_1", "gain")
            if record is not None and record["value"] is not None:
                low, high = record["ci95"]
                found.append(
                    {"setting": setting, "method": rows.labels[method], "gain": record["value"]}
                    | {"low": low, "high": high}
                )
    order = list(rows.labels.values())
    data = alt.InlineData(values=found)
    base = alt.Chart(data).encode(y=alt.Y("method:N", sort=order, title=None))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="Gain in pass@1"), x2="high:Q")
    points = base.mark_point(filled=True, size=50, opacity=1).encode(x="gain:Q")
    zero = alt.Chart(data).mark_rule(color="#888888").encode(x=alt.datum(0))
    layers = alt.layer(zero, bars, points, data=data).properties(width=WIDTH)
    return _finish(layers.facet(column=alt.Column("setting:N", sort=rows.settings, title=None)))


def regret(rows: Rows, cells: Cells) -> alt.TopLevelMixin:
    """Mean regret against budgets."""
    found = []
    for setting, methods in cells.items():
        for method, by_seed in methods.items():
            curves = [c["tests"]["curves"]["mean_curve"] for c in by_seed.values()]
            for i, budget in enumerate(curves[0]["budget"]):
                value = sum(c["regret"][i] for c in curves) / len(curves)
                found.append({"setting": setting, "method": rows.labels[method], "x": budget, "y": round(value, 4)})
    return _lines(rows, found, x="Budget (completion tokens)", y="Normalized regret")


def training(rows: Rows, cells: Cells) -> alt.TopLevelMixin:
    """Mean reward in training against sampled tokens."""
    found = []
    for setting, methods in cells.items():
        for method, by_seed in methods.items():
            logs = [c["training"] for c in by_seed.values() if "reward" in c["training"]]
            for i in range(min((len(log["step"]) for log in logs), default=0)) if method != START else ():
                spent, reward = (_mean(log[name][i] for log in logs) for name in ("mrt/generated_tokens", "reward"))
                found.append({"setting": setting, "method": rows.labels[method], "x": spent, "y": reward})
    return _lines(rows, found, x="Sampled tokens", y="Success in training")


def _lines(rows: Rows, found: list[Row], *, x: str, y: str) -> alt.TopLevelMixin:
    there: Mapping[str, None] = dict.fromkeys(row["method"] for row in found)
    names = [label for label in rows.labels.values() if label in there]
    scale = alt.Scale(domain=names, range=[COLOURS[i % len(COLOURS)] for i in range(len(names))])
    legend = alt.Legend(title=None, orient="top", columns=4, symbolType="stroke", labelLimit=240)
    dashes = alt.Scale(domain=names, range=[[1, 0] if i < len(COLOURS) else [4, 2] for i in range(len(names))])
    lines = alt.Chart(alt.InlineData(values=found)).mark_line(strokeWidth=1.5).encode(
        x=alt.X("x:Q", title=x, axis=alt.Axis(format="~s", tickCount=5)),
        y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=False)),
        color=alt.Color("method:N", scale=scale, legend=legend),
        strokeDash=alt.StrokeDash("method:N", scale=dashes, legend=None),
    )  # fmt: skip
    sized = lines.properties(width=WIDTH, height=HEIGHT)
    faceted = sized.facet(column=alt.Column("setting:N", sort=rows.settings, title=None))
    return _finish(faceted.resolve_scale(y="independent", x="independent"))


def _finish(chart: alt.FacetChart) -> alt.TopLevelMixin:
    return chart.configure_view(stroke=None).configure_axis(gridOpacity=0.6)


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return float(f"{sum(known) / len(known):.5g}") if known else None
