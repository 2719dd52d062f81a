"""Proving: traces in, branches and value curves out. The meta-prover answers from each boundary of each trace."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float

from headway import values as estimate
from headway.graders import BOX, extract_answer
from headway.sample import TraceKey, derive_seed, grade_answers
from headway.segment import boundaries
from headway.types import Branch, Engine, Episode, Grader, MetaProver, Problem, Prompt, TokenIds, Tokenizer, Trace

Segmenter = Callable[[Trace], list[Episode]]
TRACES_AT_ONCE = 64


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
    traces_at_once: int = TRACES_AT_ONCE,
    done: Collection[tuple[TraceKey, int, int]] = (),
    rounds: Mapping[TraceKey, Sequence[range]] | None = None,
) -> Iterator[list[Branch]]:
    """Draws `prover.branches` forced answers at each boundary, a list for every `traces_at_once` traces.

    A prefix is a slice of the sampled tokens; only the meta-prover's suffix is encoded. At the last boundary of a
    thought that ended by itself the thinking is only closed. The division of the work is fixed, as in `sample`.

    Args:
        engine: Answers.
        traces: What is proved.
        problems: The problem of each trace, by id.
        grader: Grades the answers.
        prover: How an answer is forced, and how many in a round.
        segmenter: Cuts a trace.
        seed: The run's.
        traces_at_once: Traces in one call of the engine.
        done: The branches that are there: trace, boundary and number.
        rounds: Which rounds of branches to draw at each boundary of a trace; round 0 everywhere by default. Branch b
            of round r has number r * prover.branches + b, and its seed does not depend on what else is drawn.
    """
    suffix, end = forced_ids(engine.tokenizer, prover)
    texts = {suffix: prover.suffix, end: prover.end}
    # what the forced text already wrote of the answer stands before the branch's own text when it is graded
    openings = {ids: text[text.rfind(BOX) :] if BOX in text else "" for ids, text in texts.items()}
    for start in range(0, len(traces), traces_at_once):
        chunk = list(traces[start : start + traces_at_once])  # these alone are in memory
        asked = []
        for trace in chunk:
            base = trace.prompt_ids + trace.token_ids
            for j, e in enumerate(boundaries(segmenter(trace))):
                forced = end if ends_itself(trace, e) else suffix
                prompt = Prompt(base, len(trace.prompt_ids) + e, forced)  # one for all rounds
                drawing = rounds[trace.problem_id, trace.index][j] if rounds else range(1)
                asked += [(trace, j, e, r, forced, prompt) for r in drawing]
        B = prover.branches
        keys = [((t.problem_id, t.index), j, r * B + b) for t, j, _, r, _, _ in asked for b in range(B)]
        if all(key in done for key in keys):
            yield []
            continue
        completions = engine.sample(
            [prompt for *_, prompt in asked],
            prover.sampling(),
            seeds=[derive_seed(seed, t.problem_id, t.index, e, *([r] if r else [])) for t, _, e, r, _, _ in asked],
        )
        drawn = []
        for (t, j, e, r, f, _), group in zip(asked, completions, strict=True):
            for b, completion in enumerate(group, start=r * B):
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


def forced_ids(tokenizer: Tokenizer, prover: MetaProver) -> tuple[TokenIds, TokenIds]:
    """The tokens that force an answer in mid-thought, and after a thought that ended by itself."""
    suffix = tokenizer.encode(prover.suffix, add_special_tokens=False)
    return tuple(suffix), tuple(tokenizer.encode(prover.end, add_special_tokens=False))


def ends_itself(trace: Trace, boundary: int) -> bool:
    """Is this the last boundary of a thought that ended by itself?"""
    return trace.closed and boundary == trace.thinking


def value_curve(trace: Trace, branches: Sequence[Branch], episodes: Sequence[Episode]) -> ValueCurve:
    """The value at each boundary of a trace, from its branches; NaN where there are none.

    A boundary's budget is its thinking, the forced suffix, and the tokens of an answer: the mean over the boundaries
    of the trace of their branches' mean. One length for all, since right and wrong answers differ in length: a step
    that got longer by the luck that made its value higher would bias the regret.

    Raises:
        ValueError: a branch belongs to another trace or to a boundary that these episodes do not have.
    """
    positions = boundaries(episodes)
    width = max((b.branch for b in branches), default=0) + 1
    rewards = np.full((len(positions), width), np.nan)
    sampled = np.full((len(positions), width), np.nan)
    cost = np.full(len(positions), np.nan)
    for b in branches:
        if (b.problem_id, b.index) != (trace.problem_id, trace.index) or b.boundary >= len(positions):
            raise ValueError(
                f"branch {b.problem_id}/{b.index} at boundary {b.boundary} does not fit trace {trace.name} with "
                f"{len(positions)} boundaries; prove the traces again after cutting them another way"
            )
        rewards[b.boundary, b.branch] = np.nan if b.reward is None else b.reward
        sampled[b.boundary, b.branch] = b.sampled
        cost[b.boundary] = b.tokens - b.sampled
    drawn = ~np.isnan(sampled).all(axis=1)
    if drawn.any():
        cost += np.nanmean(sampled[drawn], axis=1).mean()
    return ValueCurve(positions, cost, estimate.from_branches(rewards))
