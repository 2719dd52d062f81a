"""What a comparison shows, in sentences made from its intervals, and why a run's numbers may mislead."""

from collections.abc import Sequence
from typing import Any

from headway.report.numbers.escapes import warning
from headway.report.quantities import label_of, verdict
from headway.report.text import interval, number

FEW_PROBLEMS = 30
TRUNCATED = 0.1  # share of truncated traces above which accuracy is given bounds
# quantity: unit, factor to it, digits, and what more and less of it are called
WORDS: dict[str, tuple[str, float, int, str, str]] = {
    "pass_at_1": (" points", 100, 1, "it is right {x} more often", "it is right {x} less often"),
    "pass_at_k": (" points", 100, 1, "its {name} is {x} higher", "its {name} is {x} lower"),
    "normalized_regret": ("", 1, 3, "its {name} is {x} higher", "its {name} is {x} lower"),
    "tokens": (" tokens", 1, 0, "its traces are {x} longer", "its traces are {x} shorter"),
}


def findings(against: str, compared: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each run on how it differs from the run `against`, from its 95% intervals.

    Of a quantity at several budgets, the largest counts.
    """
    return [_sentence(against, run["label"], run["differences"]) for run in compared]


def _sentence(against: str, label: str, differences: Sequence[dict[str, Any]]) -> str:
    last = {d["quantity"]: d for d in differences if d["quantity"] in WORDS}
    clear = [_clause(d) for d in last.values() if verdict(d)]
    alike = [label_of(d) for d in last.values() if not verdict(d)]
    same = [f"no difference can be told in {_and(alike)}"] if alike else []
    return f"{label} against {against}: {'; '.join([*clear, *same])}."


def _clause(difference: dict[str, Any]) -> str:
    """What is different: `it is right 6.7 points more often (95% 0.8 to 12.6)`."""
    unit, factor, digits, more, less = WORDS[difference["quantity"]]
    sign = 1 if difference["value"] > 0 else -1
    ends = sorted(sign * factor * end for end in difference["ci95"])
    # an interval that leaves out 0 does not look as if it did not
    while digits < 6 and round(ends[0], digits) == 0:
        digits += 1
    x = f"{number(sign * factor * difference['value'], digits)}{unit}"
    said = (more if sign > 0 else less).format(x=x, name=label_of(difference))
    return f"{said} (95% {interval({'ci95': ends}, digits)})"


def _and(parts: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def cautions(report: dict[str, Any]) -> list[str]:
    """Why the numbers of a run's report may mislead: few problems, truncated, undecided, escaping answers."""
    found, n = [], report["n_traces"]
    if report["n_problems"] < FEW_PROBLEMS:
        found.append(f"only {report['n_problems']} problems")
    counts = report["counts"]
    if counts.get("truncated", 0) > TRUNCATED * n:
        low, high = accuracy_bounds(report)
        found.append(
            f"{counts['truncated'] / n:.0%} of the traces were truncated: with a larger budget pass@1 is between "
            f"{number(low, 2)} and {number(high, 2)}, if no answer changes"
        )
    if counts.get("undecided", 0):
        found.append(f"{counts['undecided']} traces could not be graded and are left out")
    if escaping := warning(report):
        found.append(escaping)
    return found


def accuracy_bounds(report: dict[str, Any]) -> tuple[float, float]:
    """pass@1 if all truncated traces, given more tokens, were wrong, and if all were right."""
    decided = report["pass_at_1"]["n"]
    value = report["pass_at_1"]["value"]
    return value, min(1.0, value + report["counts"].get("truncated", 0) / decided) if decided else value
