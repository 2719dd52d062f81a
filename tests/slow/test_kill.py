"""A measurement that is killed at any moment and run again ends in the report of one that was never stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ARGUMENTS = (
    "measure --model builtin:countdown --problems countdown --limit 48 --traces 2 --branches 2 --budget 128 "
    "--answer-tokens 16 --out"
).split()


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headway", *ARGUMENTS, str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - begun
    rng = random.Random(0)
    for kill in range(10):
        out = tmp_path / f"killed-{kill}"
        running = start(out)
        moment = rng.uniform(0.3, 1.0) * seconds
        try:
            running.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        there = sorted(p.name for p in out.iterdir()) if out.exists() else []
        print(f"kill {kill} after {moment:.1f} s of {seconds:.1f} s: {there}")
        assert start(out).wait() == 0
        assert (out / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
