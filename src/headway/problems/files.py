"""Files of problems: JSONL, CSV and Parquet, read row by row."""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headway.problems.rows import Row
from headway.types import HeadwayError

EXAMPLE = '{"id": "1", "prompt": "What is 2 + 2?", "answer": "4"}'


def read_file(path: Path) -> Iterator[Row]:
    """The rows of a file: CSV and Parquet by their suffix, JSONL otherwise.

    Numbers in a CSV file stay text, so that an answer `025` keeps its zero.

    Raises:
        HeadwayError: the file cannot be read; says where.
    """
    readers = {".csv": _csv, ".parquet": _parquet}
    return readers.get(path.suffix.lower(), _jsonl)(path)


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise HeadwayError(f"{place}: {error}; expected a JSON object, e.g. {EXAMPLE}") from error
            if not isinstance(row, dict):
                raise HeadwayError(f"{place}: expected a JSON object, e.g. {EXAMPLE}; got {row!r:.80}")
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


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise HeadwayError(f"{path}: {error}; expected a Parquet file") from error
