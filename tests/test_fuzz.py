"""A slice of the cases of tests/fuzz, which `make fuzz` runs whole: each works, or ends with one message."""

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.problems import cases
from fuzz.runner import MEMORY, SECRET, Case, judge

FUZZ = Path(__file__).parent / "fuzz"


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
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


MESSAGE = "headway: no such file; expected one\n"


@pytest.mark.parametrize(
    ("code", "said", "wrong"),
    [
        (2, MESSAGE, ""),
        (2, "prove: 1 of 2\n" + MESSAGE, ""),
        (2, "Usage: headway sample\n", ""),
        (None, "", "not done after 30 s"),
        (1, "", "exit code 1: nothing said"),
        (-9, "", "exit code -9: nothing said"),
        (2, "Traceback (most recent call last):\n  x\nKeyError: 3\n", "traceback: KeyError: 3"),
        (2, "headway: unexpected error, KeyError: 3; a file\n", "headway: unexpected error, KeyError: 3; a file"),
        (2, "", "0 messages: ''"),
        (2, MESSAGE * 2, f"2 messages: {MESSAGE * 2!r}"),
        (2, MESSAGE + "more\n" * 9, f"a message of 10 lines and {len(MESSAGE) + 45} characters"),
        (2, f"headway: {SECRET}\n", "the key is shown"),
        (0, "", "exit code 0 without traces.jsonl"),
    ],
)
def test_only_work_or_one_message_is_right(tmp_path: Path, code: int | None, said: str, wrong: str) -> None:
    case = Case("a", ("import", "f.jsonl"), lambda folder: None)
    assert judge(case, tmp_path, set(), code, 0, said) == wrong


def test_what_a_stopped_command_leaves_behind_is_wrong(tmp_path: Path) -> None:
    case = Case("a", ("import", "f.jsonl"), lambda folder: None, "stop")
    (tmp_path / "f.jsonl").touch()
    assert judge(case, tmp_path, {"f.jsonl"}, 2, 0, MESSAGE) == ""
    assert judge(case, tmp_path, {"f.jsonl"}, 2, 2 * MEMORY, MESSAGE) == "3.0 GiB of memory"
    assert judge(case, tmp_path, {"f.jsonl"}, 0, 0, "") == "must not be accepted"
    assert judge(case._replace(must="work"), tmp_path, {"f.jsonl"}, 2, 0, MESSAGE).startswith("must work: headway:")
    (tmp_path / ".out.x").mkdir()
    assert judge(case, tmp_path, {"f.jsonl"}, 2, 0, MESSAGE) == "left over: .out.x"
    (tmp_path / ".out.x").rmdir()
    (tmp_path / "out").mkdir()
    assert judge(case, tmp_path, {"f.jsonl"}, 2, 0, MESSAGE) == "left over: out"
    sample = case._replace(arguments=("sample",))
    assert judge(sample, tmp_path, {"f.jsonl"}, 2, 0, MESSAGE) == ""
    (tmp_path / "out" / "report.json.partial").touch()
    assert "report.json.partial" in judge(sample, tmp_path, {"f.jsonl"}, 2, 0, MESSAGE)
