"""Completions as a file holds them, one a row: how the file is read, and what each kind of field may hold.

Files are hostile: each function checks a value and raises a HeadwayError that names its place.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from headway.choices import Option, Options
from headway.text.answers import BOX, extract_answer
from headway.text.tags import FORMATS, ThinkTags
from headway.text.thoughts import WRITTEN
from headway.types import HeadwayError, Message

Stop = Literal["stop", "length"]
Untagged = Literal["auto", "answer", "thought"]
LENGTH = {"length", "max_tokens", "max_length", "model_length"}


class ImportOptions(Options, frozen=True):
    """How a file of completions is read; the columns are those of JSONL and Parquet, by default found by name."""

    # untagged: auto is as the file's other completions show (`traces.survey`)
    author: Annotated[str | None, Option("Model that wrote the completions, if the file does not name it.")] = None
    budget: Annotated[int | None, Option("Thinking tokens at which traces are cut; default: no cut.", least=1)] = None
    prompt_column: Annotated[str | None, Option("Column of the prompt or messages.")] = None
    completion_column: Annotated[str | None, Option("Column of the completion or completions.")] = None
    answer_column: Annotated[str | None, Option("Column of the reference answer.")] = None
    id_column: Annotated[str | None, Option("Column that identifies the problem.")] = None
    reasoning_column: Annotated[str | None, Option("Column of the thinking, if separate.")] = None
    author_think_open: Annotated[str | None, Option("Text that opens the thinking; default: found.")] = None
    author_think_close: Annotated[str | None, Option("Text that closes the thinking; default: found.")] = None
    untagged: Annotated[Untagged, Option("What a completion without think tags is.")] = "auto"

    @property
    def author_tags(self) -> tuple[ThinkTags, ...]:
        """The think tags that completions may have: those that are given, with <think> for one that is not, or all."""
        opens, closes = self.author_think_open, self.author_think_close
        if opens is None and closes is None:
            return WRITTEN
        known = FORMATS["think"]
        return (ThinkTags(known.open.strip() if opens is None else opens, known.close if closes is None else closes),)


class CompletionRow(NamedTuple):
    """One completion of one problem; none (the request failed) where it has neither thinking nor text."""

    place: str
    id: str | None
    conversation: tuple[Message, ...]
    answer: str
    text: str | None
    thinking: str | None = None  # a separate field; without one it is in the text, between tags
    stop: Stop | None = None  # None where the file does not say


class Source(NamedTuple):
    """The content of a file: the name of its problems, the author of the completions (if it says so), and the rows."""

    name: str
    author: str | None
    rows: Iterator[CompletionRow]


def text_of(value: object, what: str, place: str) -> str:
    """A string that can be written as UTF-8, or a number as one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise HeadwayError(f"{place}: {what} is {_shown(value)}; expected text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise HeadwayError(f"{place}: {what} is no valid Unicode ({error.reason}); write it as UTF-8") from error
    return value


def content_of(content: object, what: str, place: str) -> tuple[str | None, str | None]:
    """The reasoning and the text (or None) of a message's content; images and hidden reasoning are refused."""
    if content is None or isinstance(content, str):
        return None, None if content is None else text_of(content, what, place)
    if not isinstance(content, list):
        raise HeadwayError(f"{place}: {what} is {_shown(content)}; expected text or a list of parts")
    said: dict[str, str] = {}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "reasoning"):
            raise HeadwayError(f"{place}: {what} has a part of type {kind!r}; Headway reads text only")
        if part.get("redacted"):
            hidden = "the reasoning was hidden by the model's server; import completions that show it"
            raise HeadwayError(f"{place}: {hidden}")
        said[kind] = said.get(kind, "") + text_of(part.get(kind), what, place)
    return said.get("reasoning"), said.get("text")


def conversation_of(value: object, place: str) -> tuple[Message, ...]:
    """A prompt (the user's turn) or a list of messages, without calls of tools."""
    if not isinstance(value, list):
        return ({"role": "user", "content": text_of(value, "the prompt", place)},)
    messages: list[Message] = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            expected = "expected system, user or assistant: Headway measures single completions, without tools"
            raise HeadwayError(f"{place}: a message of the prompt has the role {role!r}; {expected}")
        _, text = content_of(message.get("content"), f"the {role}'s message", place)
        messages.append({"role": role, "content": text or ""})
    return tuple(messages)


def answer_of(value: object, place: str) -> str:
    """A reference answer: the content of a solution's box, the text after its `####` (GSM8K), or all of it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and value:
        raise HeadwayError(f"{place}: {len(value)} reference answers; Headway grades against one")
    text = "" if value is None or value == [] else text_of(value, "the reference answer", place)
    answer = extract_answer(text) if BOX in text else text.rpartition("####")[2].strip()
    if not answer:
        raise HeadwayError(f"{place}: the reference answer is missing; without one nothing can be graded")
    return answer


def stop_of(value: object) -> Stop | None:
    """Why a completion ended, from the words that servers and logs use; None where unknown."""
    if value in LENGTH:
        return "length"
    return "stop" if value in ("stop", "eos", "end_turn", "eos_token") else None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'…' if len(text) > 60 else ''}"
