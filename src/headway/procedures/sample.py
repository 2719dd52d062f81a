"""Sampling: problems in, graded traces out."""

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

from msgspec import structs

from headway.choices import Option, Options
from headway.engines.streaming import in_parts
from headway.text.answers import Extract
from headway.text.offsets import decode_with_offsets, token_at
from headway.text.prompts import prompt_ids
from headway.text.tags import ThinkTags
from headway.text.thoughts import read_answer, read_thought
from headway.types import (
    Branch,
    Completion,
    Engine,
    Graded,
    Grader,
    HeadwayError,
    Problem,
    Prompt,
    SamplingParams,
    TokenIds,
    Tokenizer,
    Trace,
)

logger = logging.getLogger(__name__)

TraceKey = tuple[str, int]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from a run's seed and what a request is for: the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


class Sampling(Options, frozen=True):
    """How traces are sampled, and the tokens that a trace may have."""

    traces: Annotated[int, Option("Traces per problem.", least=1)] = 4
    budget: Annotated[int, Option("Maximum thinking tokens of a trace.", least=1)] = 1024
    answer_tokens: Annotated[int, Option("Maximum tokens of an answer, forced or not.", least=1)] = 32
    temperature: Annotated[float, Option("Sampling temperature of traces.", least=0)] = 1.0
    top_p: Annotated[float, Option("Nucleus sampling of traces.", above=0, most=1)] = 1.0
    seed: Annotated[int, Option("Seed of the run; each request's seed derives from it.")] = 0

    def params(self, max_tokens: int, *, n: int = 1, stop: tuple[str, ...] = ()) -> SamplingParams:
        """The parameters of a request for `max_tokens` tokens."""
        return SamplingParams(max_tokens, n, self.temperature, self.top_p, stop)


def sample(
    engine: Engine,
    problems: Sequence[Problem],
    grader: Grader,
    tags: ThinkTags,
    sampling: Sampling,
    *,
    done: Collection[TraceKey] = (),
    problems_at_once: int = 32,
) -> Iterator[list[Trace]]:
    """Samples traces of each problem, cut at the budget; a list as soon as some are there.

    Every `problems_at_once` problems are one call of the engine. These chunks are fixed, and so is how the engine
    divides them, so a run that resumes after what is `done` has the traces of an uninterrupted run.

    Raises:
        HeadwayError: the context window of the engine's model does not hold a prompt.
    """
    if (window := getattr(engine, "window", None)) is not None:
        _check_window([len(prompt_ids(engine.tokenizer, p.prompt, tags)) for p in problems], sampling, window)
    params = sampling.params(sampling.budget + sampling.answer_tokens, n=sampling.traces)
    for start in range(0, len(problems), problems_at_once):
        chunk = problems[start : start + problems_at_once]
        whole = {i for i, p in enumerate(chunk) if all((p.id, index) in done for index in range(sampling.traces))}
        if len(whole) == len(chunk):
            continue
        prompts = [prompt_ids(engine.tokenizer, problem.prompt, tags) for problem in chunk]
        seeds = [derive_seed(sampling.seed, problem.id) for problem in chunk]
        by_id = {p.id: p for p in chunk}
        for part in in_parts(engine, [Prompt.of(p) for p in prompts], params, seeds=seeds, done=whole):
            read = [
                make_trace(engine.tokenizer, chunk[i].id, index, prompts[i], completion, tags, budget=sampling.budget)
                for i, group in part.items()
                for index, completion in enumerate(group)
                if (chunk[i].id, index) not in done
            ]
            yield grade_traces(read, by_id, grader)


def _check_window(prompts: Sequence[int], sampling: Sampling, window: int) -> None:
    """Refuses prompts of these lengths that leave no room; warns of a budget that goes beyond the window."""
    if long := [n for n in prompts if n >= window]:
        raise HeadwayError(
            f"{len(long)} of {len(prompts)} prompts are too long: the model was made for {window} tokens, prompt "
            f"included, and the longest prompt has {max(long)}; leave these problems out, or use another model"
        )
    if sampling.budget > window:
        logger.warning(
            f"--budget {sampling.budget} is more than the {window} tokens that the model was made for, and prompts "
            f"take up to {max(prompts)} of them: traces that go on beyond are not reliable"
        )


def make_trace(
    tokenizer: Tokenizer,
    problem_id: str,
    index: int,
    prompt: TokenIds,
    completion: Completion,
    tags: ThinkTags,
    *,
    budget: int | None = None,
) -> Trace:
    """An ungraded trace: the completion with its text, offsets, thinking and answer, cut at `budget` thinking tokens.

    An opening tag that the model wrote itself moves to the prompt, so that budgets count the same either way.
    """
    ids, stop = completion.token_ids, completion.stop
    text, offsets = decode_with_offsets(tokenizer, ids)
    thought = read_thought(text, tags)
    closed, answer = thought.answer is not None, read_answer(text, thought)
    thinking = token_at(offsets, thought.stop) if closed else len(ids)
    if opened := token_at(offsets, thought.start) if thought.start else 0:
        shift = offsets[opened] if opened < len(ids) else len(text)
        prompt, ids, text = prompt + ids[:opened], ids[opened:], text[shift:]
        offsets, thinking = tuple(o - shift for o in offsets[opened:]), thinking - opened
    trace = Trace(problem_id, index, prompt, ids, text, offsets, thinking, closed, stop, answer)
    return trace if budget is None or thinking <= budget else shortened(trace, budget)


def shortened(trace: Trace, end: int) -> Trace:
    """A trace cut at token `end` of its thinking, as if its budget ended there."""
    trace = structs.replace(trace, thinking=end, closed=False, stop="length", answer=None)
    return structs.replace(trace, token_ids=trace.token_ids[:end], text=trace.thought, offsets=trace.offsets[:end])


def grade_traces(traces: Sequence[Graded], problems: dict[str, Problem], grader: Grader) -> list[Graded]:
    """Traces, branches or attempts with their rewards. No answer is a reward of 0.

    A grader with an `extract` of its own (text after the thinking -> answer or None) finds the answers by it.
    """
    if extract := getattr(grader, "extract", None):
        traces = [_reread(t, extract) for t in traces]
    rewards = grade_answers([t.problem_id for t in traces], [t.answer for t in traces], problems, grader)
    return [structs.replace(t, reward=reward) for t, reward in zip(traces, rewards, strict=True)]


def _reread(graded: Graded, extract: Extract) -> Graded:
    """A trace or an attempt with its answer by another rule; a branch has had it since it was made."""
    if graded.answer is None or isinstance(graded, Branch):
        return graded
    text = graded.text[len(graded.thought) :] if isinstance(graded, Trace) else graded.text
    return structs.replace(graded, answer=extract(text))


def grade_answers(
    problem_ids: Sequence[str], answers: Sequence[str | None], problems: dict[str, Problem], grader: Grader
) -> list[float | None]:
    """The rewards of answers; None (no answer) is 0."""
    asked = [(problems[p], a) for p, a in zip(problem_ids, answers, strict=True) if a is not None]
    verdicts = iter(grader.grade(asked))
    return [0.0 if a is None else next(verdicts) for a in answers]
