"""Extending: "Wait" is appended to the thinking of a trace, and the policy continues.

Budget forcing as in the authors' extrapolation (`pass_at_k_extrapolate.py`), after s1 (arXiv:2501.19393).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, NamedTuple

from headway.choices import Option, Options
from headway.core.segment import PARAGRAPH
from headway.procedures.sample import Sampling, TraceKey, derive_seed, grade_traces, make_trace
from headway.text.offsets import decode_with_offsets, token_at
from headway.text.tags import ThinkTags, opening_of
from headway.types import Completion, Engine, Grader, HeadwayError, Problem, Prompt, TokenIds, Tokenizer, Trace

MARKERS = ("Wait", "But wait", "Alternatively", "But hold on")


class OpenThought(NamedTuple):
    """Thinking that is not closed."""

    token_ids: TokenIds
    tail: str  # the end of its text


class Extension(Options, frozen=True):
    """How traces are extended; of `sampling`, the temperature, top-p, seed and answer tokens count."""

    rounds: Annotated[int, Option('Rounds; each appends "Wait" or a similar marker to the thinking.', least=1)] = 8
    round_tokens: Annotated[int, Option("Maximum tokens of a round.", least=1)] = 2048
    sampling: Sampling = Sampling()
    traces_at_once: int = 64


def extend(
    engine: Engine,
    traces: Sequence[Trace],
    problems: dict[str, Problem],
    grader: Grader,
    tags: ThinkTags,
    extension: Extension,
    *,
    done: Collection[TraceKey] = (),
) -> Iterator[list[Trace]]:
    """Extends each trace, a list for every `traces_at_once` traces.

    A round starts a paragraph with the next of `MARKERS`, and the policy thinks until it closes its thinking. Before
    the next round the closing tag and what follows it are dropped; truncated thinking loses its unfinished paragraph.
    After the last round the policy may answer. Sampled tokens are never encoded again. Chunks are those of `sample`.

    Raises:
        HeadwayError: a round has no room for its marker.
    """
    sampling, at_once = extension.sampling, extension.traces_at_once
    tags = tags._replace(open=tags.open or opening_of(tags))  # a trace's thinking is open, whoever opened it
    for start in range(0, len(traces), at_once):
        chunk = list(traces[start : start + at_once])
        if all(t.key in done for t in chunk):
            yield []
            continue
        thoughts = [_reopened(t) for t in chunk]
        longer: list[Trace] = []
        for r in range(extension.rounds):
            forced = [_forced(engine.tokenizer, thought, MARKERS[r % len(MARKERS)]) for thought in thoughts]
            room = extension.round_tokens - (longest := max(map(len, forced)))
            if room < 1:
                short = f"a round of {extension.round_tokens} tokens has no room after its marker"
                raise HeadwayError(f"{short}; give at least {longest + 1}")
            last = r == extension.rounds - 1
            answer, stop = (sampling.answer_tokens, ()) if last else (0, (tags.close,))
            before = [thought.token_ids + f for thought, f in zip(thoughts, forced, strict=True)]
            prompts = [Prompt.of(t.prompt_ids + ids) for t, ids in zip(chunk, before, strict=True)]
            seeds = [derive_seed(sampling.seed, *t.key, "extend", r) for t in chunk]
            completions = engine.sample(prompts, sampling.params(room + answer, stop=stop), seeds=seeds)
            each = [(ids, completion) for ids, [completion] in zip(before, completions, strict=True)]
            if last:
                whole = [c._replace(token_ids=ids + c.token_ids) for ids, c in each]
                longer = [
                    make_trace(engine.tokenizer, *t.key, t.prompt_ids, c, tags, budget=len(ids) + room)
                    for t, ids, c in zip(chunk, before, whole, strict=True)
                ]
            else:
                thoughts = [_continued(engine.tokenizer, ids, completion, tags) for ids, completion in each]
        yield [t for t in grade_traces(longer, problems, grader) if t.key not in done]


def _reopened(trace: Trace) -> OpenThought:
    """A trace's thinking without its closing tag and answer."""
    ids, text = trace.token_ids[: trace.thinking], trace.thought
    complete = trace.closed or trace.stop == "stop"
    return OpenThought(ids, text) if complete else _without_last_paragraph(ids, text, trace.offsets)


def _continued(tokenizer: Tokenizer, before: TokenIds, completion: Completion, tags: ThinkTags) -> OpenThought:
    """The thinking after a round: up to the closing tag, or without a truncated paragraph."""
    ids = completion.token_ids
    text, offsets = decode_with_offsets(tokenizer, ids)
    closing = text.find(tags.close)
    if closing >= 0:
        ids, text = ids[: token_at(offsets, closing)], text[:closing]
    elif completion.stop == "length":
        ids, text = _without_last_paragraph(ids, text, offsets)
    return OpenThought(before + ids, text)


def _without_last_paragraph(ids: TokenIds, text: str, offsets: Sequence[int]) -> OpenThought:
    """Tokens that begin before the last blank line; all of them where there is none."""
    blank = text.rfind(PARAGRAPH)
    end = token_at(offsets, blank) if blank >= 0 else len(ids)
    return OpenThought(ids[:end], text[: offsets[end]] if end < len(offsets) else text)


def _forced(tokenizer: Tokenizer, thought: OpenThought, marker: str) -> TokenIds:
    """A marker as a new paragraph: its tokens, with the newlines that a blank line still needs."""
    ended = len(thought.tail) - len(thought.tail.rstrip("\n"))
    glue = "\n" * max(0, len(PARAGRAPH) - ended) if thought.token_ids else ""
    return tuple(tokenizer.encode(glue + marker, add_special_tokens=False))
