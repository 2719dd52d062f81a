"""Logs of inspect, read without its library: `.eval` (a zip of samples) and `.json`; one sample at a time."""

import json
import mmap
import re
import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headway.problems.fields import Bad, content_of, conversation_of, reference_of, refused, text_of, usable
from headway.runs.importers.rows import CompletionRow, Source, stop_of
from headway.types import HeadwayError

if sys.version_info >= (3, 14):
    import zipfile

    from compression.zstd import ZstdError
else:  # inspect compresses with Zstandard
    from backports.zstd import ZstdError, zipfile

MAX_SAMPLE_BYTES = 2**28  # of one decoded sample: events and all, far more than a completion
READ_BYTES = 4096
ATTACHED = "attachment://"
T = TypeVar("T")


# The fields that are read; a log has many more.
class _Spec(msgspec.Struct):
    model: str
    task: str


class _Log(msgspec.Struct):  # a `.json` log, or `header.json` of a zip, or `_journal/start.json` of an unfinished one
    eval: _Spec
    samples: list[msgspec.Raw] = []


class _Choice(msgspec.Struct):
    message: dict[str, Any]
    stop_reason: str | None = None


class _Output(msgspec.Struct):
    choices: list[_Choice] = []


class _Sample(msgspec.Struct):
    id: str | int
    input: str | list[dict[str, Any]]
    target: str | list[str]
    messages: list[dict[str, Any]] = []
    output: _Output = msgspec.field(default_factory=_Output)
    attachments: dict[str, str] = {}


def is_json_log(path: Path) -> bool:
    """Whether a file is a `.json` log: an object that begins with what was evaluated."""
    with path.open("rb") as file:
        head = file.read(READ_BYTES)
    return path.suffix == ".json" and re.match(rb'\s*\{.*"eval"\s*:\s*\{', head, re.DOTALL) is not None


def open_log(path: Path, bad: Bad = refused) -> Source:
    """The rows of a log: one for each sample, epoch and choice; a sample that cannot be used goes to `bad`."""
    log, samples = _open_eval(path) if path.suffix == ".eval" else _open_json(path)
    if (first := next(samples, None)) is None:
        raise HeadwayError(f"{path} holds no sample; expected a log of inspect with its samples")
    rows = (row for place, sample in chain([first], samples) for row in usable(_of_sample(place, sample), place, bad))
    return Source(log.eval.task, log.eval.model, rows)


def _open_eval(path: Path) -> tuple[_Log, Iterator[tuple[str, _Sample]]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise HeadwayError(f"{path}: {error}; expected a whole .eval log of inspect, which is a zip") from error
    names = archive.namelist()
    head = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
    if head is None:
        raise HeadwayError(f"{path} has no header.json; expected an .eval log of inspect")
    named = (name for name in names if name.startswith("samples/") and name.endswith(".json"))
    return _member(archive, head, _Log), ((f"{path}, {name}", _member(archive, name, _Sample)) for name in named)


def _open_json(path: Path) -> tuple[_Log, Iterator[tuple[str, _Sample]]]:
    with path.open("rb") as file:
        if not file.read(1):
            raise HeadwayError(f"{path} is empty; expected a log of inspect")
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    log = _decode(content, _Log, str(path))
    named = ((f"{path}, sample {number}", raw) for number, raw in enumerate(log.samples, start=1))
    return log, ((place, _decode(raw, _Sample, place)) for place, raw in named)


def _decode(content: Any, kind: type[T], place: str) -> T:
    """Decodes JSON; NaN, which inspect may write and JSON does not know, becomes null."""
    try:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.json.decode(msgspec.json.encode(json.loads(bytes(content))), type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HeadwayError(f"{place}: {error}; expected a log of inspect") from error


def _member(archive: zipfile.ZipFile, name: str, kind: type[T]) -> T:
    place, info = f"{archive.filename}, {name}", archive.getinfo(name)
    if max(info.file_size, info.compress_size) > MAX_SAMPLE_BYTES:
        raise HeadwayError(f"{place}: more than {MAX_SAMPLE_BYTES} bytes; too large for a sample")
    try:
        with archive.open(info) as file:  # in small reads: zipfile unpacks all of a read at once
            content = b"".join(iter(lambda: file.read(READ_BYTES), b""))
    except (zipfile.BadZipFile, ZstdError, zlib.error, EOFError, NotImplementedError) as error:
        raise HeadwayError(f"{place}: {error}; the log is damaged") from error
    return _decode(content, kind, place)


def _of_sample(place: str, sample: _Sample) -> Iterator[CompletionRow]:
    """A row for each choice, or one without a completion where the request failed."""
    last = max((i for i, m in enumerate(sample.messages) if m.get("role") == "assistant"), default=None)
    conversation = conversation_of(_resolved(sample.messages[:last] or sample.input, sample.attachments), place)
    identity, answer = text_of(sample.id, "the id", place), reference_of(sample.target, place)
    if not sample.output.choices:
        yield CompletionRow(place, identity, conversation, answer, None)
    for choice in sample.output.choices:
        content = _resolved(choice.message.get("content"), sample.attachments)
        thinking, text = content_of(content, "the completion", place)
        yield CompletionRow(place, identity, conversation, answer, text or "", thinking, stop_of(choice.stop_reason))


def _resolved(value: Any, attachments: dict[str, str]) -> Any:
    """A value with its attachments, the long texts that a log stores separately, put back."""
    match value:
        case str() if value.startswith(ATTACHED):
            return attachments.get(value.removeprefix(ATTACHED), value)
        case list():
            return [_resolved(v, attachments) for v in value]
        case dict():
            return {k: _resolved(v, attachments) for k, v in value.items()}
    return value
