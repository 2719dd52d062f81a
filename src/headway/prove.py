"""Proving: traces in, branches and value curves out. The meta-prover answers from each boundary of each trace."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float

from headway import values as estimate
from headway.graders import BOX, extract_answer
from headway.sample import TraceKey, derive_seed, grade_answers
from headway.segment import boundaries
from headway.types import Branch, Engine, Episode, Grader, MetaProver, Problem, Trace

Segmenter = Callable[[Trace], list[Episode]]


class ValueCurve(NamedTuple):
    """A trace's boundaries (token positions), the budget of an answer there, and the values with their errors.

    `kind` names the estimate (`score.ValueKind`).
    """

    boundaries: list[int]
    tokens: Float[np.ndarray, " J"]
    values: estimate.Values
    kind: str = "branches"


def prove(
    engine: Engine,
    traces: Sequence[Trace],
    problems: dict[str, Problem],
    grader: Grader,
    prover: MetaProver,
    segmenter: Segmenter,
    *,
    seed: int = 0,
    traces_at_once: int = 64,
    done: Collection[tuple[TraceKey, int, int]] = (),
) -> Iterator[list[Branch]]:
    """Draws `prover.branches` forced answers at each boundary, a list for every `traces_at_once` traces.

    A prefix is a slice of the sampled tokens; only the meta-prover's suffix is encoded. At the last boundary of a
    thought that ended by itself the thinking is only closed. The division of the work is fixed, as in `sample`.
    """
    suffix = tuple(engine.tokenizer.encode(prover.suffix, add_special_tokens=False))
    end = tuple(engine.tokenizer.encode(prover.end, add_special_tokens=False))
    texts = {suffix: prover.suffix, end: prover.end}
    # what the forced text already wrote of the answer stands before the branch's own text when it is graded
    openings = {ids: text[text.rfind(BOX) :] if BOX in text else "" for ids, text in texts.items()}
    for start in range(0, len(traces), traces_at_once):
        chunk = traces[start : start + traces_at_once]
        asked = [(trace, j, e) for trace in chunk for j, e in enumerate(boundaries(segmenter(trace)))]
        keys = [((t.problem_id, t.index), j, b) for t, j, _ in asked for b in range(prover.branches)]
        if all(key in done for key in keys):
            yield []
            continue
        forced = [end if t.closed and e == t.thinking else suffix for t, _, e in asked]
        completions = engine.sample(
            [t.prefix(e) + f for (t, _, e), f in zip(asked, forced, strict=True)],
            prover.sampling(),
            seeds=[derive_seed(seed, t.problem_id, t.index, e) for t, _, e in asked],
        )
        drawn = []
        for (t, j, e), f, group in zip(asked, forced, completions, strict=True):
            for b, completion in enumerate(group):
                text = engine.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
                sampled = len(completion.token_ids)
                answer = extract_answer(openings[f] + text)
                spent = e + len(f) + sampled
                drawn.append(
                    Branch(
                        t.problem_id, t.index, j, b, text, spent, sampled, answer,
                        logprob=completion.logprob, token_ids=completion.token_ids,
                    )
                )  # fmt: skip
        rewards = grade_answers([b.problem_id for b in drawn], [b.answer for b in drawn], problems, grader)
        yield [
            msgspec.structs.replace(d, reward=reward)
            for d, reward, key in zip(drawn, rewards, keys, strict=True)
            if key not in done
        ]


def value_curve(trace: Trace, branches: Sequence[Branch], episodes: Sequence[Episode]) -> ValueCurve:
    """The value at each boundary of a trace, from its branches; NaN where there are none.

    Raises:
        ValueError: a branch belongs to another trace or to a boundary that these episodes do not have.
    """
    positions = boundaries(episodes)
    width = max((b.branch for b in branches), default=0) + 1
    rewards = np.full((len(positions), width), np.nan)
    tokens = np.full((len(positions), width), np.nan)
    for b in branches:
        if (b.problem_id, b.index) != (trace.problem_id, trace.index) or b.boundary >= len(positions):
            raise ValueError(
                f"branch {b.problem_id}/{b.index} at boundary {b.boundary} does not fit trace {trace.name} with "
                f"{len(positions)} boundaries; prove the traces again after cutting them another way"
            )
        rewards[b.boundary, b.branch] = np.nan if b.reward is None else b.reward
        tokens[b.boundary, b.branch] = b.tokens
    drawn = ~np.isnan(tokens)
    with np.errstate(invalid="ignore", divide="ignore"):
        cost = np.where(drawn, tokens, 0.0).sum(axis=1) / drawn.sum(axis=1)
    return ValueCurve(positions, cost, estimate.from_branches(rewards))
