"""Tables of completions, one record a row: files of results as tools and data sets write them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.problems.columns import MISSING, NAMES, SOLUTIONS, find_columns, listed, reach, roots
from headway.problems.fields import Bad, BadRow, conversation_of, reference_of, refused, text_of, usable
from headway.problems.files import Row, Table, locate, open_file
from headway.problems.rows import peek
from headway.runs.importers.rows import CompletionRow, ImportOptions, Source, stop_of
from headway.runs.importers.said import completions_in, said
from headway.types import HeadwayError, Message

NEEDED = ("prompt", "completion", "answer")


def open_table(path: Path, options: ImportOptions, bad: Bad = refused) -> Source:
    """The rows of a file; no row, and columns that are missing or unclear, are a HeadwayError."""
    given = {kind: getattr(options, f"{kind}_column", None) for kind in NAMES}
    sample, table = peek(open_file(path, roots(given.values()), bad), options.limit)
    if not sample:
        raise HeadwayError(f"{path} holds no row; expected completions, one a row, with their prompts and answers")
    advice = ""
    if any("custom_id" in row for row in sample):
        advice = " (a batch output has neither prompts nor references: join it with its requests by custom_id)"
    columns = find_columns(given, sample, where=f"{path}{advice}", unread=table.unread, needed=NEEDED)
    return Source(locate(path)[0].stem, None, read_rows(table, columns, bad))


def read_rows(table: Table, columns: Mapping[str, str | None], bad: Bad = refused) -> Iterator[CompletionRow]:
    """The rows of records: one for each completion. lm-eval writes a record for each of its filters: one is read."""
    of_filter = None
    for place, record in table.rows:
        if "filtered_resps" in record and "filter" in record:
            of_filter = record["filter"] if of_filter is None else of_filter
            if record["filter"] != of_filter:
                continue
        yield from usable(_read((place, record), columns), place, bad)


def _read(row: Row, columns: Mapping[str, str | None]) -> Iterator[CompletionRow]:
    place, record = row
    of = {kind: reach(record, path) for kind, path in columns.items()}
    if missing := [columns[kind] for kind in (*NEEDED, "id") if columns[kind] is not None and of[kind] is MISSING]:
        raise BadRow(place, f"no '{missing[0]}'", f"; it has {listed(record)}")
    of = {kind: None if value is MISSING else value for kind, value in of.items()}
    if not isinstance(of["reasoning"], str | list):  # a switch, say: `"thinking": true`
        of["reasoning"] = None
    conversation = conversation_of(of["prompt"], place)
    if conversation[-1]["role"] == "assistant":  # the completion, or a copy of it
        conversation = conversation[:-1]
    if isinstance(of["system"], str) and of["system"].strip() and all(m["role"] != "system" for m in conversation):
        system = text_of(of["system"], "the system prompt", place)
        conversation = ({"role": "system", "content": system}, *conversation)
    problem = None if columns["id"] is None else text_of(of["id"], "the id", place)
    answer = reference_of(of["answer"], place, solution=str(columns["answer"]).lower() in SOLUTIONS)
    completions = list(completions_in(of["completion"], place))
    if not completions:
        raise BadRow(place, "the completion is missing", ": an empty list; expected text (it may be empty)")
    for i, completion in enumerate(completions):
        earlier, thinking, text, stop = said(completion, _at(of["reasoning"], i, len(completions)), place)
        asked = conversation if columns["completion"] == columns["prompt"] else _before(conversation, earlier)
        if not asked:
            raise BadRow(place, "the prompt is empty", "; expected text or messages, a user's among them")
        stop = stop_of(_at(of["finish"], i, len(completions)) if stop is None else stop)
        yield CompletionRow(place, problem, asked, answer, text, thinking, stop)


def _before(conversation: tuple[Message, ...], earlier: tuple[Message, ...]) -> tuple[Message, ...]:
    """What was said before a completion: its own earlier turns, after the prompt if they do not begin with it."""
    return earlier if earlier and earlier[0]["role"] != "assistant" else conversation + earlier


def _at(value: Any, i: int, n: int) -> Any:
    return value[i] if isinstance(value, list) and len(value) == n else value
