"""The records of a JSONL file, read when they are asked for: a run may be larger than memory."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, overload

import msgspec
import numpy as np
from jaxtyping import Int

from headway.types import HeadwayError

SCAN_BYTES = 2**20
Record = TypeVar("Record")
Other = TypeVar("Other")


class TraceLine(msgspec.Struct, frozen=True):
    """Which trace a line is; `records.read_as(TraceLine)` passes over its tokens."""

    problem_id: str
    index: int


class Records(Sequence[Any], Generic[Record]):
    """The records of a file as it is now, decoded when they are asked for; a slice is a view of the same kind.

    Only where the lines begin is kept in memory. Lines that are appended later are not seen.

    Args:
        file: Whole lines of JSON, or no file yet.
        kind: What a line is; decoding is as strict as this type.
        lines: Which lines, in which order; all by default.

    Raises:
        HeadwayError: on reading a line that is not such a record; names file and line.
    """

    def __init__(self, file: Path, kind: type[Record], *, lines: Int[np.ndarray, " n"] | None = None) -> None:
        self._file = file
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._size = file.stat().st_size if file.exists() else 0
        if lines is not None:
            self._lines = lines

    def read_as(self, kind: type[Other]) -> "Records[Other]":
        """The same lines as another type, such as one with fewer fields: what is passed over costs no memory."""
        return self._like(kind, self._lines)

    def take(self, positions: Sequence[int] | Int[np.ndarray, " n"]) -> "Records[Record]":
        """The records at these positions, in this order."""
        return self._like(self._kind, self._lines[np.asarray(positions, dtype=int)])

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Record]:
        if len(self):
            with self._file.open("rb") as file:
                for line in self._lines.tolist():
                    yield self._read(file, line)

    @overload
    def __getitem__(self, position: int) -> Record: ...
    @overload
    def __getitem__(self, position: slice) -> "Records[Record]": ...
    def __getitem__(self, position: int | slice) -> "Record | Records[Record]":
        if isinstance(position, slice):
            return self._like(self._kind, self._lines[position])
        line = int(self._lines[position])
        with self._file.open("rb") as file:
            return self._read(file, line)

    @cached_property
    def _ends(self) -> Int[np.ndarray, " lines"]:
        """The byte after each line's end."""
        ends, start = [], 0
        if self._size:
            with self._file.open("rb") as file:
                while block := file.read(min(SCAN_BYTES, self._size - start)):
                    ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + start + 1)
                    start += len(block)
        return np.concatenate(ends) if ends else np.empty(0, dtype=int)

    @cached_property
    def _lines(self) -> Int[np.ndarray, " n"]:
        return np.arange(len(self._ends))

    def _like(self, kind: type[Other], lines: Int[np.ndarray, " n"]) -> "Records[Other]":
        view = Records(self._file, kind, lines=lines)
        view._ends = self._ends
        return view

    def _read(self, file: BinaryIO, line: int) -> Record:
        start = int(self._ends[line - 1]) if line else 0
        file.seek(start)
        try:
            return self._decoder.decode(file.read(int(self._ends[line]) - start))
        except (msgspec.DecodeError, ValueError) as error:
            raise HeadwayError(
                f"{self._file}, line {line + 1}: {error}; delete the line (it will be made again) or the file"
            ) from error
