"""Completions as a file holds them, one a row, and how the file is read."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from headway.choices import Option, Options
from headway.text.tags import FORMATS, ThinkTags
from headway.text.thoughts import WRITTEN
from headway.types import HeadwayError, Message

Stop = Literal["stop", "length"]
Untagged = Literal["auto", "answer", "thought"]
LENGTH = {"length", "max_tokens", "max_length", "model_length", "max_output_tokens"}
ENDED = {"stop", "eos", "end_turn", "eos_token", "completed"}


class ImportOptions(Options, frozen=True):
    """How a file of completions is read; the columns are those of tables, by default found by name."""

    # untagged: auto is as the file's other completions show (`traces.survey`)
    author: Annotated[str | None, Option("Model that wrote the completions, if the file does not name it.")] = None
    budget: Annotated[int | None, Option("Thinking tokens at which traces are cut; default: no cut.", least=1)] = None
    prompt_column: Annotated[str | None, Option("Column of the prompt or messages.")] = None
    completion_column: Annotated[str | None, Option("Column of the completion or completions.")] = None
    answer_column: Annotated[str | None, Option("Column of the reference answer.")] = None
    id_column: Annotated[str | None, Option("Column that identifies the problem.")] = None
    reasoning_column: Annotated[str | None, Option("Column of the thinking, if separate.")] = None
    limit: Annotated[int | None, Option("Number of completions, from the first; default: all.", least=1)] = None
    skip_bad: Annotated[bool, Option("Leave out rows that cannot be used, and count them.")] = False
    author_think_open: Annotated[str | None, Option("Text that opens the thinking; default: found.")] = None
    author_think_close: Annotated[str | None, Option("Text that closes the thinking; default: found.")] = None
    untagged: Annotated[Untagged, Option("What a completion without think tags is.")] = "auto"

    @property
    def author_tags(self) -> tuple[ThinkTags, ...]:
        """The think tags that completions may have: those that are given, with <think> for one that is not, or all."""
        opens, closes = self.author_think_open, self.author_think_close
        if opens is None and closes is None:
            return WRITTEN
        if closes == "":
            raise HeadwayError("--author-think-close is empty; give the text that closes the thinking")
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


def stop_of(value: object) -> Stop | None:
    """Why a completion ended, from what servers and logs write (a word, an object with its `type`, whether it was
    truncated); None where unknown."""
    if isinstance(value, dict):
        value = value.get("type")
    if value is True or (isinstance(value, str) and value.lower() in LENGTH):
        return "length"
    return "stop" if isinstance(value, str) and value.lower() in ENDED else None
