"""A command that is killed at any moment and run again ends as one that was never stopped."""

import math
import signal
import time
from pathlib import Path

import pytest

import kills

pytestmark = pytest.mark.slow
BUILTIN = (
    "measure --model builtin:countdown --problems countdown --limit 48 --traces 2 --branches 2 --budget 128 "
    "--answer-tokens 16 --out {}/run"
).split()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, kills.Command]:
    return kills.commands(tmp_path_factory.mktemp("made"), limit=100)


@pytest.mark.parametrize("name", ["measure", "prove", "report", "compare", "import"])
def test_ten_kills_change_nothing(name: str, commands: dict[str, kills.Command], tmp_path: Path) -> None:
    print(*kills.survives(commands[name], tmp_path, 10), sep="\n")


@pytest.mark.extras
def test_ten_kills_of_a_model_change_nothing(tmp_path: Path) -> None:
    command = kills.Command(BUILTIN, lambda folder: folder.mkdir(), ["run/report.json"])
    print(*kills.survives(command, tmp_path, 10), sep="\n")


def test_killed_restarted_and_doubly_started_two_hundred_problems_give_one_report(tmp_path: Path) -> None:
    arguments = ["measure", *kills.SIZE, "--limit", "200", "--out", "{}/run"]
    for name in ("whole", "hurt"):
        (tmp_path / name).mkdir()
    assert kills.start(arguments, tmp_path / "whole").wait() == 0
    codes: list[int] = []
    for change in (2, 5, 9, math.inf):
        first = kills.start(arguments, tmp_path / "hurt")
        while not (tmp_path / "hurt" / "run" / ".lock").exists():
            time.sleep(0.01)
        others = [kills.start(arguments, tmp_path / "hurt") for _ in range(2)]
        kills.watch(first, tmp_path / "hurt", change, math.inf)
        codes += [process.wait() for process in (first, *others)]
    assert set(codes) <= {0, 2, -signal.SIGKILL} and 2 in codes and -signal.SIGKILL in codes
    for name in ("report.json", "report.html", "traces.jsonl", "branches.jsonl"):
        assert (tmp_path / "hurt/run" / name).read_bytes() == (tmp_path / "whole/run" / name).read_bytes()
