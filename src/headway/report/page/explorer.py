"""The traces in a page: an index that is read at once, and blocks of compressed traces read on demand."""

import base64
import itertools
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress, progress_stderr
from headway.core.tally import ESTIMATORS, ValueCurve, ValueKind
from headway.core.votes import NO_VOTE
from headway.report.numbers.table import RunTable
from headway.report.text import is_known, known, visible
from headway.types import Outcome, Problem, Trace

LIMIT = 12_000_000  # bytes of compressed traces in a page, as base64: with all else the page stays under 20 MB
BLOCK = 200_000  # characters of JSON in a block: unpacked in a few milliseconds
OUTCOMES = get_args(Outcome)


class PageRun(NamedTuple):
    """A run as pages and files show it."""

    label: str
    report: dict[str, Any]  # what `summarize` returned, or report.json
    table: RunTable
    traces: Sequence[Trace]  # in the table's order; they may be on disk
    problems: Mapping[str, Problem]  # questions and reference answers, by id


def explorer(runs: Sequence[PageRun], *, limit: int = LIMIT) -> dict[str, Any]:
    """What explorer.js reads: `index`, a column for each fact of a trace; `blocks`, the traces; and their number.

    Traces fill at most `limit` bytes, the first of each problem of each run first. A block is deflated JSON in base64.
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
        # a single trace that is too long is left out, others may fit
        if room < limit // 100 or n < len(group) > 1:
            break
    rows.sort()
    return {
        "runs": [visible(run.label) for run in runs], "outcomes": OUTCOMES,
        "total": sum(len(run.table.problems) for run in runs), "shown": len(rows),
        "index": _index(runs, rows), "blocks": blocks,
    }  # fmt: skip


def _groups(runs: Sequence[PageRun]) -> Iterator[list[tuple[int, int, str]]]:
    """Run, position and JSON of each trace, in groups of about `BLOCK` characters; a longer trace is a group."""
    group, length = list[tuple[int, int, str]](), 0
    for r, i in _turns(runs):
        run = runs[r]
        problem = run.problems.get(run.table.problems[i])
        content = page_trace(run.traces[i], run.table.curves[i], _branches(run.table, i), problem)
        written = json.dumps(content, separators=(",", ":"), allow_nan=False)
        if group and length + len(written) > BLOCK:
            yield group
            group, length = [], 0
        group.append((r, i, written))
        length += len(written)
    yield group


def _fitting(written: Sequence[str], room: int) -> tuple[int, str]:
    """How many of the first traces fit into so many bytes, by halves, and their block."""
    n, block = len(written), ""
    while n:
        block = base64.b64encode(zlib.compress(f"[{','.join(written[:n])}]".encode(), 6)).decode()
        if len(block) <= room:
            break
        n //= 2
    return n, block


def _turns(runs: Sequence[PageRun]) -> Iterator[tuple[int, int]]:
    """Run and position of each trace: every problem's first in every run, then every second, and so on."""
    turns = []
    for r, run in enumerate(runs):
        seen: dict[str, int] = defaultdict(int)
        for i, problem in enumerate(run.table.problems):
            turns.append((seen[problem], i, r))
            seen[problem] += 1
    return ((r, i) for _, i, r in sorted(turns))


def _index(runs: Sequence[PageRun], rows: Sequence[tuple[int, int, int, int]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = defaultdict(list)
    sorted_by = [sort_keys(run) for run in runs]
    for r, i, block, place in rows:
        table = runs[r].table
        facts = {
            "run": r, "problem": visible(table.problems[i]), "index": table.indices[i],
            "outcome": OUTCOMES.index(table.outcomes[i]), "tokens": int(table.tokens[i]),
            "episodes": len(table.curves[i].boundaries) - 1,
            **{name: _or_none(column[i], 4) for name, column in sorted_by[r].items()},
            "block": block, "place": place,
        }  # fmt: skip
        for name, value in facts.items():
            columns[name].append(value)
    return columns


def sort_keys(run: PageRun) -> dict[str, Float[np.ndarray, " traces"]]:
    """What traces are sorted by."""
    whole = np.array([run.report["budget_curve"][-1]["budget"]], dtype=float)
    values = [c.values.values for c in run.table.curves]
    return {
        "regret": run.table.regret(whole)[:, 0],
        "progress": np.array([v[-1] - v[0] for v in values]),
        "overthinking": np.array([np.fmax.reduce(v) - v[-1] for v in values]),
    }


def _branches(table: RunTable, i: int) -> list[list[dict[str, str]]]:
    """The text and the verdict of each branch of a trace, by boundary."""
    tally, texts = table.tallies[i], iter(table.texts[i])
    return [
        [
            {"text": visible(next(texts)), "verdict": _verdict(reward, answer)}
            for reward, answer in zip(tally.rewards[j, drawn].tolist(), tally.classes[j, drawn].tolist(), strict=True)
        ]
        for j, drawn in enumerate(tally.drawn)
    ]


def page_trace(
    trace: Trace, curve: ValueCurve, branches: Sequence[list[dict[str, str]]], problem: Problem | None
) -> dict[str, Any]:
    """A trace as trace.js reads it, with its branches by boundary; None where a number is not known."""
    starts = [*trace.offsets, len(trace.text)]
    made, errors = progress(curve.values.values), progress_stderr(curve.values.stderr)
    return {
        "problem": visible(trace.problem_id), "index": trace.index,
        "question": problem and visible(problem.prompt), "reference": problem and visible(problem.answer),
        "outcome": trace.outcome, "tokens": len(trace.token_ids), "thinking": trace.thinking,
        "answer": trace.answer and visible(trace.answer), "after": visible(trace.text[len(trace.thought) :]),
        "episodes": [
            {"start": a, "stop": b, "text": visible(trace.text[starts[a] : starts[b]]), **known(progress=r, stderr=e)}
            for (a, b), r, e in zip(itertools.pairwise(curve.boundaries), made, errors, strict=True)
        ],
        "boundaries": [
            {"n": int(n), "ci95": _ci95(v, e, int(n), curve.kind), "branches": b, **known(budget=c, value=v, stderr=e)}
            for b, c, v, e, n in zip(branches, curve.tokens, *curve.values, strict=True)
        ],
    }  # fmt: skip


def _ci95(value: float, error: float, n: int, kind: ValueKind) -> list[float | None]:
    """The interval of one value: Wilson's where it is a proportion of n branches, none where another's error is 0."""
    if not ESTIMATORS[kind].proportion and n and error == 0:
        return [None, None]
    wald = value - 1.96 * error, value + 1.96 * error
    return [_or_none(end, 4) for end in (stats.wilson(value * n, n) if ESTIMATORS[kind].proportion else wald)]


def _verdict(reward: float, answer: int) -> str:
    """What the grader said of a branch, by its reward and the class of its answer."""
    if np.isnan(reward):
        return "undecided"
    if reward > 0:
        return "right"
    return "no answer" if answer == NO_VOTE else "wrong"


def _or_none(value: float, digits: int) -> float | None:
    return round(float(value), digits) if is_known(value) else None
