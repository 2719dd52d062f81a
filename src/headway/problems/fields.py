"""What fields of a row hold: texts, messages, reference answers. Each function checks a value of a hostile file."""

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from headway.problems.rendered import turns_in
from headway.text.answers import BOX, extract_answer
from headway.types import HeadwayError, Message

MAX_TEXT = 2**22  # characters of a text: a million tokens and more
EXACT_INTEGERS = 2.0**53  # floats up to here represent integers exactly
LONGEST_BARE = 100  # characters of a solution that may be the answer itself
ROLES = {
    "user": "user", "human": "user", "system": "system", "developer": "developer",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
SAID = ("content", "value", "prompt")  # the text of a message: OpenAI's, ShareGPT's, OpenCompass's
THOUGHTS = ("reasoning", "thinking", "reasoning_text", "redacted_thinking")  # types of parts
PARTS = (*THOUGHTS, "text", "output_text", "input_text")


T = TypeVar("T")


class BadRow(HeadwayError):
    """A row that cannot be used: its place, the reason by which such rows are counted, and more."""

    def __init__(self, place: str, reason: str, more: str = "") -> None:
        super().__init__(f"{place}: {reason}{more}")
        self.reason = reason


Bad = Callable[[BadRow], None]  # what is done with one


def refused(error: BadRow) -> None:
    """Raises it."""
    raise HeadwayError(f"{error}. Rows that cannot be used are left out and counted with --skip-bad") from error


def usable(rows: Iterable[T], place: str, bad: Bad) -> Iterator[T]:
    """What a record of a file holds; if it cannot be used it goes to `bad`, whole."""
    try:
        yield from list(rows)
    except BadRow as error:
        bad(error)
    except RecursionError:
        bad(BadRow(place, "objects nested too deep"))


class LeftOut(Counter[str]):
    """Rows left out, counted by reason."""

    def __call__(self, error: BadRow) -> None:
        """Counts one."""
        self[error.reason] += 1

    def __str__(self) -> str:
        return f"{self.total()} rows left out: " + "; ".join(f"{n} × {why}" for why, n in self.most_common())


def text_of(value: object, what: str, place: str) -> str:
    """A text that can be written as UTF-8, or a number as text, without a redundant point (142.0 is `142`)."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) <= EXACT_INTEGERS else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadRow(place, f"{what} is {type(value).__name__}", f" {reprlib.repr(value)}; expected text")
    if len(value) > MAX_TEXT:
        raise BadRow(place, f"{what} is longer than {MAX_TEXT} characters", f": it has {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(place, f"{what} is no valid Unicode", f" ({error.reason}); write it as UTF-8") from error
    return value


def content_of(content: object, what: str, place: str) -> tuple[str | None, str | None]:
    """The reasoning and the text (or None) of a message's content; images and hidden reasoning are refused."""
    if content is None or isinstance(content, str):
        return None, None if content is None else text_of(content, what, place)
    if not isinstance(content, list):
        raise BadRow(place, f"{what} is {type(content).__name__}", f" {reprlib.repr(content)}; expected text or parts")
    said: dict[bool, str] = {}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get(kind, part.get("text")) if isinstance(kind, str) else None
        if kind in THOUGHTS and (value is None or part.get("redacted") or (not value and part.get("signature"))):
            raise BadRow(place, "the reasoning was hidden by the model's server", "; import completions that show it")
        if kind not in PARTS:
            raise BadRow(place, f"{what} has a part of type {kind!r:.40}", "; Headway reads text only")
        text = content_of(value, what, place)[1] if isinstance(value, list) else text_of(value, what, place)
        said[kind in THOUGHTS] = said.get(kind in THOUGHTS, "") + (text or "")
    return said.get(True), said.get(False)


def is_message(value: object) -> bool:
    """Whether a value is a message, of OpenAI's form or ShareGPT's."""
    return isinstance(value, dict) and (isinstance(value.get("role"), str) or isinstance(value.get("from"), str))


def role_of(message: dict[str, Any]) -> str | None:
    """The role of a message, in OpenAI's word."""
    return ROLES.get(str(message.get("role") or message.get("from")).lower())


def said_in(message: dict[str, Any]) -> object:
    """What a message says."""
    return next((message[key] for key in SAID if message.get(key) is not None), None)


def conversation_of(value: object, place: str) -> tuple[Message, ...]:
    """A prompt (the user's turn) or a list of messages, also as JSON or in a chat template; without calls of tools."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        [value] = value
    if isinstance(value, str) and value.startswith("[{") and len(value) <= MAX_TEXT:
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            read = None
        value = read if isinstance(read, list) and all(map(is_message, read)) else value
    if is_message(value):
        value = [value]
    if not isinstance(value, list):
        asked = text_of(value, "the prompt", place)
        try:
            value = turns_in(asked) or [{"role": "user", "content": asked}]
        except ValueError as error:
            advice = "; name the column of the bare question with --prompt-column"
            raise BadRow(place, str(error), f" that Headway does not read: {asked[:60]!r}{advice}") from error
    messages: list[Message] = []
    for message in value:
        if not is_message(message):
            raise BadRow(place, "the prompt is a list of other things than messages", f": {reprlib.repr(message)}")
        if (role := role_of(message)) is None:
            expected = "; expected system, user or assistant: Headway measures single completions, without tools"
            other = message.get("role") or message.get("from")
            raise BadRow(place, f"a message of the prompt has the role {other!r:.40}", expected)
        _, text = content_of(said_in(message), f"the {role}'s message", place)
        messages.append({"role": role, "content": text or ""})
    if not messages:
        raise BadRow(place, "the prompt is empty", "; expected text or messages, a user's among them")
    return tuple(messages)


def reference_of(value: object, place: str, *, solution: bool = False) -> str:
    """A reference answer: the content of a solution's box, the number after its `####` (GSM8K), or all of it.

    A list of one, also written as JSON, is what it holds. With `solution`, a long text without box and `####` is
    refused: it is a derivation, not an answer.
    """
    if isinstance(value, str) and value.startswith('["') and value.endswith('"]'):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    if isinstance(value, list) and value:
        raise BadRow(place, "several reference answers", f" ({len(value)}); Headway grades against one")
    text = "" if value is None or value == [] else text_of(value, "the reference answer", place).strip()
    if BOX in text:
        answer = extract_answer(text)
    elif "####" in text:
        answer = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.rpartition("####")[2].strip())
    elif solution and (len(text) > LONGEST_BARE or "\n" in text):
        advice = "; name the column of the final answer with --answer-column"
        raise BadRow(place, "the solution has neither a box nor ####", advice)
    else:
        answer = text
    if not answer:
        raise BadRow(place, "the reference answer is missing", "; without one nothing can be graded")
    return answer
