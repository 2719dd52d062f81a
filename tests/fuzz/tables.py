"""Columns of Parquet files that are hard to read, by name: valid files that hold strange types, and invalid texts."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FAR = 2**62  # a time past the year 9999, in any unit
BAD_TEXT = pa.Array.from_buffers(
    pa.utf8(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"\xff\xfe\xc3\x28")]
)
COLUMNS: dict[str, Any] = {
    "text": pa.array(["2 + 2?", "3 + 3?"]),
    "large-text": pa.array(["2 + 2?", "3 + 3?"], pa.large_utf8()),
    "dictionary": pa.array(["2 + 2?", "3 + 3?"]).dictionary_encode(),
    "bad-text": BAD_TEXT,
    "null": pa.nulls(2),
    "one-null": pa.array(["2 + 2?", None]),
    "bool": pa.array([True, False]),
    "int8": pa.array([1, -2], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0], pa.uint64()),
    "half": pa.array([1.5, 2.5], pa.float16()) if hasattr(pa, "float16") else pa.array([1.5, 2.5]),
    "nan": pa.array([float("nan"), float("inf")]),
    "decimal": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25")]),
    "decimal-wide": pa.array([decimal.Decimal("9" * 60)] * 2, pa.decimal256(76, 0)),
    "binary": pa.array([b"\xff\x00", b"4"]),
    "fixed": pa.array([b"\xff\x00", b"44"], pa.binary(2)),
    "date": pa.array([datetime.date(2020, 1, 1)] * 2),
    "date-far": pa.array([2**30, -(2**30)], pa.date32()),
    "time": pa.array([datetime.time(1, 2)] * 2),
    "stamp": pa.array([0, 1], pa.timestamp("us", "UTC")),
    "stamp-far": pa.array([FAR, -FAR], pa.timestamp("us")),
    "stamp-ns": pa.array([1, 2], pa.timestamp("ns")),
    "stamp-zone": pa.array([0, 1], pa.timestamp("ms", "Nowhere/Land")),
    "duration-far": pa.array([FAR, -FAR], pa.duration("us")),
    "list": pa.array([["2 + 2?"], ["3 + 3?"]]),
    "list-empty": pa.array([[], []], pa.list_(pa.utf8())),
    "list-null": pa.array([None, [None]], pa.list_(pa.utf8())),
    "lists": pa.array([[["2 + 2?"]], [["3 + 3?"]]]),
    "struct": pa.array([{"content": "2 + 2?", "role": "user"}] * 2),
    "messages": pa.array([[{"role": "user", "content": "2 + 2?"}]] * 2),
    "messages-null": pa.array([[{"role": None, "content": None}]] * 2, pa.list_(pa.struct({"role": pa.utf8(), "content": pa.utf8()}))),
    "map": pa.array([[("a", "b")], []], pa.map_(pa.utf8(), pa.utf8())),
    "long": pa.array(["x" * 300_000, "x"]),
}  # fmt: skip


def table(columns: dict[str, Any]) -> bytes:
    """A Parquet file of these columns."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def bomb(columns: dict[str, Any], field: str, megabytes: int) -> bytes:
    """A small Parquet file of one row whose field is a long text of one letter."""
    sink = pa.BufferOutputStream()
    made = pa.table({**columns, field: pa.array(["x" * (megabytes << 20)])})
    pq.write_table(made, sink, compression="zstd", use_dictionary=False)
    return sink.getvalue().to_pybytes()


def rows_bomb(columns: dict[str, Any], rows: int) -> bytes:
    """A small Parquet file of many equal rows, in one row group."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({k: pa.repeat(v, rows) for k, v in columns.items()}), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def writes(name: str, data: bytes):
    """What a case writes: one file."""

    def make(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return make
