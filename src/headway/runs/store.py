"""Run folders: everything one measurement made, as lines of JSON that are appended and survive a crash.

    run.json         the settings, the name and grader of the problem set, and the version of Headway
    problems.jsonl   one `Problem` a line: those the run was made with
    traces.jsonl     one `Trace` a line
    branches.jsonl   one `Branch` a line
    scores.jsonl     one `Score` a line, where values need likelihoods
    coverage.json    how many of the correct answers the scores count, where values are likelihoods
    attempts.jsonl   one `Attempt` a line, where chains were run (`headway linearize`)
    report.json, report.html

What follows the last newline, left by a crash or still being written, is not read, and only `append` removes it:
readers never write. Decoding is strict. NaN is null on disk. Records are read when they are needed: a run may be
larger than memory.
"""

import json
import mmap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Generic, TypeVar, overload

import msgspec
import numpy as np
from jaxtyping import Int

from headway import __version__
from headway.problems import ProblemSet
from headway.runs.lock import FILE as LOCK
from headway.types import Attempt, Branch, HeadwayError, Keyed, Problem, Score, Trace

SCHEMA = 1
NONE = ProblemSet("", [], "")
SCAN_BYTES = 2**20
COVERAGE = "coverage.json"
Record = Trace | Branch | Score | Attempt
FILES: dict[type, str] = {
    Trace: "traces.jsonl", Branch: "branches.jsonl", Score: "scores.jsonl", Attempt: "attempts.jsonl"
}  # fmt: skip
Lines = Int[np.ndarray, " _"]
T = TypeVar("T")
Other = TypeVar("Other")


class TraceLine(Keyed, frozen=True, forbid_unknown_fields=False):
    """Which trace a line is; `records.read_as(TraceLine)` does not decode its tokens."""


class Records(Sequence[Any], Generic[T]):
    """The records of a file as it is now, decoded on each access; a slice is a view of the same kind.

    Only the positions of the lines are in memory. A line that is not of type `kind` is a HeadwayError when read.
    """

    def __init__(self, file: Path, kind: type[T], *, ends: Lines | None = None, lines: Lines | None = None) -> None:
        self._file, self._kind, self._decoder = file, kind, msgspec.json.Decoder(kind)
        self._ends = _line_ends(file) if ends is None else ends
        self._lines = np.arange(len(self._ends)) if lines is None else lines  # which, in which order

    def read_as(self, kind: type[Other]) -> "Records[Other]":
        """The same lines as another type, such as one with fewer fields: the other fields cost no memory."""
        return Records(self._file, kind, ends=self._ends, lines=self._lines)

    def take(self, positions: Sequence[int] | Lines) -> "Records[T]":
        """The records at these positions, in this order."""
        return self[np.asarray(positions, dtype=int)]

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[T]:
        if len(self):
            with self._file.open("rb") as file:
                for line in self._lines.tolist():
                    yield self._read(file, line)

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice | Lines) -> "Records[T]": ...
    def __getitem__(self, position: int | slice | Lines) -> "T | Records[T]":
        chosen = self._lines[position]
        if isinstance(chosen, np.ndarray):
            return Records(self._file, self._kind, ends=self._ends, lines=chosen)
        with self._file.open("rb") as file:
            return self._read(file, int(chosen))

    def _read(self, file: BinaryIO, line: int) -> T:
        start = int(self._ends[line - 1]) if line else 0
        file.seek(start)
        try:
            return self._decoder.decode(file.read(int(self._ends[line]) - start))
        except (msgspec.DecodeError, ValueError) as error:
            place = f"{self._file}, line {line + 1}"
            raise HeadwayError(f"{place}: {error}; delete the line (it is made again) or the file") from error


def _line_ends(file: Path) -> Lines:
    """The byte after each line's end."""
    ends, start = [np.empty(0, dtype=int)], 0
    if file.exists():
        with file.open("rb") as lines:
            while block := lines.read(SCAN_BYTES):
                ends.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + start + 1)
                start += len(block)
    return np.concatenate(ends)


class Run:
    """A run folder, by `create` or `load`; `problem_set` (`name`, `grader`) is empty in those of older versions."""

    def __init__(self, path: Path, settings: dict[str, Any], problem_set: dict[str, str] | None = None) -> None:
        self.path, self.settings, self.problem_set = path, settings, problem_set or {}

    @classmethod
    def create(
        cls, path: Path, settings: dict[str, Any], asked: ProblemSet = NONE, *, may_change: Collection[str] = (),
        were: Mapping[str, Any] = MappingProxyType({}),
    ) -> "Run":  # fmt: skip
        """A new run with these settings and a copy of these problems, or the one at `path` to continue.

        A run that holds no traces yet is made anew. A continued run takes over the new values of the settings in
        `may_change`; settings that it does not say, as older versions did not, are those in `were`. With other
        settings or problems, or where `path` is something else, it is a HeadwayError.
        """
        now = json.loads(msgspec.json.encode(settings))  # as they are read back: tuples are lists, NaN is None
        if (path / "run.json").exists() and (run := cls.load(path)).traces():
            then = {**were, **run.settings}
            changed = [k for k in sorted({*now, *then}) if now.get(k) != then.get(k)]
            if differ := [k for k in changed if k not in may_change]:
                shown = "; ".join(f"{k}: there {then.get(k)!r}, now {now.get(k)!r}" for k in differ)
                held = f"{path} holds a run with other settings ({shown})"
                raise HeadwayError(f"{held}; give the same settings to continue it, or another --out")
            run._check_problems(asked.problems)
            if changed:
                run.settings = now
                run._write_head()
            return run
        check_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, now, {"name": asked.name, "grader": asked.grader})
        run._write_head()
        run._write_problems(asked.problems)
        return run

    @classmethod
    def load(cls, path: Path) -> "Run":
        """The run at a path; a HeadwayError if there is none or if it has the form of another version."""
        if not (file := path / "run.json").is_file():
            raise HeadwayError(f"{path} is not a run folder (no run.json); `headway measure --out {path}` makes one")
        try:
            head = json.loads(file.read_bytes())
            schema, settings, problem_set = head["schema"], head["settings"], head.get("problem_set")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HeadwayError(f"{file} cannot be read ({error}); expected what `headway measure` writes") from error
        if schema != SCHEMA:
            raise HeadwayError(f"{file} has schema {schema}, this version reads {SCHEMA}; measure into a new folder")
        return cls(path, settings, problem_set)

    def problems(self) -> list[Problem]:
        """The problems that the run was made with; none where an older version made it."""
        return list(self._records(Problem, "problems.jsonl"))

    def traces(self) -> Records[Trace]:
        """All traces, in the order they were made."""
        return self._records(Trace)

    def trace_keys(self) -> list[tuple[str, int]]:
        """The problem id and the index of each trace, in the order they were made."""
        return [t.key for t in self.traces().read_as(TraceLine)]

    def branches(self) -> Records[Branch]:
        """All branches, in the order they were made."""
        return self._records(Branch)

    def scores(self) -> Records[Score]:
        """All scores, in the order they were made."""
        return self._records(Score)

    def coverage(self) -> dict[str, Any] | None:
        """The coverage of the scores (`headway.procedures.coverage`); None where it was not found out."""
        file = self.path / COVERAGE
        return json.loads(file.read_bytes()) if file.exists() else None

    def attempts(self) -> Records[Attempt]:
        """All attempts of chains, in the order they were made."""
        return self._records(Attempt)

    def append(self, records: Iterable[Record]) -> None:
        """Adds records to their file, whole lines at a time; after an OSError, what was there stays readable."""
        kinds: dict[str, bytes] = {}
        for record in records:
            name = FILES[type(record)]
            kinds[name] = kinds.get(name, b"") + msgspec.json.encode(record) + b"\n"
        for name, lines in kinds.items():
            _drop_incomplete_line(self.path / name)
            with (self.path / name).open("ab") as out:
                out.write(lines)

    def _write_problems(self, problems: Sequence[Problem]) -> None:
        self.write_text("problems.jsonl", "".join(msgspec.json.encode(p).decode() + "\n" for p in problems))

    def _check_problems(self, problems: Sequence[Problem]) -> None:
        """Compares the problems with the run's copy, or writes it where there is none."""
        if not (self.path / "problems.jsonl").exists():
            self._write_problems(problems)
            return
        for there, now in zip_longest(self.problems(), problems):
            if there != now:
                shown = [f"{p.prompt[:80]!r}, answer {p.answer[:40]!r}" if p else "none" for p in (there, now)]
                first = f"the first that differs is '{(there or now).id}' (there: {shown[0]}; now: {shown[1]})"
                advice = "Give the problems it was made with to continue it, or another --out"
                raise HeadwayError(f"{self.path} was made with other problems; {first}. {advice}")

    def write_json(self, name: str, content: Any) -> None:
        """Writes a file of the run in one piece: a crash leaves the old one or the new one. NaN becomes null."""
        self.write_text(name, msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file of the run in one piece."""
        partial = self.path / f".{name}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.replace(self.path / name)

    def _write_head(self) -> None:
        head = {"schema": SCHEMA, "headway": __version__, "settings": self.settings, "problem_set": self.problem_set}
        self.write_json("run.json", head)

    def _records(self, kind: type[T], name: str | None = None) -> Records[T]:
        return Records(self.path / (name or FILES[kind]), kind)


def check_folder(path: Path) -> None:
    """Raises HeadwayError if a path holds something else than a run, or nothing."""
    if not path.exists() or (path / "run.json").exists():
        return
    if not path.is_dir() or any(p.name != LOCK for p in path.iterdir()):
        raise HeadwayError(f"{path} exists and is not a run folder; give an empty or new folder as --out")


def _drop_incomplete_line(file: Path) -> None:
    if not file.exists() or not (size := file.stat().st_size):
        return
    with file.open("rb+") as lines:
        with mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
        if end < size:
            lines.truncate(end)
