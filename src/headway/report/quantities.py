"""The main quantities of a report, one row each: name, label, digits, and the views that show it.

The terminal, the page's headline and report.md show the "headline" quantities, the table "How well the tokens were
used" those of "usage", a comparison what it computes.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from headway.report.text import UNKNOWN, interval, is_known, plus_minus

View = Literal["headline", "usage"]
Report = dict[str, Any]


class Quantity(NamedTuple):
    """A quantity's label, the digits after its decimal point, the views that show it, and what is better."""

    label: str
    digits: int
    views: tuple[View, ...] = ()
    better: Literal[1, 0, -1] = 0  # higher, neither, lower


# by the name in report.json (a dot leads into an entry; of a list, the last entry counts) and in compare.json
QUANTITIES: dict[str, Quantity] = {
    "pass_at_1": Quantity("pass@1", 3, ("headline",), better=1),
    "pass_at_k": Quantity("pass@{k}", 3, better=1),
    "maj_at_k": Quantity("maj@{k}", 3, better=1),
    "forced_at_start": Quantity("accuracy without thinking", 3, ("headline",)),
    "accuracy": Quantity("accuracy at {budget} tokens", 3, better=1),
    "normalized_regret": Quantity("normalized regret at {budget} tokens", 3, ("headline",), better=-1),
    "episodes": Quantity("episodes", 2, ("headline",)),
    "tokens": Quantity("tokens", 1, ("headline",), better=-1),
    "thinking_tokens": Quantity("thinking tokens", 1),
    "spacing": Quantity("tokens between boundaries", 1),
    "overthinking.gain": Quantity("accuracy gained by stopping at the best boundary (cross-fitted)", 3, ("usage",)),
    "overthinking.raw": Quantity("traces with a higher value earlier (uncorrected)", 2, ("usage",)),
    "settled.share_after": Quantity("share of the thinking after the answer has settled", 2, ("usage",)),
    "budget_to_90": Quantity("budget for 90% of the final accuracy, tokens", 0, ("usage",)),
    "escapes": Quantity("forced answers that think again or are cut", 3, ("usage",)),
    "calibration": Quantity(
        "observed over predicted variance of the values (1 = error bars are calibrated)", 2, ("usage",)
    ),
}


class Row(NamedTuple):
    """A quantity as a view shows it: `estimates` has an entry for each report, None where the report has none."""

    label: str
    estimates: list[dict[str, Any] | None]
    digits: int


def place(name: str, at: int | None) -> dict[str, int | None]:
    """The entries of a record of compare.json for the budget of a quantity (None: it has none), or its k."""
    return {"budget": None, "k": at} if "{k}" in QUANTITIES[name].label else {"budget": at}


def label_of(record: dict[str, Any]) -> str:
    """The label of a record's quantity, with the budget or the number of traces that it is at, if any."""
    return QUANTITIES[record["quantity"]].label.format(budget=record.get("budget"), k=record.get("k"))


def verdict(difference: dict[str, Any]) -> Literal["better", "worse", "differs", ""]:
    """What a difference is if its 95% interval leaves out 0; empty if it does not."""
    low, high = difference["ci95"]
    if not (is_known(low) and (low > 0 or high < 0)):
        return ""
    direction = QUANTITIES[difference["quantity"]].better * (1 if low > 0 else -1)
    return "better" if direction > 0 else "worse" if direction < 0 else "differs"


def shown_in(view: View, reports: Sequence[Report]) -> list[Row]:
    """The quantities of a view that at least one of the reports has."""
    rows = []
    for name, quantity in QUANTITIES.items():
        estimates = [_at(report, name) for report in reports]
        there = [estimate for estimate in estimates if estimate]
        if view in quantity.views and there:
            rows.append(Row(label_of({"quantity": name, **there[0]}), estimates, quantity.digits))
    return rows


def headline(report: Report) -> list[tuple[str, dict[str, Any], int, dict[str, Any] | None]]:
    """Label, estimate, digits, and the estimate with its errors for these very problems, of each headline quantity."""
    these = {row.label: row.estimates[0] for row in shown_in("headline", [report.get("these_problems", {})])}
    rows = shown_in("headline", [report])
    return [(label, e, digits, these.get(label)) for label, [e], digits in rows if e is not None]


def usage_rows(reports: Sequence[tuple[str, Report]], comparison: dict[str, Any] | None) -> list[list[str]]:
    """A header and a row for each usage quantity, with a cell `0.041 ± 0.012 (95% 0.017 to 0.065)` for each run.

    Where runs are compared (`compare`), the last row is their token efficiency: the tokens that the first run needs
    per token of each other run, at the highest maj@k that both reach.
    """
    rows = [["", *(label for label, _ in reports)]]
    for label, estimates, digits in shown_in("usage", [report for _, report in reports]):
        rows.append([label, *(_cell(estimate, digits) for estimate in estimates)])
    efficiency = {r["label"]: r for r in (comparison or {}).get("token_efficiency", ()) if r["highest"]}
    if efficiency:
        name = f"tokens {reports[0][0]} needs per token of this run, at equal maj@k"
        rows.append([name, *(_cell(efficiency.get(label), 2) for label, _ in reports)])
    return rows


def _at(report: Report, name: str) -> dict[str, Any] | None:
    found: Any = report
    for part in name.split("."):
        found = found.get(part) or {}
    return (found[-1] if isinstance(found, list) else found) or None


def _cell(estimate: dict[str, Any] | None, digits: int) -> str:
    if estimate is None or not is_known(estimate["value"]):
        return UNKNOWN
    return f"{plus_minus(estimate, digits)} (95% {interval(estimate, digits)})"
