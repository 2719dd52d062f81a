"""Runs the command line on cases, each in a forked process with limits, and says what is wrong with the outcome.

A case is right if it works, or if it ends with one message and exit code 2 and leaves nothing half made. Imports are
paid once, before the first fork.
"""

import contextlib
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from headway import cli
from headway.terminal import UNFORESEEN

SECONDS = 30.0
MEMORY = 1.5 * 2**30  # resident, above that of the process that forks
ADDRESSES = 6 * 2**30  # above those that the libraries take: a bomb ends in a MemoryError, and not the machine
SECRET = "sk-secret-0123456789"
LINES, CHARACTERS = 6, 2200  # of a message


class Case(NamedTuple):
    """Arguments of `headway`, run in a folder that `make` fills; `must` is what the outcome has to be, if known."""

    name: str
    arguments: tuple[str, ...]
    make: Callable[[Path], None]
    must: Literal["work", "stop", "either"] = "either"


class Outcome(NamedTuple):
    """How a case ended, and what is wrong with that, if anything."""

    code: int | None  # None: past the time limit
    seconds: float
    memory: int  # bytes
    said: str
    wrong: str


def cut(cases: Iterable[Case], part: int, of: int) -> Iterator[Case]:
    """Every `of`-th case: the first of each run of `of`, moved by `part`."""
    return (case for i, case in enumerate(cases) if i % of == part % of)


def run_all(cases: Iterable[Case], folder: Path, *, tell: Callable[[str], None] = print) -> list[tuple[Case, Outcome]]:
    """Runs the cases; the folders of wrong ones stay, with what they wrote. Returns the wrong ones."""
    counts, wrong, slowest, start = Counter[str](), [], (0.0, ""), time.monotonic()
    for case in cases:
        place = folder / case.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        case.make(place)
        outcome = run(case, place)
        slowest = max(slowest, (outcome.seconds, case.name))
        counts["failed" if outcome.wrong else "worked" if outcome.code == 0 else "one message"] += 1
        if outcome.wrong:
            wrong.append((case, outcome))
            tell(f"FAILED {case.name}: {outcome.wrong}")
        else:
            shutil.rmtree(place)
    made = ", ".join(f"{n} {what}" for what, n in counts.items())
    seconds = time.monotonic() - start
    tell(f"{counts.total()} tried: {made}; {seconds:.0f} s, the slowest {slowest[1]} with {slowest[0]:.1f} s")
    return wrong


def warm(cases: Iterable[Case], folder: Path) -> None:
    """Imports what these cases do, which are run for that: forked processes find it imported, and start no threads."""
    for case in cases:
        place, names = folder / case.name, folder / "modules.json"
        place.mkdir(parents=True, exist_ok=True)
        case.make(place)
        run(case, place, modules=names)
        for name in json.loads(names.read_text()):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        shutil.rmtree(place)


def run(case: Case, folder: Path, *, modules: Path | None = None) -> Outcome:
    """Runs one case in a forked process of a session of its own, which ends with it; `modules` takes its imports."""
    before, own = set(os.listdir(folder)), _resident()
    log = folder.parent / f"{folder.name}.log"
    sys.stdout.flush()
    start = time.monotonic()
    if (child := os.fork()) == 0:
        _become(case, folder, log, modules)
    ended = _ends(child, start + SECONDS)
    _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - start
    _end_session(child)
    code = os.waitstatus_to_exitcode(status) if ended else None
    said = log.read_text(errors="replace")
    memory = max(0, used.ru_maxrss * 1024 - own)
    wrong = judge(case, folder, before, code, memory, said)
    if wrong:
        log.replace(folder / "said.log")
        (folder / "arguments.json").write_text(json.dumps(case.arguments))
    else:
        log.unlink()
    return Outcome(code, seconds, memory, said, wrong)


def judge(case: Case, folder: Path, before: set[str], code: int | None, memory: float, said: str) -> str:
    """What is wrong with an outcome; an empty text if nothing is."""
    lines = said.splitlines()
    if code is None:
        return f"not done after {SECONDS:g} s"
    if UNFORESEEN in said or "Traceback (most recent call last)" in said:
        return next((line[:300] for line in reversed(lines) if UNFORESEEN in line), f"traceback: {lines[-1][:200]}")
    if code not in (0, 2):
        return f"exit code {code}: {lines[-1][:200] if lines else 'nothing said'}"
    if memory > MEMORY:
        return f"{memory / 2**30:.1f} GiB of memory"
    if SECRET in said or any(SECRET.encode() in file.read_bytes() for file in _files(folder / "out")):
        return "the key is shown"
    if case.must == "work" and code != 0:
        return f"must work: {lines[-1][:300] if lines else ''}"
    if case.must == "stop" and code == 0:
        return "must not be accepted"
    made = {"out"} if code == 0 or case.arguments[0] != "import" else set()
    strange = sorted(set(os.listdir(folder)) - before - made)
    strange += [file.name for file in _files(folder / "out") if file.suffix in (".partial", ".tmp")]
    if strange:
        return f"left over: {', '.join(strange)}"
    return _worked(case, folder) if code == 0 else _stopped(said)


def _stopped(said: str) -> str:
    messages = [line for line in said.splitlines() if line.startswith("headway: ")]
    usage = "Usage:" in said or "usage:" in said  # typer's and argparse's own
    if len(messages) != 1 and not usage:
        return f"{len(messages)} messages: {said[-300:]!r}"
    after = said[said.index(messages[0]) :] if messages else ""
    if len(after.splitlines()) > LINES or len(after) > CHARACTERS:
        return f"a message of {len(after.splitlines())} lines and {len(after)} characters"
    return ""


def _worked(case: Case, folder: Path) -> str:
    made = {"measure": "report.json", "sample": "traces.jsonl", "import": "traces.jsonl", "train": "*.safetensors"}
    name = made.get(case.arguments[0], "*")
    whole = any(file.stat().st_size for file in (folder / "out").glob(name))
    return "" if whole else f"exit code 0 without {name}"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _become(case: Case, folder: Path, log: Path, modules: Path | None) -> None:
    """The forked process: never returns."""
    code = 70
    try:
        os.setsid()
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(said, stream)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + ADDRESSES,) * 2)
        tempfile.tempdir = str(folder.parent)
        os.environ |= {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": SECRET}
        os.chdir(folder)
        sys.argv = ["headway", *case.arguments]
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        if modules is not None:
            modules.write_text(json.dumps(list(sys.modules)))
    finally:
        os._exit(code)


def _ends(child: int, until: float) -> bool:
    """Waits for the process until this time and then kills it; returns whether it ended by itself."""
    handle = os.pidfd_open(child)
    ended, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
    os.close(handle)
    if not ended:
        os.kill(child, signal.SIGKILL)
    return bool(ended)


def _end_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
