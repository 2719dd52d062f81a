"""Problems from rows: the columns, and the values they may hold."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from headway.types import HeadwayError, Problem

Row = tuple[str, Mapping[str, object]]
"""The place of a row (a line of a file, a row of a data set), and its columns."""

Reference = Callable[[str], str]
EXACT_INTEGERS = 2.0**53  # floats up to here represent integers exactly


class Columns(NamedTuple):
    """The columns of the question, its reference answer and its id.

    Where `id` is None, the id is in the column `id` if a row has one, else it is the row's number (from 0).
    """

    prompt: str = "prompt"
    answer: str = "answer"
    id: str | None = None


def to_problems(
    rows: Iterable[Row], columns: Columns, *, where: str, limit: int | None = None, reference: Reference = str
) -> list[Problem]:
    """The problems of rows, at most `limit`; `reference` extracts the answer from the answer's column.

    Raises:
        HeadwayError: a column is missing or holds an unexpected value, an id occurs twice, or there is no row.
    """
    problems: dict[str, Problem] = {}
    for number, (place, row) in enumerate(rows):
        try:
            problem = _problem(row, columns, number, reference)
        except ValueError as error:
            raise HeadwayError(f"{place}: {error}") from error
        if problem.id in problems:
            raise HeadwayError(f"{place}: the id '{problem.id}' was seen before; ids must differ")
        problems[problem.id] = problem
        if limit is not None and len(problems) == limit:
            break
    if not problems:
        raise HeadwayError(f"{where} holds no problem; expected rows with {_named(columns)}")
    return list(problems.values())


def _problem(row: Mapping[str, object], columns: Columns, number: int, reference: Reference) -> Problem:
    if missing := [name for name in columns if name is not None and name not in row]:
        there = ", ".join(f"'{name}'" for name in row) or "none"
        raise ValueError(
            f"no column '{missing[0]}'; the columns are {there}; expected {_named(columns)}; give other names with "
            "--prompt-column, --answer-column and --id-column"
        )
    prompt = row[columns.prompt]
    if not isinstance(prompt, str):
        raise ValueError(f"'{columns.prompt}' must hold a text, got {prompt!r:.80}")
    identity = row[columns.id] if columns.id is not None else row.get("id", number)
    answer = reference(_text(columns.answer, row[columns.answer]))
    return Problem(_text(columns.id or "id", identity), prompt, answer)


def _text(column: str, value: object) -> str:
    """A text, or a number as text; a whole number is written without a decimal point."""
    match value:
        case str():
            return value
        case bool():
            pass
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() and abs(value) <= EXACT_INTEGERS else str(value)
    raise ValueError(f"'{column}' must hold a text or a number, got {value!r:.80}")


def _named(columns: Columns) -> str:
    also = f" and '{columns.id}'" if columns.id else ""
    return f"'{columns.prompt}' and '{columns.answer}'{also}"
