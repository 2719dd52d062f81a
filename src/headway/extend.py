"""Extending: traces in, longer traces out. A thought that has ended is told to wait, and the policy goes on.

Budget forcing as in the authors' extrapolation (`pass_at_k_extrapolate.py`), after s1 (arXiv:2501.19393).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from headway.prompts import ThinkTags, decode_with_offsets, opening_of, token_at
from headway.sample import TraceKey, derive_seed, grade_traces, make_trace
from headway.segment import PARAGRAPH
from headway.types import (
    Completion,
    Engine,
    Grader,
    HeadwayError,
    Problem,
    Prompt,
    SamplingParams,
    TokenIds,
    Tokenizer,
    Trace,
)

MARKERS = ("Wait", "But wait", "Alternatively", "But hold on")


class Thought(NamedTuple):
    """An open thought: its tokens, and the end of its text."""

    token_ids: TokenIds
    tail: str


def extend(
    engine: Engine,
    traces: Sequence[Trace],
    problems: dict[str, Problem],
    grader: Grader,
    tags: ThinkTags,
    *,
    rounds: int,
    round_tokens: int,
    answer_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    traces_at_once: int = 64,
    done: Collection[TraceKey] = (),
) -> Iterator[list[Trace]]:
    """Extends each trace by so many rounds of `round_tokens` tokens, a list for every `traces_at_once` traces.

    A round opens a paragraph with the next of `MARKERS`, encoded once, and lets the policy think until it closes its
    thinking. A closing tag and what follows it are dropped before the next round; a thought that was cut off by its
    length loses its unfinished paragraph. After the last round the policy may answer. The tokens that were kept are
    never encoded again. The division of the work is fixed, as in `sample`.

    Raises:
        HeadwayError: a round has no room for its marker.
    """
    tags = tags._replace(open=tags.open or opening_of(tags))  # whoever opened the thinking: in a trace it is open
    for start in range(0, len(traces), traces_at_once):
        chunk = list(traces[start : start + traces_at_once])
        if all((t.problem_id, t.index) in done for t in chunk):
            yield []
            continue
        thoughts = [_reopened(t) for t in chunk]
        longer: list[Trace] = []
        for r in range(rounds):
            forced = [(_forced(engine.tokenizer, thought, MARKERS[r % len(MARKERS)])) for thought in thoughts]
            room = round_tokens - max(len(f) for f in forced)
            if room < 1:
                raise HeadwayError(
                    f"a round of {round_tokens} tokens has no room after its marker; give at least "
                    f"{round_tokens - room + 1}"
                )
            last = r == rounds - 1
            params = SamplingParams(
                max_tokens=room + (answer_tokens if last else 0),
                temperature=temperature,
                top_p=top_p,
                stop=() if last else (tags.close,),
            )
            before = [thought.token_ids + f for thought, f in zip(thoughts, forced, strict=True)]
            completions = engine.sample(
                [Prompt.of(t.prompt_ids + ids) for t, ids in zip(chunk, before, strict=True)],
                params,
                seeds=[derive_seed(seed, t.problem_id, t.index, "extend", r) for t in chunk],
            )
            if last:
                longer = [
                    make_trace(
                        engine.tokenizer, t.problem_id, t.index, t.prompt_ids,
                        Completion(ids + completion.token_ids, completion.stop), tags, budget=len(ids) + room,
                    )
                    for t, ids, [completion] in zip(chunk, before, completions, strict=True)
                ]  # fmt: skip
            else:
                thoughts = [
                    _went_on(engine.tokenizer, ids, completion, tags)
                    for ids, [completion] in zip(before, completions, strict=True)
                ]
        yield [t for t in grade_traces(longer, problems, grader, tags) if (t.problem_id, t.index) not in done]


def _reopened(trace: Trace) -> Thought:
    """A trace's thinking, open again."""
    ids, text = trace.token_ids[: trace.thinking], trace.thought
    if trace.closed or trace.stop == "stop":
        return Thought(ids, text)
    return _without_last_paragraph(ids, text, trace.offsets)


def _went_on(tokenizer: Tokenizer, before: TokenIds, completion: Completion, tags: ThinkTags) -> Thought:
    """The thought after a round: up to the closing tag, or without the paragraph that its length cut off."""
    ids = completion.token_ids
    text, offsets = decode_with_offsets(tokenizer, ids)
    closing = text.find(tags.close)
    if closing >= 0:
        end = token_at(offsets, closing)
        return Thought(before + ids[:end], text[:closing])
    if completion.stop == "stop":
        return Thought(before + ids, text)
    kept = _without_last_paragraph(ids, text, offsets)
    return Thought(before + kept.token_ids, kept.tail)


def _without_last_paragraph(ids: TokenIds, text: str, offsets: Sequence[int]) -> Thought:
    """Tokens that begin before the last blank line; all of them where there is none."""
    blank = text.rfind(PARAGRAPH)
    if blank < 0:
        return Thought(ids, text)
    end = token_at(offsets, blank)
    return Thought(ids[:end], text[: offsets[end]] if end < len(offsets) else text)


def _forced(tokenizer: Tokenizer, thought: Thought, marker: str) -> TokenIds:
    """A marker that opens a paragraph after the thought: as many line ends as a blank line still needs."""
    ended = len(thought.tail) - len(thought.tail.rstrip("\n"))
    glue = "\n" * max(0, len(PARAGRAPH) - ended) if thought.token_ids else ""
    return tuple(tokenizer.encode(glue + marker, add_special_tokens=False))
