"""Escapes: forced answers that do not end as one, since the model thinks again or is cut before the answer ends."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headway.core import stats
from headway.core.stats import UNIT
from headway.report.numbers.table import entry
from headway.report.text import number, plus_minus
from headway.types import End, Keyed

HIGH = 0.05  # a rate to warn of: such answers are mostly wrong, so that values are too low


class BranchEnd(Keyed, frozen=True, forbid_unknown_fields=False):
    """How a branch ended, without all else of it."""

    boundary: int
    end: End | None = None


def escapes(branches: Iterable[BranchEnd]) -> dict[str, Any]:
    """The entry of report.json: the rate over all branches and by boundary, and how many reopened or were cut.

    Branches of older versions, which do not say how they ended, are left out.
    """
    known = [(b.boundary, b.problem_id, b.end) for b in branches if b.end is not None]
    counts = Counter(end for *_, end in known)

    def rate(some: Sequence[tuple[int, str, str]]) -> dict[str, Any]:
        escaped = np.array([end != "stop" for *_, end in some], dtype=float)
        return entry(stats.mean(escaped, [problem for _, problem, _ in some], within=UNIT))

    at: dict[int, list[tuple[int, str, str]]] = {}
    for branch in known:
        at.setdefault(branch[0], []).append(branch)
    by_boundary = [{"boundary": j, **rate(at[j])} for j in sorted(at)]
    return {**rate(known), "reopened": counts["reopened"], "length": counts["length"], "by_boundary": by_boundary}


def warning(report: dict[str, Any]) -> str | None:
    """What to say of a high rate; None where it is low or unknown."""
    found = report.get("escapes") or {}
    if not found.get("n") or not found["value"] > HIGH:
        return None
    worst = max(found["by_boundary"], key=lambda record: record["value"])
    return (
        f"{plus_minus(found)} of the forced answers escape ({found['reopened']} think again, {found['length']} are "
        f"cut at their length; most at boundary {worst['boundary']}, {number(worst['value'])}): their values are too "
        "low; give more --answer-tokens or another --suffix"
    )
