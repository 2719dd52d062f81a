"""From completions to traces: where the thinking ends, its tokens for the meta-prover, and the problems."""

from collections import Counter
from typing import Literal, NamedTuple

import jinja2

from headway.procedures.sample import TraceKey
from headway.runs.importers.rows import CompletionRow
from headway.text.offsets import decode_with_offsets
from headway.text.prompts import prompt_ids, question_of
from headway.text.tags import ThinkTags
from headway.types import HeadwayError, Problem, Tokenizer, Trace


class SplitCompletion(NamedTuple):
    """The thinking of a completion, and its answer; None where the thinking is not closed."""

    thinking: str
    answer: str | None


def closes_unopened(row: CompletionRow, tags: ThinkTags) -> bool:
    """Whether a completion closes thinking that the prompt opened; in its file, one without tags was cut off."""
    before, closing, _ = (row.text or "").partition(tags.close)
    return bool(closing) and not (tags.open and before.lstrip().startswith(tags.open))


def divide(
    row: CompletionRow, tags: ThinkTags, *, untagged: Literal["answer", "thought"] = "answer"
) -> SplitCompletion:
    """Splits a completion into thinking and answer by the tags of its author.

    Thinking in a separate field is closed if a text follows, or if the completion ended by itself. An opening tag and
    the newline after it are not part of the thinking. If it is opened and not closed, or cut off by its length, all
    text is thinking. A text without tags is, as `untagged` says, an answer or thinking that was cut off.
    """
    text = row.text or ""
    if row.thinking:
        return SplitCompletion(row.thinking, text if text or row.stop == "stop" else None)
    start = text.lstrip()
    opened = bool(tags.open) and start.startswith(tags.open)
    if opened:
        text = start.removeprefix(tags.open).removeprefix("\n")
    thinking, closing, answer = text.partition(tags.close)
    if closing:
        return SplitCompletion(thinking, answer)
    cut_off = opened or untagged == "thought" or row.stop == "length"
    return SplitCompletion(text, None) if cut_off else SplitCompletion("", text)


class Encoded(NamedTuple):
    """An ungraded trace, the author's answer, and whether the text round-trips through the meta-prover's tokens."""

    trace: Trace
    answer: str | None
    faithful: bool


def encode(
    tokenizer: Tokenizer,
    row: CompletionRow,
    split: SplitCompletion,
    tags: ThinkTags,
    *,
    key: TraceKey,
    budget: int | None = None,
) -> Encoded:
    """A completion as a trace in the tokens of a meta-prover, cut at `budget` thinking tokens.

    The thinking is encoded by itself, and so is the closing tag with the answer: it ends where the author's does. An
    end-of-text token at the end is left out.
    """
    try:
        prompt = prompt_ids(tokenizer, row.conversation, tags)
    except jinja2.TemplateError as error:
        refused = f"{row.place}: the meta-prover's chat template refuses the conversation ({error})"
        raise HeadwayError(f"{refused}; give the question alone as the prompt") from error
    end = getattr(tokenizer, "eos_token", None)
    thinking = split.thinking if split.answer is not None else _without(end, split.thinking)
    answer = None if split.answer is None else _without(end, split.answer)
    after = "" if answer is None else tags.close + answer
    thought = tokenizer.encode(thinking, add_special_tokens=False)
    rest = [] if answer is None else tokenizer.encode(after, add_special_tokens=False)
    stop = row.stop or ("length" if answer is None else "stop")
    if over := budget is not None and len(thought) > budget:
        thought, rest, answer, stop = thought[:budget], [], None, "length"
    text, offsets = decode_with_offsets(tokenizer, [*thought, *rest])
    trace = Trace(*key, prompt, (*thought, *rest), text, offsets, len(thought), answer is not None, stop)
    return Encoded(trace, answer, over or text == thinking + after)


def _without(end: str | None, text: str) -> str:
    return text.rstrip().removesuffix(end) if end and text.rstrip().endswith(end) else text


class Problems:
    """The problems of rows. Rows with the same id, or without ids the same prompt, are traces of one problem."""

    def __init__(self) -> None:
        self.by_id: dict[str, Problem] = {}
        self.traces: Counter[str] = Counter()
        self._numbered: dict[str, str] = {}

    def of(self, row: CompletionRow) -> TraceKey:
        """The trace's key; another prompt or reference answer than in an earlier row of the problem is an error."""
        prompt = question_of(row.conversation)
        name = row.id if row.id is not None else self._numbered.setdefault(prompt, str(len(self._numbered) + 1))
        try:
            problem = Problem(name, prompt, row.answer)
        except ValueError as error:
            raise HeadwayError(f"{row.place}: {error}") from error
        known = self.by_id.setdefault(name, problem)
        for what, field in (("prompt", "prompt"), ("reference answer", "answer")):
            if (before := getattr(known, field)) != (now := getattr(problem, field)):
                differ = f"another {what} than in an earlier row ({now[:60]!r}, before {before[:60]!r})"
                raise HeadwayError(f"{row.place}: problem '{name}' has {differ}; give it another id (--id-column)")
        self.traces[name] += 1
        return name, self.traces[name] - 1
