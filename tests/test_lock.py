"""One writer for a run folder; what two wrote is refused; readers change nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headway.runs.lock import staging, writing
from headway.runs.measure import Measurement
from headway.runs.report import compare_runs
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.types import HeadwayError

SETTINGS = Settings.of(model="scripted", problems="countdown", limit=4, traces=2, branches=2)
HOLD = "import sys, time; from pathlib import Path; from headway.runs.lock import writing\n"
HOLD += "with writing(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def measured(path: Path) -> Path:
    with Measurement.create(path, SETTINGS) as measurement:
        measurement.all()
    return path


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_a_second_process_is_told_who_writes_and_the_lock_ends_with_the_first(tmp_path: Path) -> None:
    out = measured(tmp_path / "r")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        before = contents(out)
        for start in (lambda: Measurement.create(out, SETTINGS), lambda: Measurement.load(out)):
            with pytest.raises(
                HeadwayError, match=rf"in use by another process \(process {first.pid} on .*Wait until"
            ):
                start()
        assert contents(out) == before
        os.kill(first.pid, signal.SIGKILL)
    measured(out)


def test_a_measurement_holds_its_folder_until_it_is_closed(tmp_path: Path) -> None:
    with Measurement.create(tmp_path / "r", SETTINGS), pytest.raises(HeadwayError, match="in use"):
        Measurement.load(tmp_path / "r")
    with Measurement.load(tmp_path / "r") as again, Measurement.create(tmp_path / "other", SETTINGS):
        again.sample()


def test_what_cannot_be_opened_is_not_held(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", {"model": "scripted", "unknown": 1})
    for _ in range(2):
        with pytest.raises(HeadwayError, match="unknown"):
            Measurement.load(tmp_path / "r")
    with writing(tmp_path / "r"):
        pass


def test_a_folder_of_something_else_gets_no_lock(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(HeadwayError, match="not a run folder"):
        Measurement.create(tmp_path, SETTINGS)
    with pytest.raises(HeadwayError, match="not a run folder"):
        Measurement.load(tmp_path / "none")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_to_is_one_message_that_says_what_can_be_done() -> None:
    with (
        pytest.raises(HeadwayError, match=r"/sys/kernel cannot be written to.*headway compare"),
        writing(Path("/sys/kernel")),
    ):
        pass


def test_readers_change_nothing_even_where_a_line_is_being_written(tmp_path: Path) -> None:
    a, b = measured(tmp_path / "a"), measured(tmp_path / "b")
    with (a / "branches.jsonl").open("ab") as out:
        out.write(b'{"problem_id": "countdown/test/0", "ind')
    before = contents(a)
    with writing(a):  # a measurement that is at work
        compare_runs([("a", a), ("b", b)], tmp_path / "compare", formats=())
    assert {n: c for n, c in contents(a).items() if n != ".lock"} == {n: c for n, c in before.items() if n != ".lock"}


@pytest.mark.parametrize("name", ["traces.jsonl", "branches.jsonl", "scores.jsonl"])
def test_records_that_are_there_twice_are_refused_by_whoever_reads(tmp_path: Path, name: str) -> None:
    out = tmp_path / "r"
    with Measurement.create(out, SETTINGS.changed(values="hybrid")) as measurement:
        measurement.all()
    lines = (out / name).read_bytes().splitlines(keepends=True)
    (out / name).write_bytes(b"".join([*lines, *lines[3:5]]))
    with Measurement.load(out) as measurement, pytest.raises(HeadwayError, match=rf"{name} has 2 lines more"):
        measurement.report()
    with pytest.raises(HeadwayError, match=rf"{out}: {name} has 2 lines more.*Keep one line"):
        compare_runs([("a", out)], tmp_path / "compare", formats=())
    if name == "traces.jsonl":
        with Measurement.load(out) as measurement, pytest.raises(HeadwayError, match="has 2 lines more"):
            measurement.prove()


def test_the_order_of_the_lines_changes_no_number(tmp_path: Path) -> None:
    out = measured(tmp_path / "r")
    whole = (out / "report.json").read_bytes()
    for name in ("traces.jsonl", "branches.jsonl"):
        lines = (out / name).read_bytes().splitlines(keepends=True)
        (out / name).write_bytes(b"".join(lines[1::2] + lines[::2][::-1]))
    with Measurement.load(out) as measurement:
        measurement.all()
    assert (out / "report.json").read_bytes() == whole


def test_a_staging_folder_forgets_what_a_killed_process_left_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / ".r.import"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "traces.jsonl").write_text("{")
    (folder / "traces.jsonl").write_text("{")
    with staging(folder) as made:
        assert [p.name for p in made.iterdir()] == [".lock"]
        with pytest.raises(HeadwayError, match="in use"), staging(folder):
            pass
    assert not folder.exists()


def test_a_run_that_was_moved_or_whose_clock_jumped_goes_on(tmp_path: Path) -> None:
    whole = (measured(tmp_path / "whole") / "report.json").read_bytes()
    with Measurement.create(tmp_path / "before", SETTINGS) as measurement:
        measurement.sample()
    moved = (tmp_path / "before").rename(tmp_path / "after")
    for n, file in enumerate(sorted(moved.iterdir())):
        os.utime(file, (0, 0) if n % 2 else (2**33, 2**33))  # 1970 and 2242
    assert (measured(moved) / "report.json").read_bytes() == whole


def test_a_folder_that_moves_away_while_it_is_written_is_an_error_and_no_second_run(tmp_path: Path) -> None:
    with Measurement.create(tmp_path / "r", SETTINGS) as measurement:
        measurement.sample()
        (tmp_path / "r").rename(tmp_path / "s")
        with pytest.raises((OSError, HeadwayError)):
            measurement.prove()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    measured(tmp_path / "s")
