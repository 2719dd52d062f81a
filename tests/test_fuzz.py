"""A slice of the cases of tests/fuzz, which `make fuzz` runs whole: each works, or ends with one message."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.problems import cases

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.parametrize(
    ("area", "part"),
    [
        ("problems", "0/25"),
        pytest.param("imports", "0/40", marks=pytest.mark.extras),
        pytest.param("servers", "0/25", marks=pytest.mark.extras),
        pytest.param("models", "0/24", marks=pytest.mark.extras),
        pytest.param("recipes", "0/80", marks=pytest.mark.extras),
    ],
)
def test_a_slice_of_hostile_inputs_works_or_ends_with_one_message(area: str, part: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ), area, "--part", part, "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cases_are_the_same_each_time() -> None:
    first, again = ([(c.name, c.arguments) for c in cases()] for _ in range(2))
    assert first == again and len({name for name, _ in first}) == len(first) >= 300
