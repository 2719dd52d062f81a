"""Warm start: failed and right attempts at one problem, stitched into traces that backtrack.

A base model seldom backtracks, so it is first fine-tuned on traces that do: an attempt that fails, a backtrack to the
step where it went wrong, and an attempt that shares the steps before. Attempts are traces; their steps are lines.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import structs

from headway.choices import Option, Options, lookup
from headway.core.segment import BACKTRACK, to_tokens
from headway.core.tally import ValueCurve
from headway.procedures.sample import TraceKey, derive_seed
from headway.text.offsets import decode_with_offsets
from headway.types import Episode, HeadwayError, TokenIds, Tokenizer, Trace

# What a backtrack says, from the number of steps that it keeps; `core.segment.BACKTRACK` recognizes each.
MARKERS: dict[str, Callable[[int], str]] = {
    "explicit": lambda kept: f"Backtrack to Line {kept + 1}\n" if kept else "Backtrack to beginning\n",
    "implicit": lambda kept: "Wait, this seems off. Let's try something else.\n",
}
if TYPE_CHECKING:
    Marker = str
else:
    Marker = Literal[tuple(MARKERS)]

# The estimated success after the first k steps that two attempts share; NaN where it is unknown.
Value = Callable[[Trace, Trace, int], float]

_LINE = re.compile(r"\n*[^\n]+\n*")


class Stitching(Options, frozen=True):
    """How attempts are stitched into a trace."""

    marker: Annotated[Marker, Option("What a backtrack says: the line it goes back to, or only that it does.")] = (
        "explicit"
    )
    failed: Annotated[int, Option("Maximum failed attempts before the right one.", least=1)] = 1
    shared: Annotated[int, Option("Minimum steps shared; 0 also goes back to the beginning.", least=0)] = 1
    restate: Annotated[bool, Option("Whether an attempt repeats the steps it keeps, or only continues them.")] = True
    per_problem: Annotated[int, Option("Maximum traces per problem.", least=1)] = 4
    seed: Annotated[int, Option("Seed of the choice of attempts.")] = 0


def steps_of(trace: Trace) -> list[Episode]:
    """The steps of an attempt's thinking as token ranges: its lines, each with the newlines after it."""
    spans = [line.span() for line in _LINE.finditer(trace.thought)]
    return to_tokens(spans, trace.offsets[: trace.thinking]) if trace.thinking else []


def longest(failed: Trace, then: Trace, kept: int) -> float:
    """The value without estimates: more shared steps are better."""
    return float(kept)


def by_continuations(attempts: Iterable[Trace]) -> Value:
    """The fraction of right ones among the attempts at a problem that begin with the same steps.

    The two attempts themselves are left out: they were chosen by their outcome. NaN where there are no others.
    """
    counts: Counter[tuple[str, TokenIds, bool]] = Counter()
    for attempt in filter(usable, attempts):
        for k in range(len(steps_of(attempt)) + 1):
            counts[attempt.problem_id, _first(attempt, k), attempt.reward == 1] += 1

    def value(failed: Trace, then: Trace, kept: int) -> float:
        start = failed.problem_id, _first(failed, kept)
        own = [attempt.reward == 1 for attempt in (failed, then)]
        right, wrong = (counts[*start, outcome] - own.count(outcome) for outcome in (True, False))
        return right / (right + wrong) if right + wrong else float("nan")

    return value


def by_forced_answers(curves: Mapping[TraceKey, ValueCurve]) -> Value:
    """The failed attempt's own value, from curves that `Prover.curves` makes with `steps_of`."""
    return lambda failed, then, kept: float(curves[failed.key].values.values[kept])


def usable(attempt: Trace) -> bool:
    """Whether a trace is one complete attempt of known outcome: closed, not empty, graded, without a backtrack."""
    complete = attempt.closed and attempt.thinking > 0 and attempt.reward is not None
    return complete and not BACKTRACK.search(attempt.thought)


def n_shared(a: Trace, b: Trace) -> int:
    """The number of first steps that two attempts at a problem share, token by token."""
    pairs = zip(_steps(a), _steps(b), strict=False) if a.problem_id == b.problem_id else ()
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def stitch(attempts: Sequence[Trace], tokenizer: Tokenizer, stitching: Stitching, *, index: int = 0) -> Trace:
    """One trace of attempts at a problem: each fails but the last, and each backtracks into the next.

    A backtrack keeps all steps that the two attempts share, and flags the failed attempt's next one.

    Raises:
        HeadwayError: the last attempt is not right, another is not wrong, one cannot be used (`usable`), or two in a
            row share fewer steps than `stitching.shared`.
    """
    *failed, right = attempts
    if right.reward != 1 or any(a.reward != 0 for a in failed) or not all(map(usable, attempts)):
        got = ", ".join(f"{a.name}: reward {a.reward}, {'closed' if a.closed else 'not closed'}" for a in attempts)
        raise HeadwayError(
            f"stitching takes complete attempts without backtracks, wrong ones and then a right one; got {got}"
        )
    say = lookup(MARKERS, stitching.marker, "marker")
    ids: TokenIds = ()
    start = 0
    for this, then in itertools.pairwise(attempts):
        if (kept := n_shared(this, then)) < stitching.shared:
            need = f"need at least {stitching.shared}"
            raise HeadwayError(f"{this.name} and {then.name} share {kept} first steps, {need}; stitch other attempts")
        marker = say(kept) if this.thought.endswith("\n") else "\n" + say(kept)
        ids += _from(this, start) + tuple(tokenizer.encode(marker, add_special_tokens=False))
        start = 0 if stitching.restate else kept
    ids += _from(right, start) + right.token_ids[right.thinking :]
    thinking = len(ids) - (len(right.token_ids) - right.thinking)
    text, offsets = decode_with_offsets(tokenizer, ids)
    return structs.replace(right, index=index, token_ids=ids, text=text, offsets=offsets, thinking=thinking)


def warm_start(
    attempts: Iterable[Trace], tokenizer: Tokenizer, stitching: Stitching, *, value: Value = longest
) -> list[Trace]:
    """Traces to fine-tune on, at most `per_problem` for each problem, all right.

    0 to `failed` failed attempts, each number as probable, come before the right one. The first attempt is chosen at
    random. Each backtrack goes to the step with the highest `value` from which another attempt is there (of equal or
    unknown values the last step), and that attempt is chosen at random. A failed attempt that shares no step with a
    right one is not used.
    """
    stitching.check()
    by_problem: dict[str, dict[TokenIds, Trace]] = {}  # the same attempt counts once
    for attempt in filter(usable, attempts):
        by_problem.setdefault(attempt.problem_id, {})[attempt.token_ids] = attempt
    made: dict[tuple[str, TokenIds], Trace] = {}
    for problem_id, distinct in by_problem.items():
        rng = Random(derive_seed(stitching.seed, "warm start", problem_id))
        right, wrong = ([a for a in distinct.values() if a.reward == reward] for reward in (1, 0))
        for index in range(stitching.per_problem):
            failed = rng.randint(0, stitching.failed)
            chain: list[Trace] = []
            for pool in [*[wrong] * failed, right]:
                chain += _next(chain, pool, stitching.shared, value, rng)
            if chain and chain[-1].reward == 1 and (len(chain) > 1 or not failed):
                trace = stitch(chain, tokenizer, stitching, index=index)
                made.setdefault((problem_id, trace.token_ids), trace)
    return list(made.values())


def _next(chain: Sequence[Trace], pool: Sequence[Trace], shared: int, value: Value, rng: Random) -> list[Trace]:
    """An attempt of the pool into which the last of the chain backtracks; none where none shares enough steps."""
    if not chain:
        return rng.sample(pool, min(1, len(pool)))
    last = chain[-1]
    fit: dict[int, list[Trace]] = defaultdict(list)
    for a in pool:
        if a not in chain and (k := n_shared(last, a)) >= shared:
            fit[k].append(a)
    values = {k: value(last, some[0], k) for k, some in fit.items()}
    best = max(fit, key=lambda k: (-np.inf if np.isnan(values[k]) else values[k], k), default=None)
    return [] if best is None else [rng.choice(fit[best])]


def _steps(trace: Trace) -> list[TokenIds]:
    return [trace.token_ids[step.start : step.stop] for step in steps_of(trace)]


def _first(trace: Trace, k: int) -> TokenIds:
    """The tokens of the first k steps."""
    return trace.token_ids[: steps_of(trace)[k - 1].stop] if k else ()


def _from(trace: Trace, k: int) -> TokenIds:
    """The tokens of the thinking from step k on, counted from 0."""
    return trace.token_ids[len(_first(trace, k)) : trace.thinking]
