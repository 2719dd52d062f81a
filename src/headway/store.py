"""Run folders: everything one measurement made, as lines of JSON that are appended and survive a crash.

    run.json         what was asked for, the name and grader of the problem set, and the version that did it
    problems.jsonl   one `Problem` a line: those the run was made with
    traces.jsonl     one `Trace` a line
    branches.jsonl   one `Branch` a line
    report.json, report.html

A stage appends what it finishes; a torn last line, left by a crash, is dropped when the run is opened again. Decoding
is strict: an unknown or missing field is an error that names file and line. NaN is null on disk. Records stay on disk
until they are asked for: a run may be larger than memory.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, overload

import msgspec
import numpy as np
from jaxtyping import Int

from headway import __version__
from headway.types import Branch, HeadwayError, Problem, Trace

SCHEMA = 1
SCAN_BYTES = 2**20
Record = TypeVar("Record")
Other = TypeVar("Other")


class TraceKey(msgspec.Struct, frozen=True):
    """Which trace a line is; `records.read_as(TraceKey)` passes over its tokens."""

    problem_id: str
    index: int


class Drawn(msgspec.Struct, frozen=True):
    """Which branch a line is, its tokens and its reward; `records.read_as(Drawn)` passes over its text."""

    problem_id: str
    index: int
    boundary: int
    branch: int
    sampled: int
    reward: float | None = None


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


class Run:
    """A run folder. Make one with `create` or `load`.

    `problem_set` has the `name` and the `grader` of the problems; it is empty where an older version made the run.
    """

    def __init__(self, path: Path, settings: dict[str, Any], problem_set: dict[str, str] | None = None) -> None:
        self.path = path
        self.settings = settings
        self.problem_set = problem_set or {}

    @classmethod
    def create(
        cls,
        path: Path,
        settings: dict[str, Any],
        problems: Sequence[Problem] = (),
        *,
        name: str = "",
        grader: str = "",
    ) -> "Run":
        """A new run with these settings and a copy of these problems, or the one at `path` to go on with.

        One that holds no traces yet, because its model could not be loaded, say, is made anew.

        Args:
            path: The folder.
            settings: What is asked for.
            problems: The problems.
            name: What a report calls them.
            grader: The grader that fits them.

        Raises:
            HeadwayError: the folder holds a run with other settings (says which differ) or other problems (says which
                is the first that differs), or something else.
        """
        there = (path / "run.json").exists()
        if there and (run := cls.load(path)).traces():
            now = _as_on_disk(settings)
            differ = [k for k in sorted({*now, *run.settings}) if now.get(k) != run.settings.get(k)]
            if differ:
                told = "; ".join(f"{k}: there {run.settings.get(k)!r}, now {now.get(k)!r}" for k in differ)
                raise HeadwayError(
                    f"{path} holds a run with other settings ({told}); give the same settings to go on with it, or "
                    "another --out"
                )
            run._keep_problems(problems)
            return run
        if not there and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise HeadwayError(f"{path} exists and is not a run folder; give an empty or new folder as --out")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, _as_on_disk(settings), {"name": name, "grader": grader})
        head = {"schema": SCHEMA, "headway": __version__, "settings": run.settings, "problem_set": run.problem_set}
        run.write_json("run.json", head)
        run._write_problems(problems)
        return run

    @classmethod
    def load(cls, path: Path) -> "Run":
        """The run at a path.

        Raises:
            HeadwayError: there is none, or another version of Headway wrote it in another form.
        """
        file = path / "run.json"
        if not file.is_file():
            raise HeadwayError(
                f"{path} is not a run folder (it has no run.json); `headway measure --out {path}` makes one"
            )
        try:
            head = json.loads(file.read_bytes())
            schema, settings, problem_set = head["schema"], head["settings"], head.get("problem_set")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HeadwayError(f"{file} cannot be read ({error}); expected what `headway measure` writes") from error
        if schema != SCHEMA:
            raise HeadwayError(
                f"{file} has schema {schema}, this version reads {SCHEMA}; measure again into a new folder"
            )
        return cls(path, settings, problem_set)

    def problems(self) -> list[Problem]:
        """The problems that the run was made with; none where an older version made it."""
        return list(self._records("problems.jsonl", Problem))

    def traces(self) -> Records[Trace]:
        """All traces, in the order they were made."""
        return self._records("traces.jsonl", Trace)

    def branches(self) -> Records[Branch]:
        """All branches, in the order they were made."""
        return self._records("branches.jsonl", Branch)

    def append(self, records: Iterable[Trace | Branch]) -> None:
        """Adds records to their file, whole lines at a time.

        Raises:
            OSError: they could not be written (a full disk); what was there before stays readable.
        """
        kinds: dict[str, bytes] = {}
        for record in records:
            name = "traces.jsonl" if isinstance(record, Trace) else "branches.jsonl"
            kinds[name] = kinds.get(name, b"") + msgspec.json.encode(record) + b"\n"
        for name, lines in kinds.items():
            file = self.path / name
            _drop_torn_line(file)
            with file.open("ab") as out:
                out.write(lines)

    def _write_problems(self, problems: Sequence[Problem]) -> None:
        self.write_text("problems.jsonl", "".join(msgspec.json.encode(p).decode() + "\n" for p in problems))

    def _keep_problems(self, problems: Sequence[Problem]) -> None:
        """Writes the copy of the problems, or compares with the one that is there."""
        if not (self.path / "problems.jsonl").exists():
            self._write_problems(problems)
            return
        for kept, now in zip_longest(self.problems(), problems):
            if kept != now:
                raise HeadwayError(
                    f"{self.path} was made with other problems; the first that differs is '{(kept or now).id}' "
                    f"(there: {_told(kept)}; now: {_told(now)}). Give the problems it was made with to go on with it, "
                    "or another --out"
                )

    def write_json(self, name: str, content: Any) -> None:
        """Writes a file of the run in one piece: a crash leaves the old one or the new one. NaN becomes null."""
        self.write_text(name, msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file of the run in one piece."""
        partial = self.path / f".{name}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.replace(self.path / name)

    def _records(self, name: str, kind: type[Record]) -> Records[Record]:
        _drop_torn_line(self.path / name)
        return Records(self.path / name, kind)


def _told(problem: Problem | None) -> str:
    """A problem in a message."""
    return "none" if problem is None else f"{problem.prompt[:80]!r}, answer {problem.answer[:40]!r}"


def _as_on_disk(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are read back: tuples are lists, NaN is None."""
    return json.loads(msgspec.json.encode(settings))


def _drop_torn_line(file: Path) -> None:
    """Cuts off a last line that does not end: its writing was interrupted."""
    if not file.exists():
        return
    with file.open("rb+") as lines:
        size = lines.seek(0, 2)
        position = size
        while position > 0:
            start = max(0, position - 65536)
            lines.seek(start)
            newline = lines.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < size:
            lines.truncate(position)
