"""Sampling: problems in, graded traces out."""

import hashlib
from collections.abc import Collection, Iterator, Sequence

from headway.graders import extract_answer
from headway.prompts import ThinkTags, decode_with_offsets, prompt_ids, read_thought, token_at
from headway.types import Completion, Engine, Grader, Problem, Prompt, SamplingParams, TokenIds, Tokenizer, Trace

TraceKey = tuple[str, int]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from a run's seed and what a request is for: the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def sample(
    engine: Engine,
    problems: Sequence[Problem],
    grader: Grader,
    tags: ThinkTags,
    *,
    traces: int,
    budget: int,
    answer_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    problems_at_once: int = 32,
    done: Collection[TraceKey] = (),
) -> Iterator[list[Trace]]:
    """Samples `traces` traces of each problem, a list for every `problems_at_once` problems.

    Each thinks at most `budget` tokens and then has `answer_tokens` for its answer; one that would think longer is
    cut at the budget. The division of the work is fixed, so a run that skips what is `done` makes the same traces as
    one that was never stopped.
    """
    params = SamplingParams(n=traces, max_tokens=budget + answer_tokens, temperature=temperature, top_p=top_p)
    for start in range(0, len(problems), problems_at_once):
        chunk = problems[start : start + problems_at_once]
        if all((problem.id, index) in done for problem in chunk for index in range(traces)):
            yield []
            continue
        prompts = [prompt_ids(engine.tokenizer, problem.prompt, tags) for problem in chunk]
        seeds = [derive_seed(seed, problem.id) for problem in chunk]
        completions = engine.sample([Prompt.of(p) for p in prompts], params, seeds=seeds)
        read = [
            make_trace(engine.tokenizer, problem.id, index, prompt, completion, tags, budget=budget)
            for problem, prompt, group in zip(chunk, prompts, completions, strict=True)
            for index, completion in enumerate(group)
        ]
        by_id = {problem.id: problem for problem in chunk}
        yield [t for t in grade_traces(read, by_id, grader, tags) if (t.problem_id, t.index) not in done]


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
    """An ungraded trace: the completion with its text, offsets and thinking, cut at `budget` thinking tokens.

    An opening tag that the model wrote itself goes to the prompt, where the template would have put it: the thought
    begins after it, and budgets count the same either way.
    """
    ids, stop = completion.token_ids, completion.stop
    text, offsets = decode_with_offsets(tokenizer, ids)
    thought = read_thought(text, tags)
    closed = thought.answer is not None
    thinking = token_at(offsets, thought.stop) if closed else len(ids)
    if opened := token_at(offsets, thought.start) if thought.start else 0:
        shift = offsets[opened] if opened < len(ids) else len(text)
        prompt, ids, text = prompt + ids[:opened], ids[opened:], text[shift:]
        offsets, thinking = tuple(o - shift for o in offsets[opened:]), thinking - opened
    if budget is not None and thinking > budget:
        ids, text, offsets = ids[:budget], text[: offsets[budget]], offsets[:budget]
        thinking, closed, stop = budget, False, "length"
    return Trace(problem_id, index, prompt, ids, text, offsets, thinking, closed, stop)


def answer_of(trace: Trace, tags: ThinkTags) -> str | None:
    """The answer in what follows a trace's thinking, or in all of a trace that did not think."""
    if not trace.closed:
        return None
    _, closing, answer = trace.text.partition(tags.close)
    return extract_answer(answer if closing else trace.text)


def grade_traces(
    traces: Sequence[Trace], problems: dict[str, Problem], grader: Grader, tags: ThinkTags
) -> list[Trace]:
    """The traces with their answers and rewards. No answer, or thinking that is not closed, is a reward of 0."""
    answers = [answer_of(t, tags) for t in traces]
    rewards = grade_answers([t.problem_id for t in traces], answers, problems, grader)
    return [
        Trace(
            t.problem_id, t.index, t.prompt_ids, t.token_ids, t.text, t.offsets, t.thinking, t.closed, t.stop,
            answer, reward,
        )
        for t, answer, reward in zip(traces, answers, rewards, strict=True)
    ]  # fmt: skip


def grade_answers(
    problem_ids: Sequence[str], answers: Sequence[str | None], problems: dict[str, Problem], grader: Grader
) -> list[float | None]:
    """The rewards of answers; None (no answer) is 0."""
    asked = [(problems[p], a) for p, a in zip(problem_ids, answers, strict=True) if a is not None]
    verdicts = iter(grader.grade(asked))
    return [0.0 if a is None else next(verdicts) for a in answers]
