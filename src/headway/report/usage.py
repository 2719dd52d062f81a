"""How well the thinking was used, as a table: overthinking, when the answer was settled, thrift beside another run."""

from collections.abc import Sequence
from typing import Any

from headway.report.text import interval, is_known, plus_minus

# where a quantity is in report.json, how people call it, and its decimals
QUANTITIES: tuple[tuple[tuple[str, ...], str, int], ...] = (
    (("overthinking", "gain"), "accuracy to gain by stopping earlier, noise taken off", 3),
    (("overthinking", "raw"), "traces whose value was higher earlier, noise and all", 2),
    (("settled", "share_after"), "share of the thinking after the answer was settled", 2),
    (("budget_to_90",), "budget for 90% of the final accuracy, tokens", 0),
    (("calibration",), "spread of values over what their errors say (1 is right)", 2),
)


def usage_rows(reports: Sequence[tuple[str, dict[str, Any]]], comparison: dict[str, Any] | None) -> list[list[str]]:
    """A header and a row for each quantity that a report has, with a cell `0.041 ± 0.012 (95% 0.017 to 0.065)` a run.

    Where runs are compared, how many times the tokens of each run the first one needs for the highest accuracy by
    majority that both reach.

    Args:
        reports: Label and report.json of each run.
        comparison: What `compare` returned, or None.
    """
    rows = [["", *(label for label, _ in reports)]]
    for path, name, digits in QUANTITIES:
        entries = [_at(report, path) for _, report in reports]
        if any(entries):
            rows.append([name, *(_cell(entry, digits) for entry in entries)])
    thrift = {r["label"]: r for r in (comparison or {}).get("token_efficiency", ()) if r["highest"]}
    if thrift:
        name = f"times its tokens that {reports[0][0]} needs for the same accuracy (maj@k)"
        rows.append([name, *(_cell(thrift.get(label), 2) for label, _ in reports)])
    return rows


def _at(report: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    for name in path:
        report = report.get(name) or {}
    return report or None


def _cell(entry: dict[str, Any] | None, digits: int) -> str:
    if entry is None or not is_known(entry["value"]):
        return "–"
    return f"{plus_minus(entry, digits)} (95% {interval(entry, digits)})"
