"""Tables of completions: JSONL and Parquet, with usual column names or those that a user gives."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from headway.problems.rows import Row, read_file
from headway.runs.importers import rows
from headway.runs.importers.rows import CompletionRow, ImportOptions, Source, content_of, text_of
from headway.types import HeadwayError

# usual names of each column, the likeliest first; `messages` last, since it often holds the completion as well
NAMES = {
    "prompt": ("prompt", "question", "problem", "query", "input", "messages"),
    "completion": ("completion", "completions", "response", "responses", "generation", "generations", "output"),
    "answer": ("answer", "reference", "reference_answer", "gold", "target", "ground_truth", "solution"),
    "id": ("id", "problem_id", "question_id"),
    "reasoning": ("reasoning_content", "reasoning", "thinking"),
    "finish": ("finish_reason", "finish_reasons", "stop_reason"),
}
NEEDED = ("prompt", "completion", "answer")
ColumnNames = dict[str, str | None]  # the column of each kind in NAMES, where there is one


def open_table(path: Path, options: ImportOptions) -> Source:
    """The rows of a JSONL or Parquet file; no row, a missing column and a malformed row are each a HeadwayError."""
    records = read_file(path)
    if (first := next(records, None)) is None:
        raise HeadwayError(f"{path} holds no row; expected completions, one a row, with their prompts and answers")
    found = find_columns(options, list(first[1]), path)
    return Source(path.stem, None, read_rows(chain([first], records), found))


def find_columns(options: ImportOptions, there: list[str], path: Path) -> ColumnNames:
    """The columns to read, as named or else found by their names; a missing one is an error."""
    found: ColumnNames = {}
    for kind, names in NAMES.items():
        name = getattr(options, f"{kind}_column", None)
        if name is not None and name not in there:
            raise HeadwayError(f"{path} has no column '{name}'; it has {', '.join(there)}")
        found[kind] = name or next((usual for usual in names if usual in there), None)
    if found["completion"] is None and found["prompt"] == "messages":
        found["completion"] = "messages"
    for kind in NEEDED:
        if found[kind] is None:
            known = f"it has {', '.join(there)}, and Headway looks for {', '.join(NAMES[kind])}"
            raise HeadwayError(f"{path} has no column for the {kind}: {known}; name it with --{kind}-column")
    return found


def read_rows(records: Iterable[Row], columns: ColumnNames) -> Iterator[CompletionRow]:
    """The rows of records: one for each completion; a malformed record is an error."""
    needed = [columns[kind] for kind in (*NEEDED, "id") if columns[kind] is not None]
    for place, record in records:
        if missing := [name for name in needed if name not in record]:
            raise HeadwayError(f"{place}: no '{missing[0]}'; it has {', '.join(record) or 'nothing'}")
        of: dict[str, Any] = {kind: None if name is None else record.get(name) for kind, name in columns.items()}
        conversation, completion = rows.conversation_of(of["prompt"], place), of["completion"]
        if conversation and conversation[-1]["role"] == "assistant":  # the completion, or a copy of it
            conversation = conversation[:-1]
        if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
            completion = completion[-1]  # messages, of which the last is the completion
        if not conversation:
            raise HeadwayError(f"{place}: the prompt is empty; expected text or messages, a user's among them")
        texts = completion if isinstance(completion, list) else [completion]
        if not texts:
            raise HeadwayError(f"{place}: no completion in the list")
        problem = None if columns["id"] is None else text_of(of["id"], "the id", place)
        answer = rows.answer_of(of["answer"], place)
        for i, text in enumerate(texts):
            thinking, content = completion_of(text, _at(of["reasoning"], i, len(texts)), place)
            stop = rows.stop_of(_at(of["finish"], i, len(texts)))
            yield CompletionRow(place, problem, conversation, answer, content, thinking, stop)


def completion_of(value: Any, reasoning: Any, place: str) -> tuple[str | None, str | None]:
    """The thinking (if it is in a separate field) and the text of a completion: text, or an assistant's message."""
    if isinstance(value, dict):
        if value.get("role") != "assistant":
            raise HeadwayError(f"{place}: the completion is a message of role {value.get('role')!r}, not assistant's")
        reasoning = next((value[k] for k in NAMES["reasoning"] if value.get(k) is not None), reasoning)
        value = value.get("content")
    thinking, text = content_of(value, "the completion", place)
    if reasoning is not None:
        thinking = text_of(reasoning, "the reasoning", place)
    if thinking is None and text is None:
        raise HeadwayError(f"{place}: the completion is missing; expected text (it may be empty)")
    return thinking, text or ""


def _at(value: Any, i: int, n: int) -> Any:
    return value[i] if isinstance(value, list) and len(value) == n else value
