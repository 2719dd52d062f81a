"""Rows of JSONL, CSV and Parquet files, read one by one, and the problems in rows of any source."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from headway.types import HeadwayError, Problem

Row = tuple[str, Mapping[str, object]]  # its place (a line of a file, a row of a data set), and its columns
Reference = Callable[[str], str]
EXACT_INTEGERS = 2.0**53  # floats up to here represent integers exactly
MAX_LINE_BYTES = 2**26  # of one JSON line: far more than a completion, far less than the memory
ROWS_AT_ONCE = 64  # of a Parquet file


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a CSV or Parquet (by suffix) or JSONL file, or a HeadwayError; in CSV `025` keeps its zero."""
    return {".csv": _csv, ".parquet": read_parquet}.get(path.suffix.lower(), _jsonl)(path)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), start=1):
            place = f"{path}, line {number}"
            if len(line) == MAX_LINE_BYTES:
                raise HeadwayError(f"{place}: longer than {MAX_LINE_BYTES} bytes; expected one JSON object per line")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise HeadwayError(f"{place}: {error}; expected a JSON object in UTF-8") from error
            if not isinstance(row, dict):
                raise HeadwayError(f"{place}: {type(row).__name__}; expected a JSON object")
            yield place, row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True)
        try:
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise HeadwayError(f"{place}: expected {len(reader.fieldnames or ())} cells, as the header has")
                yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise HeadwayError(f"{path}, after line {reader.line_num}: {error}; expected CSV in UTF-8") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, with these columns or all; what cannot be read is a HeadwayError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise HeadwayError(f"{path}, after row {number}: {error}; expected a Parquet file") from error


class Columns(NamedTuple):
    """The columns of the question, its reference answer and its id."""

    prompt: str = "prompt"
    answer: str = "answer"
    id: str | None = None  # the column `id` if a row has one, else the row's number (from 0)


def to_problems(
    rows: Iterable[Row], columns: Columns, *, where: str, limit: int | None = None, reference: Reference = str
) -> list[Problem]:
    """The problems of rows, at most `limit`; `reference` extracts the answer from its column.

    A missing column, an unexpected value, an id that occurs twice, and no row at all are a HeadwayError.
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
        flags = "give other names with --prompt-column, --answer-column and --id-column"
        raise ValueError(f"no column '{missing[0]}'; the columns are {there}; expected {_named(columns)}; {flags}")
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
    return " and ".join(f"'{name}'" for name in columns if name)
