"""Run folders: everything one measurement made, as lines of JSON that are appended and survive a crash.

    run.json         what was asked for, and the version that did it
    traces.jsonl     one `Trace` a line
    branches.jsonl   one `Branch` a line
    report.json, report.html

A stage appends what it finishes; a torn last line, left by a crash, is dropped when the run is opened again. Decoding
is strict: an unknown or missing field is an error that names file and line. NaN is null on disk.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headway import __version__
from headway.types import Branch, HeadwayError, Score, Trace

SCHEMA = 1
FILES = {Trace: "traces.jsonl", Branch: "branches.jsonl", Score: "scores.jsonl"}
Record = TypeVar("Record", Trace, Branch, Score)


class Run:
    """A run folder. Make one with `create` or `load`."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings

    @classmethod
    def create(cls, path: Path, settings: dict[str, Any]) -> "Run":
        """A new run with these settings, or the one at `path` to go on with.

        Raises:
            HeadwayError: the folder holds a run with other settings (says which differ), or something else.
        """
        if (path / "run.json").exists():
            run = cls.load(path)
            now = _as_on_disk(settings)
            differ = [k for k in sorted({*now, *run.settings}) if now.get(k) != run.settings.get(k)]
            if differ:
                told = "; ".join(f"{k}: there {run.settings.get(k)!r}, now {now.get(k)!r}" for k in differ)
                raise HeadwayError(
                    f"{path} holds a run with other settings ({told}); give the same settings to go on with it, or "
                    "another --out"
                )
            return run
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise HeadwayError(f"{path} exists and is not a run folder; give an empty or new folder as --out")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, _as_on_disk(settings))
        run.write_json("run.json", {"schema": SCHEMA, "headway": __version__, "settings": run.settings})
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
            schema, settings = head["schema"], head["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise HeadwayError(f"{file} cannot be read ({error}); expected what `headway measure` writes") from error
        if schema != SCHEMA:
            raise HeadwayError(
                f"{file} has schema {schema}, this version reads {SCHEMA}; measure again into a new folder"
            )
        return cls(path, settings)

    def traces(self) -> list[Trace]:
        """All traces, in the order they were made."""
        return self._read("traces.jsonl", Trace)

    def branches(self) -> list[Branch]:
        """All branches, in the order they were made."""
        return self._read("branches.jsonl", Branch)

    def scores(self) -> list[Score]:
        """All scores, in the order they were made."""
        return self._read("scores.jsonl", Score)

    def append(self, records: Iterable[Trace | Branch | Score]) -> None:
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

    def write_json(self, name: str, content: Any) -> None:
        """Writes a file of the run in one piece: a crash leaves the old one or the new one. NaN becomes null."""
        self.write_text(name, msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Writes a text file of the run in one piece."""
        partial = self.path / f".{name}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.replace(self.path / name)

    def _read(self, name: str, kind: type[Record]) -> list[Record]:
        file = self.path / name
        if not file.exists():
            return []
        _drop_torn_line(file)
        decoder = msgspec.json.Decoder(kind)
        records = []
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    records.append(decoder.decode(line))
                except (msgspec.DecodeError, ValueError) as error:
                    raise HeadwayError(
                        f"{file}, line {number}: {error}; delete the line (it will be made again) or the file"
                    ) from error
        return records


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
