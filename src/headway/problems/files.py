"""Files of rows: JSONL, CSV and Parquet, read row by row."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from headway.problems.rows import Row
from headway.types import HeadwayError

MAX_LINE_BYTES = 2**26  # of one JSON line: far more than a completion, far less than the memory
ROWS_AT_ONCE = 64  # of a Parquet file


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a file: CSV and Parquet by their suffix, JSONL otherwise.

    Numbers in a CSV file stay text, so that an answer `025` keeps its zero.

    Raises:
        HeadwayError: the file cannot be read; says where.
    """
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
    """The rows of a Parquet file, with these columns or all.

    Raises:
        HeadwayError: it cannot be read.
    """
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
