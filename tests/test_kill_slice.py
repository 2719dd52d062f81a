"""A slice of `slow/test_kill.py`: one kill of each command, while it writes."""

from pathlib import Path

import pytest

import kills


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, kills.Command]:
    return kills.commands(tmp_path_factory.mktemp("made"), limit=40)


@pytest.mark.parametrize("name", ["measure", "prove", "report", "compare", "import"])
def test_a_kill_changes_nothing(name: str, commands: dict[str, kills.Command], tmp_path: Path) -> None:
    print(*kills.survives(commands[name], tmp_path, 1, seed=1), sep="\n")
