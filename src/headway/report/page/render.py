"""Reports as pages: one self-contained HTML file each, which needs no network.

All text of models, problems and labels is hostile: it is escaped, invisible characters are written out, and the
content security policy allows only the scripts put in here, by their hashes.
"""

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert

from headway import __version__
from headway.report.numbers.comparison import difference_rows, estimate_rows
from headway.report.numbers.diagnosis import USES
from headway.report.numbers.findings import cautions
from headway.report.numbers.table import branch_counts
from headway.report.page import charts
from headway.report.page.explorer import LIMIT, PageRun, explorer
from headway.report.quantities import headline, usage_rows, verdict
from headway.report.text import interval, is_known, number, plus_minus, visible

SCRIPTS = ("page.js", "trace.js", "explorer.js")
# a chart on the page is as wide as its container
FIT = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def render_run(run: PageRun, *, limit: int = LIMIT) -> str:
    """The content of report.html for one run, with at most `limit` bytes of traces."""
    counts = run.report.get("branches") or branch_counts(run.table)
    return _render([(run.label, run.report)], [run], limit, branch_counts=counts)


def render_compare(
    comparison: dict[str, Any], labelled_reports: charts.Reports, shown: Sequence[PageRun] = (), *, limit: int = LIMIT
) -> str:
    """The content of report.html for what `compare` returned, with at most `limit` bytes of traces of `shown`."""
    tables = {"estimates": estimate_rows(comparison), "differences": difference_rows(comparison)}
    return _render(labelled_reports, shown, limit, comparison=comparison, **tables)


def _render(reports: charts.Reports, shown: Sequence[PageRun], limit: int, **context: Any) -> str:
    folder = resources.files("headway").joinpath("report/page")
    scripts = [_bundle(), "\n".join(folder.joinpath(name).read_text("utf-8") for name in SCRIPTS)]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    # Vega interprets its expressions (`ast` in page.js), so no 'unsafe-eval'; Vega-Embed writes style elements
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headway", "report/page"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=lambda value: visible(value) if type(value) is str else value,
    )  # fmt: skip
    # `tojson` writes <, >, & and ' as \u003c and so on, and all that is not ASCII; NaN is no JSON
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(plus_minus=plus_minus, interval=interval, number=number, verdict=verdict)
    named = [(visible(label), report) for label, report in reports]
    figures = charts.all_charts(named, context.get("comparison"))
    traces = explorer(shown, limit=limit) if shown else None
    return environment.get_template("page.html.jinja").render(
        data={"charts": {name: chart.to_dict() | FIT for name, (_, chart) in figures.items()}, "explorer": traces},
        policy=policy, scripts=scripts, reports=named, version=__version__,
        figures={name: caption for name, (caption, _) in figures.items()},
        headline=headline(named[0][1]), cautions=cautions(named[0][1]),
        uses=USES, token_use=_token_use(named), usage=usage_rows(named, context.get("comparison")), shown=traces,
        **{"comparison": None, "branch_counts": None, **context},
    )  # fmt: skip


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that is safe within HTML."""
    version = alt.SCHEMA_VERSION.rsplit(".", 1)[0]
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    # within JavaScript these occur only in strings and patterns, where the backslash changes nothing
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _token_use(reports: charts.Reports) -> list[tuple[str, list[tuple[dict[str, Any], float]]]]:
    """Each run's uses of tokens, with their widths in percent of the longest mean trace of all runs."""
    known = [(label, report["token_use"]) for label, report in reports if "token_use" in report]
    amounts = [[e["value"] if is_known(e["value"]) else 0.0 for e in entries] for _, entries in known]
    # the last use, forced answers, is not part of a trace
    most = max((sum(row[:-1]) for row in amounts), default=0.0) or 1.0
    return [
        (label, [(e, round(100 * amount / most, 2)) for e, amount in zip(entries, row, strict=True)])
        for (label, entries), row in zip(known, amounts, strict=True)
    ]
