"""Selecting: from the traces of a run and their values to the texts of a round of fine-tuning (MRT as STaR)."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from headway.core.star import Choice, Rule, Sampled, solution
from headway.core.tally import ValueCurve
from headway.procedures.prove import Prover, Rounds
from headway.procedures.sample import TraceKey
from headway.types import Branch, Keyed, Outcome, TokenIds, Trace

FRESH = 1  # the round of branches after a chosen prefix; round 0 may have chosen it


class Text(Keyed, frozen=True):
    """What the model learns to write after a prompt, as sampled tokens with the token that ends the text.

    `boundary` is where the trace was cut, None where it is whole. `text` is for readers.
    """

    prompt_ids: TokenIds
    completion_ids: TokenIds
    boundary: int | None
    text: str


class Candidate(NamedTuple):
    """One trace of a run, by problem and index, as numbers."""

    key: TraceKey
    outcome: Outcome
    finished: bool  # it ended by itself, not at its maximum of tokens
    tokens: int  # sampled for it, branches included
    curve: ValueCurve


def choose(rule: Rule, candidates: Sequence[Candidate], *, budget: int) -> list[Choice]:
    """What the rule makes of each candidate; the traces of a problem stand side by side.

    Args:
        budget: The maximum completion tokens of a trace.
    """
    made: list[Choice] = []
    for _, group in groupby(candidates, key=lambda c: c.key[0]):
        made += rule.choose(
            [Sampled(c.outcome, c.finished, c.curve.tokens, c.curve.values.values) for c in group], budget
        )
    return made


def fresh_rounds(candidates: Sequence[Candidate], choices: Sequence[Choice]) -> Rounds:
    """Which branches follow the chosen prefixes: one round at the boundary of each cut, none elsewhere."""
    return {
        candidate.key: [
            range(FRESH, FRESH + (j == choice.boundary)) for j in range(len(candidate.curve.boundaries))
        ]
        for candidate, choice in zip(candidates, choices, strict=True)
        if choice.boundary is not None
    }  # fmt: skip


def solutions(branches: Sequence[Branch], *, max_tokens: int) -> dict[TraceKey, Branch]:
    """The first correct branch of each trace that has one; those as long as `max_tokens` may not have ended."""
    of_trace: Mapping[TraceKey, list[Branch]] = defaultdict(list)
    for branch in sorted(branches, key=lambda b: b.branch):
        of_trace[branch.key].append(branch)
    found = {}
    for key, own in of_trace.items():
        rewards = np.array([np.nan if b.reward is None else b.reward for b in own], dtype=float)
        if (first := solution(rewards, np.array([b.sampled < max_tokens for b in own]))) is not None:
            found[key] = own[first]
    return found


def without_solution(
    candidates: Sequence[Candidate], choices: Sequence[Choice], solved: Collection[TraceKey]
) -> list[Choice]:
    """The choices, with the cuts left out after which no solution was correct."""
    return [
        choice if choice.boundary is None or candidate.key in solved else choice._replace(left_out="no_solution")
        for candidate, choice in zip(candidates, choices, strict=True)
    ]


def whole_text(trace: Trace, end: int) -> Text:
    """A whole trace and the end of the text."""
    return Text(*trace.key, trace.prompt_ids, (*trace.token_ids, end), None, trace.text)


def cut_text(trace: Trace, boundary: int, solved: Branch, prover: Prover, end: int) -> Text:
    """A trace up to a boundary, the text that ends complete thinking, a sampled solution, and the end of the text.

    The solution was sampled after the meta-prover's text for cut thinking ("Time is up."), which the model should not
    learn to write: here its text for complete thinking stands in that place.
    """
    tokenizer, forced = prover.engine.tokenizer, prover.meta_prover.end_suffix
    position = prover.forced(trace)[boundary].position
    ids = (*trace.token_ids[:position], *tokenizer.encode(forced, add_special_tokens=False), *solved.token_ids)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    return Text(*trace.key, trace.prompt_ids, (*ids, end), boundary, text)


def selection_metrics(
    candidates: Sequence[Candidate], choices: Sequence[Choice], texts: Sequence[Text], answers: Sequence[Branch]
) -> dict[str, Any]:
    """What rounds.jsonl says of a selection (docs/training.md); NaN where a rule cuts nothing."""
    chosen = [
        candidate.curve.values.values[choice.boundary]
        for candidate, choice in zip(candidates, choices, strict=True)
        if choice.boundary is not None
    ]
    graded = [b.reward for b in answers if b.reward is not None]
    return {
        "problems": len({c.key[0] for c in candidates}),
        "sampled": len(candidates),
        "correct": sum(c.outcome == "correct" for c in candidates),
        "selected": len(texts),
        "selected_problems": len({t.problem_id for t in texts}),
        "left_out": dict(Counter(c.left_out for c in choices if c.left_out).most_common()),
        "tokens_sampled": sum(c.tokens for c in candidates) + sum(b.sampled for b in answers),
        "tokens_selected": sum(len(t.completion_ids) for t in texts),
        "chosen_value": float(np.mean(chosen)) if chosen else float("nan"),
        "fresh_value": float(np.mean(graded)) if graded else float("nan"),
    }
