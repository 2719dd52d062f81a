"""The traces that a page holds: an index that is read at once, and blocks of compressed traces read on demand."""

import base64
import itertools
import json
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress, progress_stderr
from headway.procedures.prove import ValueCurve
from headway.report.numbers.table import Measured
from headway.report.text import is_known, visible
from headway.types import Branch, Outcome, Problem, Trace

LIMIT = 12_000_000  # bytes of compressed traces in a page, as base64: with all else the page stays under 20 MB
BLOCK = 200_000  # characters of JSON in a block: unpacked in a few milliseconds
OUTCOMES = get_args(Outcome)


class Shown(NamedTuple):
    """A run whose traces can be looked into on a page."""

    label: str
    report: dict[str, Any]
    measured: Measured
    branches: Sequence[Branch]
    problems: Mapping[str, Problem]


def explorer(runs: Sequence[Shown], *, limit: int = LIMIT) -> dict[str, Any]:
    """What explorer.js reads: `index`, a column for each fact of a trace; `blocks`, the traces; and their number.

    Traces go in until `limit` bytes are full, the first of each problem of each run first; one too long for the room
    that is left stays out. A block is JSON, deflated, as base64.
    """
    blocks: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    room = limit
    for group in _groups(runs):
        n, block = _fitting([written for *_, written in group], room)
        if n:
            rows.extend((r, i, len(blocks), place) for place, (r, i, _) in enumerate(group[:n]))
            blocks.append(block)
            room -= len(block)
        # a single trace that is too long leaves its room to others
        if room < limit // 100 or n < len(group) > 1:
            break
    rows.sort()
    return {
        "runs": [visible(run.label) for run in runs],
        "total": sum(len(run.measured.facts) for run in runs),
        "shown": len(rows),
        "outcomes": OUTCOMES,
        "index": _index(runs, rows),
        "blocks": blocks,
    }


def _groups(runs: Sequence[Shown]) -> Iterator[list[tuple[int, int, str]]]:
    """Run, position and JSON of each trace, in groups of about `BLOCK` characters; a longer trace is a group."""
    at = [_positions(run.branches) for run in runs]
    group, length = list[tuple[int, int, str]](), 0
    for r, i in _turns(runs):
        run = runs[r]
        trace = run.measured.traces[i]
        drawn = [run.branches[k] for k in at[r].get((trace.problem_id, trace.index), ())]
        content = page_trace(trace, run.measured.curves[i], drawn, run.problems.get(trace.problem_id))
        written = json.dumps(content, separators=(",", ":"), allow_nan=False)
        if group and length + len(written) > BLOCK:
            yield group
            group, length = [], 0
        group.append((r, i, written))
        length += len(written)
    yield group


def _fitting(written: Sequence[str], room: int) -> tuple[int, str]:
    """How many of the first traces fit into so many bytes, by halves, and their block."""
    n = len(written)
    while n:
        block = base64.b64encode(zlib.compress(f"[{','.join(written[:n])}]".encode(), 6)).decode()
        if len(block) <= room:
            return n, block
        n //= 2
    return 0, ""


def _turns(runs: Sequence[Shown]) -> Iterator[tuple[int, int]]:
    """Run and position of each trace: every problem's first in every run, then every second, and so on."""
    turns = []
    for r, run in enumerate(runs):
        seen: dict[str, int] = defaultdict(int)
        for i, problem in enumerate(run.measured.problems):
            turns.append((seen[problem], i, r))
            seen[problem] += 1
    return ((r, i) for _, i, r in sorted(turns))


def _positions(branches: Sequence[Branch]) -> dict[tuple[str, int], MutableSequence[int]]:
    """Where the branches of each trace are."""
    at: dict[tuple[str, int], MutableSequence[int]] = defaultdict(lambda: array("q"))
    for position, branch in enumerate(branches):
        at[branch.problem_id, branch.index].append(position)
    return at


def _index(runs: Sequence[Shown], rows: Sequence[tuple[int, int, int, int]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    sorted_by = [measures(run) for run in runs]
    for r, i, block, place in rows:
        facts = runs[r].measured.facts[i]
        known = {
            "run": r,
            "problem": visible(facts.problem_id),
            "index": facts.index,
            "outcome": OUTCOMES.index(facts.outcome),
            "tokens": facts.tokens,
            "episodes": len(runs[r].measured.curves[i].boundaries) - 1,
            **{name: _or_none(column[i], 4) for name, column in sorted_by[r].items()},
            "block": block,
            "place": place,
        }
        for name, value in known.items():
            columns[name].append(value)
    return columns


def measures(run: Shown) -> dict[str, Float[np.ndarray, " traces"]]:
    """What traces are sorted by."""
    whole = np.array([run.report["budget"] + run.report["answer_tokens"]], dtype=float)
    values = [c.values.values for c in run.measured.curves]
    return {
        "regret": run.measured.regret(whole)[:, 0],
        "progress": np.array([v[-1] - v[0] for v in values]),
        "overthinking": np.array([np.fmax.reduce(v) - v[-1] for v in values]),
    }


def page_trace(trace: Trace, curve: ValueCurve, branches: Sequence[Branch], problem: Problem | None) -> dict[str, Any]:
    """A trace as trace.js reads it; None where a number is not known."""
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
                "ci95": [_or_none(end, 4) for end in _ci95(value, error, int(n), curve.kind)],
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


def _or_none(value: float, digits: int | None = None) -> float | None:
    if not is_known(value):
        return None
    return float(value) if digits is None else round(float(value), digits)
