"""Run folders: everything one measurement made, as lines of JSON that are appended and survive a crash.

    run.json         what was asked for, the name and grader of the problem set, and the version that did it
    problems.jsonl   one `Problem` a line: those the run was made with
    traces.jsonl     one `Trace` a line
    branches.jsonl   one `Branch` a line
    attempts.jsonl   one `Attempt` a line, where chains were run (`headway linearize`)
    report.json, report.html

A stage appends what it finishes; a torn last line, left by a crash, is dropped when the run is opened again. Decoding
is strict: an unknown or missing field is an error that names file and line. NaN is null on disk. Records stay on disk
until they are asked for: a run may be larger than memory.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headway import __version__
from headway.runs.records import Records
from headway.types import Attempt, Branch, HeadwayError, Problem, Score, Trace

SCHEMA = 1
Record = TypeVar("Record")
FILES: dict[type, str] = {
    Trace: "traces.jsonl",
    Branch: "branches.jsonl",
    Score: "scores.jsonl",
    Attempt: "attempts.jsonl",
}


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
        may_change: Collection[str] = (),
    ) -> "Run":
        """A new run with these settings and a copy of these problems, or the one at `path` to go on with.

        One that holds no traces yet, because its model could not be loaded, say, is made anew.

        Args:
            path: The folder.
            settings: What is asked for.
            problems: The problems.
            name: What a report calls them.
            grader: The grader that fits them.
            may_change: Settings that a run takes over when it goes on.

        Raises:
            HeadwayError: the folder holds a run with other settings (says which differ) or other problems (says which
                is the first that differs), or something else.
        """
        there = (path / "run.json").exists()
        if there and (run := cls.load(path)).traces():
            now = _as_on_disk(settings)
            changed = [k for k in sorted({*now, *run.settings}) if now.get(k) != run.settings.get(k)]
            differ = [k for k in changed if k not in may_change]
            if differ:
                told = "; ".join(f"{k}: there {run.settings.get(k)!r}, now {now.get(k)!r}" for k in differ)
                raise HeadwayError(
                    f"{path} holds a run with other settings ({told}); give the same settings to go on with it, or "
                    "another --out"
                )
            run._keep_problems(problems)
            if changed:
                run.settings = now
                run._write_head()
            return run
        if not there and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise HeadwayError(f"{path} exists and is not a run folder; give an empty or new folder as --out")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, _as_on_disk(settings), {"name": name, "grader": grader})
        run._write_head()
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

    def scores(self) -> Records[Score]:
        """All scores, in the order they were made."""
        return self._records("scores.jsonl", Score)

    def attempts(self) -> Records[Attempt]:
        """All attempts of chains, in the order they were made."""
        return self._records("attempts.jsonl", Attempt)

    def append(self, records: Iterable[Trace | Branch | Score | Attempt]) -> None:
        """Adds records to their file, whole lines at a time.

        Raises:
            OSError: they could not be written (a full disk); what was there before stays readable.
        """
        kinds: dict[str, bytes] = {}
        for record in records:
            name = FILES[type(record)]
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

    def _write_head(self) -> None:
        head = {"schema": SCHEMA, "headway": __version__, "settings": self.settings, "problem_set": self.problem_set}
        self.write_json("run.json", head)

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
