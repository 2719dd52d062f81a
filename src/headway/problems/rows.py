"""The problems in the rows of a file, a data set or a list."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headway.problems.columns import MISSING, SOLUTIONS, find_columns, listed, reach
from headway.problems.fields import Bad, BadRow, conversation_of, reference_of, refused, text_of
from headway.problems.files import Row, Table
from headway.types import HeadwayError, Problem

Reference = Callable[..., str]  # of a value, its place, and whether it is a `solution`: see `reference_of`
PEEKED = 16  # rows that decide which columns are read


class Columns(NamedTuple):
    """The columns (or dotted paths) of the question, its reference answer and its id; None: found by usual names."""

    prompt: str | None = None
    answer: str | None = None
    id: str | None = None  # without one, the row's number (from 0)


def peek(table: Table, limit: int | None = None) -> tuple[list[Mapping[str, Any]], Table]:
    """The first rows, and the table with them still to come."""
    first = list(itertools.islice(table.rows, min(PEEKED, limit or PEEKED)))
    return [row for _, row in first], table._replace(rows=itertools.chain(first, table.rows))


def to_problems(
    table: Table,
    columns: Columns,
    *,
    limit: int | None = None,
    bad: Bad = refused,
    reference: Reference = reference_of,
) -> list[Problem]:
    """The problems of a table, at most `limit`; `reference` reads an answer.

    Columns that are missing or unclear, and no row at all, are a HeadwayError; a row that cannot be used, such as one
    whose id was seen before, goes to `bad`.
    """
    sample, table = peek(table, limit)
    if not sample:
        raise HeadwayError(f"{table.where} holds no problem; expected rows with a prompt and a reference answer")
    found = find_columns(columns._asdict(), sample, where=table.where, unread=table.unread)
    problems: dict[str, Problem] = {}
    for number, (place, row) in enumerate(table.rows):
        try:
            problem = _problem((place, row), found, number, reference)
            if problem.id in problems:
                again = f" ('{problem.id:.60}'); ids must differ, --id-column names another column"
                raise BadRow(place, "the id was seen before", again)
            problems[problem.id] = problem
        except BadRow as error:
            bad(error)
        if limit is not None and len(problems) == limit:
            break
    if not problems:
        raise HeadwayError(f"{table.where} holds no problem that can be used: {bad}")
    return list(problems.values())


def _problem(at: Row, found: Mapping[str, str | None], number: int, reference: Reference) -> Problem:
    place, row = at
    for kind in ("prompt", "answer"):
        if reach(row, found[kind]) is MISSING:
            raise BadRow(place, f"no '{found[kind]}'", f"; it has {listed(row)}")
    prompt = reach(row, found["prompt"])
    turns = conversation_of(prompt, place)
    turns = turns[:-1] if len(turns) > 1 and turns[-1]["role"] == "assistant" else turns  # it was answered
    if [turn["role"] for turn in turns] != ["user"]:
        path = f"{found['prompt']}.{len(turns) - 1}.content" if isinstance(prompt, list) else "with the question alone"
        one = f"; a problem is one user's turn: --prompt-column {path}"
        raise BadRow(place, "the prompt is a conversation", f" ({', '.join(t['role'] for t in turns)}){one}")
    identity = reach(row, found["id"])
    name = str(number) if identity is MISSING else text_of(identity, "the id", place)
    answer = reference(reach(row, found["answer"]), place, solution=str(found["answer"]).lower() in SOLUTIONS)
    try:
        return Problem(name, turns[0]["content"], answer)
    except ValueError as error:
        raise BadRow(place, str(error)) from error
