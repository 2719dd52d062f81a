"""Files of rows, read one by one: JSONL, a JSON array or object, CSV, Parquet. What a file is, its content says.

Files are hostile: a row is bounded in bytes before it is decoded, and what cannot be read is one HeadwayError.
"""

import csv
import json
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headway.problems.fields import MAX_TEXT, Bad, BadRow, refused
from headway.types import HeadwayError

Row = tuple[str, Mapping[str, Any]]  # its place (a line of a file, a row of a data set), and its columns
MAX_ROW_BYTES = 2**25  # far more than a row needs, far less than the memory
MAX_OBJECT_BYTES = 2**28  # of a file that is one JSON object, which is decoded whole
MAX_ROW_VALUES = 2**20  # in the lists of a Parquet row, on average over a row group
ROWS_AT_ONCE = 64  # of a Parquet file
MOST_NESTED = 8  # objects around rows
BOM = b"\xef\xbb\xbf"


class Table(NamedTuple):
    """Rows, and the columns that are there and are not read."""

    where: str
    rows: Iterator[Row]
    unread: tuple[str, ...] = ()


def locate(spec: str | Path) -> tuple[Path, str | None]:
    """The file of `FILE` or `FILE:path.to.rows`, and that path: where the rows are in a JSON object."""
    head, colon, inside = str(spec).rpartition(":")
    if colon and not Path(spec).is_file() and Path(head).is_file():
        return Path(head), inside
    return Path(spec), None


def open_file(spec: str | Path, wanted: Collection[str], bad: Bad = refused) -> Table:
    """The rows of a file; of a Parquet file only the columns `wanted` (in lower case). A bad row goes to `bad`."""
    path, inside = locate(spec)
    with path.open("rb") as file:
        head = file.read(64)
    suffix = path.suffix.lower()
    if suffix == ".parquet" or head.startswith(b"PAR1"):
        names = parquet_columns(path)
        read = [name for name in names if name.lower() in wanted]
        return Table(str(path), read_parquet(path, read), tuple(n for n in names if n not in read))
    if suffix in (".csv", ".tsv"):
        return Table(str(path), _csv(path, "\t" if suffix == ".tsv" else ",", bad))
    start = head.removeprefix(BOM).lstrip()[:1]
    if start == b"[":
        return Table(str(path), _array(path, bad))
    if start == b"{" and (content := _object(path)) is not None:
        return Table(str(path), _in_object(content, path, inside, wanted, bad))
    if inside is not None:
        raise HeadwayError(f"{path} is not one JSON object; it has no rows at '{inside}'")
    return Table(str(path), _jsonl(path, bad))


def _jsonl(path: Path, bad: Bad) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_ROW_BYTES), b""), start=1):
            place = f"{path}, line {number}"
            if len(line) == MAX_ROW_BYTES:
                bad(BadRow(place, f"longer than {MAX_ROW_BYTES} bytes", "; expected one JSON object per line"))
                while line and not line.endswith(b"\n"):
                    line = lines.readline(MAX_ROW_BYTES)
                continue
            line = line.removeprefix(BOM) if number == 1 else line
            if line.strip():
                yield from _decoded(place, line, bad)


def _array(path: Path, bad: Bad) -> Iterator[Row]:
    """The items of a JSON array; the file is mapped, not read."""
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    content = content[len(BOM) :] if content[: len(BOM)] == BOM else content
    try:
        items: list[Any] = msgspec.json.decode(content, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        items = _loads(content, f"{path}: {error}")  # Python also writes NaN, which is no JSON
    for number, item in enumerate(items, start=1):
        yield from _decoded(f"{path}, item {number}", item, bad)


def _decoded(place: str, item: Any, bad: Bad) -> Iterator[Row]:
    """The row of a JSON text or value, or nothing."""
    try:
        if isinstance(item, msgspec.Raw | bytes):
            if len(memoryview(item)) > MAX_ROW_BYTES:
                raise ValueError(f"longer than {MAX_ROW_BYTES} bytes")
            item = json.loads(bytes(item).decode())
    except (ValueError, RecursionError) as error:
        return bad(BadRow(place, "not a JSON object in UTF-8", f": {error}"))
    if not isinstance(item, dict):
        return bad(BadRow(place, f"{type(item).__name__}", "; expected a JSON object"))
    yield place, item


def _loads(content: memoryview | bytes, what: str) -> Any:
    if len(content) > MAX_OBJECT_BYTES:
        raise HeadwayError(f"{what}; expected JSON, or one object a line (JSONL)")
    try:
        return json.loads(bytes(content).decode())
    except (ValueError, RecursionError) as error:
        raise HeadwayError(f"{what}; expected JSON in UTF-8, or one object a line (JSONL)") from error


def _object(path: Path) -> dict[str, Any] | None:
    """The content of a file that is one JSON object, on one line or several; None if it has other lines."""
    with path.open("rb") as file:
        lines = (line for line in iter(lambda: file.readline(MAX_ROW_BYTES), b"") if line.strip())
        first = next(lines).removeprefix(BOM)
        try:
            found = json.loads(first.decode())
            return found if isinstance(found, dict) and next(lines, None) is None else None
        except (ValueError, RecursionError):
            if path.stat().st_size > MAX_OBJECT_BYTES:
                return None
        file.seek(0)
        try:
            found = json.loads(file.read().removeprefix(BOM).decode())
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def _in_object(
    content: dict[str, Any], path: Path, inside: str | None, wanted: Collection[str], bad: Bad
) -> Iterator[Row]:
    """The rows in one JSON object: itself, if it has known columns, else its only list of objects that have them."""
    found = {} if inside is None and _is_row(content, wanted) else dict(_lists(content, "", wanted))
    if inside is not None and inside not in found:
        found = dict(_lists(content, "", ()))
    if inside is None and len(found) > 1:
        raise HeadwayError(
            f"{path} holds rows at several places: {', '.join(found)}; say which, e.g. {path}:{next(iter(found))}"
        )
    if inside is not None and inside not in found:
        there = ", ".join(found) or "none"
        raise HeadwayError(f"{path} has no rows at '{inside}'; its lists of objects are {there}")
    if not found:
        yield f"{path}, line 1", content
        return
    [(at, rows)] = found.items() if inside is None else [(inside, found[inside])]
    for number, row in enumerate(rows, start=1):
        yield from _decoded(f"{path}, {at or 'row'} {number}", row, bad)


def _lists(value: Mapping[str, Any], at: str, wanted: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    """The lists of objects in nested objects, with their dotted paths; those with two of the wanted columns."""
    if value and all(_is_row(v, wanted) for v in value.values()):
        yield at, list(value.values())  # numbered objects, as OpenCompass writes
        return
    for key, inner in value.items() if at.count(".") < MOST_NESTED else ():
        path = f"{at}.{key}" if at else key
        if isinstance(inner, list) and inner and _is_row(inner[0], wanted):
            yield path, inner
        elif isinstance(inner, dict):
            yield from _lists(inner, path, wanted)


def _is_row(value: Any, wanted: Collection[str]) -> bool:
    return isinstance(value, dict) and (not wanted or sum(str(key).lower() in wanted for key in value) >= 2)


def _csv(path: Path, delimiter: str, bad: Bad) -> Iterator[Row]:
    """The rows of a table with a header; a cell is a text, so that `025` keeps its zero."""
    csv.field_size_limit(MAX_TEXT)
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text, strict=True, delimiter=delimiter)
        try:
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    header = f": expected {len(reader.fieldnames or ())}, as the header has"
                    bad(BadRow(place, "another number of cells", header))
                else:
                    yield place, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise HeadwayError(f"{path}, after line {reader.line_num}: {error}; expected CSV in UTF-8") from error


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise HeadwayError(f"{path}: {' '.join(str(error).split())}; expected a Parquet file") from error


def read_parquet(path: Path, columns: list[str]) -> Iterator[Row]:
    """The rows of a Parquet file with these columns, in batches that its metadata says are small."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=2**20) as file:
            for group in range(file.num_row_groups):
                rows = _rows_at_once(file.metadata.row_group(group), columns, f"{path}, row {number + 1} and on")
                for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                    if sum(map(_decoded_bytes, batch.columns)) > MAX_ROW_BYTES * batch.num_rows:
                        raise HeadwayError(f"{path}, row {number + 1} and on: more than {MAX_ROW_BYTES} bytes a row")
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, RecursionError) as error:
        if isinstance(error, HeadwayError):
            raise
        said = " ".join(str(error).split())
        raise HeadwayError(f"{path}, after row {number}: {said}; expected a Parquet file of texts in UTF-8") from error


def _decoded_bytes(column: Any) -> int:
    return int(column.dictionary.nbytes * len(column) if hasattr(column, "dictionary") else column.nbytes)


def _rows_at_once(group: Any, columns: list[str], place: str) -> int:
    """How many rows of a row group to decode at once: no value can be larger than all of its column together."""
    chunks = [c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema.split(".")[0] in columns]
    size, values = (sum(getattr(c, what) for c in chunks) for what in ("total_uncompressed_size", "num_values"))
    if size > group.num_rows * MAX_ROW_BYTES:
        raise HeadwayError(f"{place}: more than {MAX_ROW_BYTES} bytes a row")
    if values > group.num_rows * MAX_ROW_VALUES:
        raise HeadwayError(f"{place}: more than {MAX_ROW_VALUES} values a row")
    return max(1, min(ROWS_AT_ONCE, 4 * MAX_ROW_BYTES // max(size, 1)))
