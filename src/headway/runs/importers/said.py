"""What a completion says, in the forms that servers, logs and data sets give it."""

import reprlib
from collections.abc import Iterator
from typing import Any

from headway.problems.columns import NAMES
from headway.problems.fields import (
    PARTS,
    BadRow,
    content_of,
    conversation_of,
    is_message,
    role_of,
    said_in,
    text_of,
)
from headway.types import Message

# where a result that is an object keeps the completion, the likeliest first
INSIDE = ("text", "full_model_response", "response", "completion", "generation", "output", "model_output")
Said = tuple[tuple[Message, ...], str | None, str, Any]  # earlier turns, thinking, text, why it ended


def completions_in(value: Any, place: str, *, depth: int = 0) -> Iterator[Any]:
    """The completions in a field: texts, messages, or objects with them; nested lists and responses are opened."""
    if isinstance(value, dict) and not is_message(value):
        for key in ("body", "choices"):
            if isinstance(value.get(key), dict | list):
                yield from completions_in(value[key], place, depth=depth)
                return
        if isinstance(output := value.get("output"), list) and output and all(map(_is_item, output)):
            value = output
    if not isinstance(value, list) or (value and any(all(map(of, value)) for of in (is_message, _is_item, _is_part))):
        yield value
        return
    if depth > 1:
        scored = "; a task that scores given choices has no trace, and Headway reads texts in at most two lists"
        raise BadRow(place, "the completion is a list of lists of lists", scored)
    for inner in value:
        yield from completions_in(inner, place, depth=depth + 1)


def said(value: Any, reasoning: Any, place: str) -> Said:
    """What one completion says, `reasoning` being the thinking in a field beside it."""
    earlier: tuple[Message, ...] = ()
    stop = None
    if isinstance(value, list) and all(map(_is_item, value)):
        value = {"role": "assistant", "content": [part for item in value for part in _parts(item)]}
    elif isinstance(value, list) and not all(map(_is_part, value)):  # messages, of which the last is the completion
        earlier, value = conversation_of(value[:-1], place) if value[1:] else (), value[-1]
    if isinstance(value, dict) and not is_message(value):  # a choice, or a result
        stop = value.get("finish_reason")
        reasoning = _reasoning(value, reasoning)
        inner = next((value[key] for key in ("message", *INSIDE) if value.get(key) is not None), None)
        if isinstance(inner, dict) and not is_message(inner):
            raise BadRow(place, "the completion is an object without a text", f": {reprlib.repr(value)}")
        value = inner
    if isinstance(value, dict):
        if role_of(value) != "assistant":
            other = value.get("role") or value.get("from")
            raise BadRow(place, f"the completion is a message of role {other!r:.40}", ", not assistant's")
        if value.get("tool_calls"):
            raise BadRow(place, "the completion calls tools", ": its trace is not a single completion")
        reasoning, value = _reasoning(value, reasoning), said_in(value)
    thinking, text = content_of(value, "the completion", place)
    if reasoning is not None:
        thinking = content_of(reasoning, "the reasoning", place)[1] if isinstance(reasoning, list) else text_of(
            reasoning, "the reasoning", place
        )  # fmt: skip
    if thinking is None and text is None:
        raise BadRow(place, "the completion is missing", "; expected text (it may be empty)")
    return earlier, thinking, text or "", stop


def _reasoning(value: dict[str, Any], otherwise: Any) -> Any:
    return next((value[key] for group in NAMES["reasoning"] for key in group if value.get(key) is not None), otherwise)


def _is_item(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in ("message", "reasoning") and "content" in value


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in PARTS and not is_message(value)


def _parts(item: dict[str, Any]) -> list[Any]:
    """The parts of an item: of a message, or of reasoning (none are hidden reasoning)."""
    content = item.get("content")
    content = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return content or ([{"type": "redacted_thinking"}] if item["type"] == "reasoning" else [])
