"""Several runs side by side: the estimates of each, and paired differences on the problems they share."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.report.numbers.table import RunTable, entry
from headway.report.text import interval, plus_minus, visible
from headway.types import HeadwayError

# how each quantity is called and how many decimals it is written with
QUANTITIES = {
    "pass_at_1": ("pass@1", 3),
    "tokens": ("tokens", 1),
    "thinking_tokens": ("thinking tokens", 1),
    "episodes": ("episodes", 2),
    "normalized_regret": ("normalized regret", 3),
    "accuracy": ("accuracy", 3),
}

DESCRIPTION = ("model", "problems", "n_problems", "n_traces", "budget", "comparator")


def compare(runs: Sequence[tuple[str, RunTable, dict[str, Any]]], budgets: Sequence[int]) -> dict[str, Any]:
    """The content of compare.json: each run's estimates, and its differences from the first run.

    An estimate is over all problems of its run. A difference is this run minus the first, the mean over the problems
    that both have of the difference of the problem's means; what makes a problem hard cancels.

    Args:
        runs: Label, traces with curves, and report (`summarize`) of each run; the first is what others differ from.
        budgets: Where to take accuracy and normalized regret, in completion tokens.

    Raises:
        HeadwayError: two runs have the same label, or one shares no problem with the first.
    """
    labels = [label for label, _, _ in runs]
    if len(set(labels)) < len(labels):
        raise HeadwayError(f"runs to compare need different labels, got {', '.join(labels)}")
    against, first, _ = runs[0]
    base = {key: stats.by_problem(x, first.problems) for key, x in _observations(first, budgets).items()}
    compared = []
    for i, (label, run, report) in enumerate(runs):
        shared = set(first.problems) & set(run.problems)
        if not shared:
            raise HeadwayError(
                f"runs '{against}' and '{label}' share no problem: one has '{first.problems[0]}' and so on, the other "
                f"'{run.problems[0]}'; measure both on the same problems"
            )
        observed = _observations(run, budgets)
        means = {key: stats.by_problem(x, run.problems) for key, x in observed.items()}
        compared.append(
            {
                "label": label,
                **{key: report[key] for key in DESCRIPTION},
                "common_problems": len(shared),
                "estimates": [_record(key, stats.mean(x, run.problems)) for key, x in observed.items()],
                "differences": [_record(k, stats.paired_difference(base[k], means[k])) for k in means] if i else [],
            }
        )
    return {"against": against, "budgets": list(budgets), "runs": compared}


def estimate_rows(comparison: dict[str, Any]) -> list[list[str]]:
    """A header and a row for each quantity, with a cell `0.412 ± 0.018` for each run."""
    runs = comparison["runs"]
    rows = [["", *(run["label"] for run in runs)]]
    for records in zip(*(run["estimates"] for run in runs), strict=True):
        rows.append([_name(records[0]), *(plus_minus(r, _digits(r)) for r in records)])
    return rows


def difference_rows(comparison: dict[str, Any]) -> list[list[str]]:
    """A header and a row for each quantity: `+0.031 ± 0.012 (95% +0.007 to +0.055)` for each run but the first."""
    runs = comparison["runs"][1:]
    rows = [["", *(f"{run['label']} − {comparison['against']}" for run in runs)]]
    for records in zip(*(run["differences"] for run in runs), strict=True):
        cells = (
            f"{plus_minus(r, _digits(r), signed=True)} (95% {interval(r, _digits(r), signed=True)})" for r in records
        )
        rows.append([_name(records[0]), *cells])
    return rows


def markdown_table(comparison: dict[str, Any]) -> str:
    """The estimates as a Markdown table, and the differences as a second one where there is more than one run."""
    tables = [markdown(estimate_rows(comparison))]
    if len(comparison["runs"]) > 1:
        tables.append(markdown(difference_rows(comparison)))
    return "\n".join(tables)


def _observations(run: RunTable, budgets: Sequence[int]) -> dict[tuple[str, int | None], Float[np.ndarray, " traces"]]:
    """A number for each trace, by quantity and budget (None where there is none to choose)."""
    at = np.array(budgets, dtype=float)
    return {
        ("pass_at_1", None): run.rewards,
        ("tokens", None): run.tokens,
        ("thinking_tokens", None): run.thinking,
        ("episodes", None): run.episodes,
        **{("normalized_regret", b): x for b, x in zip(budgets, run.regret(at).T, strict=True)},
        **{("accuracy", b): x for b, x in zip(budgets, run.accuracy(at).T, strict=True)},
    }


def _record(key: tuple[str, int | None], estimate: stats.Estimate) -> dict[str, Any]:
    quantity, budget = key
    return {"quantity": quantity, "budget": budget, **entry(estimate)}


def _name(record: dict[str, Any]) -> str:
    name, _ = QUANTITIES[record["quantity"]]
    return name if record["budget"] is None else f"{name} at {record['budget']} tokens"


def _digits(record: dict[str, Any]) -> int:
    return QUANTITIES[record["quantity"]][1]


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its header."""
    cells = [[markdown_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * max(w, 3) for w in widths) + " |")
    return "\n".join(lines) + "\n"


def markdown_cell(text: str) -> str:
    """Foreign text for a Markdown table: on one line, without markup, links or characters that hide."""
    return re.sub(r"[|<\[`]", r"\\\g<0>", visible(" ".join(text.split())))
