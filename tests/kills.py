"""Commands that are killed (SIGKILL) at any moment and run again, and what an uninterrupted run of them makes."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

PAUSE = 0.002  # seconds between looks


class Command(NamedTuple):
    """A command line whose last arguments are what it makes; `begin` makes what it starts from."""

    arguments: list[str]  # `{}` stands for the folder of the attempt
    begin: Callable[[Path], None]
    results: list[str]  # files, in that folder, that must be the same


def start(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own."""
    given = [a.replace("{}", str(folder)) for a in arguments]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "headway", *given], stdout=quiet, stderr=quiet, start_new_session=True, env=environment
    )


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """The size and time of change of each file and folder; what vanishes in between is left out."""
    found = {}
    for place, folders, files in os.walk(folder):  # unlike rglob, it bears a folder that is gone
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                stat = os.stat(os.path.join(place, name))
                found[os.path.join(place, name)] = (stat.st_size, stat.st_mtime_ns)
    return found


def watch(process: subprocess.Popen[bytes], folder: Path, change: float, seconds: float) -> tuple[bool, int]:
    """Kills at the `change`-th change of a file in the folder, or after some seconds; whether it did, and changes."""
    begun, seen, changes = time.monotonic(), written(folder), 0
    while process.poll() is None:
        now = written(folder)
        changes, seen = changes + (now != seen), now
        if changes >= change or time.monotonic() - begun >= seconds:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True, changes
        time.sleep(PAUSE)
    return False, changes


def survives(command: Command, tmp: Path, kills: int, seed: int = 0) -> list[str]:
    """Where the kills came; an AssertionError where what was run again is not the same, or something is left over."""
    whole = tmp / "whole"
    command.begin(whole)
    begun, process = time.monotonic(), start(command.arguments, whole)
    _, changes = watch(process, whole, math.inf, math.inf)
    assert process.returncode == 0
    seconds, rng, moments = time.monotonic() - begun, random.Random(seed), []
    for kill in range(kills):
        folder = tmp / f"killed-{kill}"
        command.begin(folder)
        # two of three while it writes
        change, after = (
            (rng.randint(1, changes), math.inf) if (kill + seed) % 3 else (math.inf, rng.random() * seconds)
        )
        killed, _ = watch(start(command.arguments, folder), folder, change, after)
        moments.append(
            f"{'killed' if killed else 'ended'}: {sorted(p.name for p in folder.rglob('*') if p.is_file())}"
        )
        code = start(command.arguments, folder).wait()
        assert code == 0 or all((folder / r).exists() for r in command.results), moments[-1]
        for name in command.results:
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), (name, moments[-1])
        left = {p.name for p in folder.rglob("*")} - {p.name for p in whole.rglob("*")}
        assert not left, (left, moments[-1])
    return moments


SIZE = "--model scripted --problems countdown --traces 4 --branches 2".split()


def commands(made: Path, limit: int) -> dict[str, Command]:
    """The five commands, on `limit` problems and the scripted engine; `made` is for what they start from."""
    measured, sampled = made / "measured", made / "sampled"
    options = [*SIZE, "--limit", str(limit)]
    assert start(["measure", *options, "--out", "{}"], measured).wait() == 0
    assert start(["sample", *options, "--out", "{}"], sampled).wait() == 0
    rows = made / "rows.jsonl"
    lines = [
        {
            "prompt": f"What is {i} + 1?",
            "completion": f"<think>Hm.\n\n{'So. ' * 50}</think>{i + 1}",
            "answer": str(i + 1),
        }
        for i in range(limit)
    ]
    rows.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))

    def copy(source: Path, *left_out: str) -> Callable[[Path], None]:
        return lambda folder: [  # type: ignore[return-value]
            shutil.copytree(source, folder / "run"), *((folder / "run" / name).unlink() for name in left_out)
        ]  # fmt: skip

    reports = ["run/report.json", "run/report.html"]
    imported = ["import", str(rows), "--model", "scripted", "--author", "me/x", "--grader", "exact"]
    return {
        "measure": Command(["measure", *options, "--out", "{}/run"], lambda folder: folder.mkdir(), reports),
        "prove": Command(["prove", "--out", "{}/run"], copy(sampled), ["run/branches.jsonl"]),
        "report": Command(["report", "--out", "{}/run", "--format", "csv"], copy(measured, "report.json"), reports),
        "compare": Command(
            ["compare", str(measured), "--out", "{}/both", "--format", "csv"], lambda folder: folder.mkdir(),
            ["both/compare.json", "both/report.html"],
        ),
        "import": Command(
            [*imported, "--out", "{}/run"], lambda folder: folder.mkdir(), ["run/traces.jsonl", "run/problems.jsonl"]
        ),
    }  # fmt: skip
