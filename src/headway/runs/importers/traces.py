"""From rows to traces: where the thinking is, the meta-prover's tokens for it, and the problems they are about."""

from collections import Counter
from typing import Literal, NamedTuple

import jinja2

from headway.procedures.sample import TraceKey
from headway.runs.importers.rows import Row
from headway.text.prompts import ThinkTags, decode_with_offsets, prompt_ids, question_of
from headway.types import HeadwayError, Problem, Tokenizer, Trace

Untagged = Literal["auto", "answer", "thought"]
AUTHOR_TAGS = ThinkTags("<think>", "</think>")


class Said(NamedTuple):
    """A completion, divided: its thinking, and its answer or None where the thinking is not closed."""

    thinking: str
    answer: str | None


def closes_unopened(row: Row, tags: ThinkTags) -> bool:
    """Whether a completion closes a thinking that it did not open: the prompt did, so one without tags was cut off."""
    before, closing, _ = (row.text or "").partition(tags.close)
    return bool(closing) and not (tags.open and before.lstrip().startswith(tags.open))


def divide(row: Row, tags: ThinkTags, *, untagged: Literal["answer", "thought"] = "answer") -> Said:
    """Where the thinking of a completion ends, by the tags of its author.

    Thinking in a field of its own is closed if a text follows, or if the completion ended by itself. In a text it is
    what stands before the closing tag; an opening tag at the start is not part of it, nor the newline after it. Opened
    and not closed, or cut off by its length, all is thinking. A text without tags is what `untagged` says: an answer
    without thinking, or a thought that was cut off.
    """
    text = row.text or ""
    if row.thinking:
        return Said(row.thinking, text if text or row.stop == "stop" else None)
    start = text.lstrip()
    opened = bool(tags.open) and start.startswith(tags.open)
    if opened:
        text = start.removeprefix(tags.open).removeprefix("\n")
    thinking, closing, answer = text.partition(tags.close)
    if closing:
        return Said(thinking, answer)
    cut_off = opened or untagged == "thought" or row.stop == "length"
    return Said(text, None) if cut_off else Said("", text)


class Encoded(NamedTuple):
    """An ungraded trace, the author's answer, and whether the meta-prover's tokens say what the author wrote."""

    trace: Trace
    answer: str | None
    faithful: bool


def encode(
    tokenizer: Tokenizer,
    row: Row,
    said: Said,
    tags: ThinkTags,
    *,
    key: TraceKey,
    budget: int | None = None,
) -> Encoded:
    """A completion as a trace in the tokens of a meta-prover, cut at `budget` thinking tokens.

    Thinking, and the meta-prover's closing tag with the answer, are encoded each by itself: the boundary between them
    is the author's, whatever the thinking says. An end-of-text token at the end is no part of a completion.

    Raises:
        HeadwayError: the chat template refuses the conversation.
    """
    try:
        prompt = prompt_ids(tokenizer, row.conversation, tags)
    except jinja2.TemplateError as error:
        raise HeadwayError(
            f"{row.place}: the meta-prover's chat template refuses the conversation ({error}); give the question "
            "alone as the prompt"
        ) from error
    end = getattr(tokenizer, "eos_token", None)
    thinking = said.thinking if said.answer is not None else _without(end, said.thinking)
    answer = None if said.answer is None else _without(end, said.answer)
    thought = tokenizer.encode(thinking, add_special_tokens=False)
    rest = [] if answer is None else tokenizer.encode(tags.close + answer, add_special_tokens=False)
    stop = row.stop or ("length" if answer is None else "stop")
    if over := budget is not None and len(thought) > budget:
        thought, rest, answer, stop = thought[:budget], [], None, "length"
    text, offsets = decode_with_offsets(tokenizer, [*thought, *rest])
    trace = Trace(*key, prompt, (*thought, *rest), text, offsets, len(thought), answer is not None, stop)
    return Encoded(trace, answer, over or text == thinking + ("" if answer is None else tags.close + answer))


def _without(end: str | None, text: str) -> str:
    return text.rstrip().removesuffix(end) if end and text.rstrip().endswith(end) else text


class Problems:
    """The problems of rows as they come. Rows with the same id, or without ids the same prompt, are traces of one."""

    def __init__(self) -> None:
        self.by_id: dict[str, Problem] = {}
        self.traces: Counter[str] = Counter()
        self._numbered: dict[str, str] = {}

    def of(self, row: Row) -> TraceKey:
        """The trace's key: its problem's id, and how many traces of the problem came before.

        Raises:
            HeadwayError: the row has another prompt or reference answer than an earlier row of the problem.
        """
        prompt = question_of(row.conversation)
        name = row.id if row.id is not None else self._numbered.setdefault(prompt, str(len(self._numbered) + 1))
        try:
            problem = Problem(name, prompt, row.answer)
        except ValueError as error:
            raise HeadwayError(f"{row.place}: {error}") from error
        known = self.by_id.setdefault(name, problem)
        for what, before, now in (
            ("prompt", known.prompt, problem.prompt),
            ("reference answer", known.answer, problem.answer),
        ):
            if before != now:
                raise HeadwayError(
                    f"{row.place}: problem '{name}' has another {what} than in an earlier row ({now[:60]!r}, before "
                    f"{before[:60]!r}); another problem needs another id (--id-column)"
                )
        self.traces[name] += 1
        return name, self.traces[name] - 1
