"""The command line on the scripted engine and the built-in model; bad input is one message and exit 2."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

import tiny
from headway import cli
from headway.runs.report import compare_runs
from headway.types import HeadwayError

EXTRAS = pytest.mark.extras  # what needs more than the minimal install
MINIMAL = pytest.mark.skipif(find_spec("torch") is not None, reason="is about an install without torch")
SCRIPTED = ["--model", "scripted", "--problems", "countdown", "--limit", "6", "--traces", "2", "--branches", "3"]


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["headway", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
        raise SystemExit(0)
    return int(ended.value.code or 0)


def test_measure_writes_a_report_and_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("measure", *SCRIPTED, "--out", str(tmp_path / "r"), monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "pass@1" in out and "report.html" in out
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["n_problems"] == 6 and report["n_traces"] == 12 and sum(report["counts"].values()) == 12
    fields = "model problems comparator pass_at_1 budget_curve normalized_regret episodes tokens progress counts"
    assert set(fields.split()) <= report.keys()
    assert all(e["stderr"] is not None and len(e["ci95"]) == 2 for e in report["budget_curve"])


def test_stages_one_by_one_give_what_measure_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("measure", *SCRIPTED, "--out", str(tmp_path / "a"), monkeypatch=monkeypatch)
    assert run("sample", *SCRIPTED, "--out", str(tmp_path / "b"), monkeypatch=monkeypatch) == 0
    assert run("prove", "--out", str(tmp_path / "b"), monkeypatch=monkeypatch) == 0
    assert run("report", "--out", str(tmp_path / "b"), monkeypatch=monkeypatch) == 0
    a, b = ((tmp_path / x / "report.json").read_text() for x in "ab")
    assert a == b


def test_a_stopped_run_goes_on_to_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r"
    run("measure", *SCRIPTED, "--out", str(out), monkeypatch=monkeypatch)
    whole = (out / "report.json").read_text()
    for name, share in (("traces.jsonl", 0.6), ("branches.jsonl", 0.37)):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data[: int(len(data) * share)])
        (out / "report.json").unlink()
        if name == "traces.jsonl":
            (out / "branches.jsonl").unlink()
        assert run("measure", *SCRIPTED, "--out", str(out), monkeypatch=monkeypatch) == 0
        assert (out / "report.json").read_text() == whole


def test_compare_puts_runs_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        run("measure", *SCRIPTED, "--seed", seed, "--out", str(tmp_path / name), monkeypatch=monkeypatch)
    capsys.readouterr()
    runs = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run("compare", *runs, "--out", str(tmp_path / "c"), monkeypatch=monkeypatch) == 0
    assert "| pass@1" in capsys.readouterr().out
    compared = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [r["label"] for r in compared["runs"]] == ["a", "b"] and (tmp_path / "c" / "report.html").exists()


def test_an_extended_run_and_a_linearized_one_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    run("measure", *SCRIPTED, "--out", a, monkeypatch=monkeypatch)
    assert run("extend", a, "--rounds", "2", "--round-tokens", "90", "--out", b, monkeypatch=monkeypatch) == 0
    assert f"next: headway prove --out {b}" in " ".join(capsys.readouterr().out.split())
    assert run("prove", "--out", b, monkeypatch=monkeypatch) == 0
    assert run("report", "--out", b, monkeypatch=monkeypatch) == 0
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert report["budget"] == 1024 + 180 and report["n_traces"] == 12
    assert run("compare", a, b, "--out", str(tmp_path / "c"), monkeypatch=monkeypatch) == 0
    compared = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert {r["label"] for r in compared["token_efficiency"]} == {"b"}
    assert {r["label"] for r in compared["regret_by_comparator"]} == {"a", "b"}
    few = ["--chains", "1", "--rounds", "2", "--round-tokens", "90", "--window", "1"]
    assert run("linearize", a, *few, monkeypatch=monkeypatch) == 0
    assert len(json.loads((tmp_path / "a" / "linearized.json").read_text())["majority"]) == 2
    assert run("extend", a, "--rounds", "2", "--round-tokens", "4", "--out", b + "2", monkeypatch=monkeypatch) == 2
    assert "has no room after its marker" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["measure", "--model", "no/such/folder", "--limit", "2"],
            "cannot load the model 'no/such/folder'",
            marks=pytest.mark.extras,
        ),
        pytest.param(["measure", "--model", "builtin:chess"], "builtin:countdown", marks=EXTRAS),
        (["measure", "--model", "scripted", "--problems", "nowhere.jsonl"], "no problem file or named set"),
        pytest.param(
            ["measure", "--model", "scripted", "--problems", "gym:sudoku"],
            "answers have several lines",
            marks=pytest.mark.extras,
        ),
        (["measure", "--model", "scripted", "--problems", "hub:a:b:c"], "expected hub:owner/name"),
        (["measure", "--model", "scripted", "--id-column", "nr"], "'countdown' has its own columns"),
        (["measure", "--model", "scripted", "--prompt-template", "Solve."], "--prompt-template needs {problem}"),
        (["measure", "--model", "scripted", "--think-format", "xml"], "xml"),
        (["measure", "--model", "scripted", "--traces", "0"], "traces must be at least 1, got 0"),
        (["measure", "--model", "scripted", "--grader", "vibes"], "got 'vibes'"),
        (["measure", "--model", "scripted", "--speed", "9"], "No such option"),
        (["measure", "--model", "scripted", "--engine", "abacus"], "abacus"),
        (
            ["measure", "--model", "scripted", "--base-url", "http://h/v1"],
            "goes with --engine api, got auto",
        ),
        (["measure", "--model", "m", "--engine", "api"], "is no address; expected e.g. http://localhost:8000/v1"),
        (
            ["measure", "--model", "m", "--engine", "api", "--base-url", "http://h/v1", "--timeout", "0"],
            "timeout must be above 0, got 0.0",
        ),
        (["measure", "--model", "m", "--engine", "vllm", "--vllm-args", "tp=2"], "expected JSON such as"),
        (
            ["measure", "--model", "m", "--engine", "api", "--base-url", "http://h/v1", "--tokenizer", "no/such"],
            "give --tokenizer a folder or hub name",
        ),
        pytest.param(["measure", "--model", "builtin:countdown"], "Headway with its extra 'hf'", marks=MINIMAL),
        pytest.param(["train"], "install Headway with its extra 'train'", marks=MINIMAL),
        (["prove"], "is not a run folder"),
        (["report"], "is not a run folder"),
        (["extend", "nowhere"], "is not a run folder"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert run(*arguments, "--out", str(tmp_path / "r"), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert says in " ".join(error.split())
    assert "Traceback" not in error
    assert not (tmp_path / "r" / "traces.jsonl").exists()


def test_bad_problem_lines_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.jsonl"
    for content, says in (
        ('{"id": "1", "prompt": "x", "answer": "2"}\n{"id": "2", "prompt": "y"}\n', "line 2"),
        ("not json\n", "line 1"),
        ("", "holds no problem"),
    ):
        file.write_text(content)
        arguments = ["measure", "--model", "scripted", "--problems", str(file), "--out", str(tmp_path / "r")]
        assert run(*arguments, monkeypatch=monkeypatch) == 2
        assert says in capsys.readouterr().err


def test_columns_and_template_reach_the_problems_and_stay_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.csv").write_text("question,out,nr\n2 + 2?,4,a\n3 + 3?,6,b\n")
    columns = ["--prompt-column", "question", "--answer-column", "out", "--id-column", "nr"]
    asked = [*columns, "--prompt-template", "What is {problem}"]
    arguments = ["sample", "--model", "scripted", "--problems", str(tmp_path / "p.csv"), *asked, "--traces", "1"]
    assert run(*arguments, "--out", str(tmp_path / "r"), monkeypatch=monkeypatch) == 0
    traces = [json.loads(line) for line in (tmp_path / "r" / "traces.jsonl").read_text().splitlines()]
    assert [t["problem_id"] for t in traces] == ["a", "b"]
    assert "".join(map(chr, traces[0]["prompt_ids"])).startswith("<user>What is 2 + 2?<assistant>")
    assert run("prove", "--out", str(tmp_path / "r"), monkeypatch=monkeypatch) == 0
    capsys.readouterr()
    assert run(*arguments[:-8], "--out", str(tmp_path / "n"), monkeypatch=monkeypatch) == 2
    assert "--answer-column. It has question, out, nr" in " ".join(capsys.readouterr().err.split())


def test_other_settings_are_refused_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("measure", *SCRIPTED, "--out", str(tmp_path), monkeypatch=monkeypatch)
    before = (tmp_path / "traces.jsonl").read_bytes()
    assert run("measure", *SCRIPTED, "--budget", "77", "--out", str(tmp_path), monkeypatch=monkeypatch) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "budget: there 1024, now 77" in error and "seed" not in error
    assert (tmp_path / "traces.jsonl").read_bytes() == before


def test_a_run_needs_its_problem_file_no_more_and_goes_on_only_with_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "sums.jsonl", tmp_path / "r"
    lines = [json.dumps({"id": str(i), "prompt": f"1 + {i}?", "answer": str(1 + i)}) for i in range(4)]
    file.write_text("\n".join(lines))
    arguments = ["--model", "scripted", "--problems", str(file), "--grader", "numeric", "--traces", "1"]
    assert run("sample", *arguments, "--out", str(out), monkeypatch=monkeypatch) == 0
    file.write_text("\n".join(lines).replace('"1 + 2?"', '"1 + 2 ?"'))
    assert run("measure", *arguments, "--out", str(out), monkeypatch=monkeypatch) == 2
    assert "the first that differs is '2'" in " ".join(capsys.readouterr().err.split())
    file.unlink()
    assert run("prove", "--out", str(out), monkeypatch=monkeypatch) == 0
    assert run("report", "--out", str(out), monkeypatch=monkeypatch) == 0
    assert run("compare", str(out), "--out", str(tmp_path / "c"), monkeypatch=monkeypatch) == 0
    assert json.loads((out / "report.json").read_text())["problems"] == "sums"


@pytest.mark.extras
def test_a_model_without_template_or_tags_says_how_to_give_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny.tokenizer()
    tiny.model().save_pretrained(tmp_path / "m")
    arguments = ["measure", "--model", str(tmp_path / "m"), "--limit", "1", "--out"]
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "m")
    assert run(*arguments, str(tmp_path / "r1"), monkeypatch=monkeypatch) == 2
    assert "no chat template" in " ".join(capsys.readouterr().err.split())
    tokenizer = tiny.tokenizer(("<o>", "<c>"))
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "m")
    assert run(*arguments, str(tmp_path / "r2"), monkeypatch=monkeypatch) == 2
    assert "--think-close" in " ".join(capsys.readouterr().err.split())


@pytest.mark.extras
def test_train_refuses_an_unknown_key_and_a_missing_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text("model_name_or_path: builtin:countdown\nproblems: countdown-train\nprogres: 1\n")
    assert run("train", "--config", str(tmp_path / "r.yaml"), monkeypatch=monkeypatch) == 2
    assert "progres" in capsys.readouterr().err
    assert run("train", "--config", str(tmp_path / "none.yaml"), monkeypatch=monkeypatch) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert run("train", monkeypatch=monkeypatch) == 2
    assert "--problems" in capsys.readouterr().err


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process that heeds SIGINT, also where this one runs in the background and does not."""
    command = [sys.executable, "-m", "headway", *arguments]
    heeds = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heeds) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_says_how_to_continue_and_ends_with_the_signals_code(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    many = ["--limit", "2000", "--traces", "8", "--out", str(tmp_path / "r")]
    with started("sample", *SCRIPTED, *many) as process:
        assert process.stderr is not None and process.stderr.readline() == "sample: 0 of 16000\n"
        process.send_signal(sent)
        *shown, last = process.stderr.read().splitlines()
        assert last == "stopped; finished work is saved, and the same command continues it"
        assert all(line.startswith("sample: ") for line in shown) and process.wait() == code


def test_a_stopped_process_does_not_wait_for_a_server_that_hangs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        hangs.settimeout(60)
        address = f"http://127.0.0.1:{hangs.getsockname()[1]}/v1"
        api = ["--model", "m", "--engine", "api", "--tokenizer", "builtin:countdown", "--base-url", address]
        with started("sample", *api, "--problems", "countdown", "--out", str(tmp_path / "r")) as process:
            listed, _ = hangs.accept()  # is it there? it is
            listed.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            listed.close()
            asked, _ = hangs.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130  # a request may take 600
            asked.close()


def test_an_error_that_was_not_foreseen_is_one_line_and_its_traceback_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> None:
        raise ZeroDivisionError("a\nb\x1b[31m" + "x" * 9000)

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run("report", monkeypatch=monkeypatch) == 2
    [line] = capsys.readouterr().err.splitlines()
    [log] = tmp_path.iterdir()
    assert line.startswith("headway: unexpected error, ZeroDivisionError: a b\N{REPLACEMENT CHARACTER}[31mxxx")
    assert len(line) < 1000 and f"the traceback in {log} (--traceback prints it)" in line
    assert "in broken" in log.read_text() and "x" * 9000 in log.read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert run("report", "--traceback", monkeypatch=monkeypatch) == 2
    assert "in broken" in capsys.readouterr().err


def test_all_of_an_errors_traceback_is_shown_if_asked_for_with_any_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--traceback", "report", "--out", "nowhere"], ["report", "--out", "nowhere", "--traceback"]):
        assert run(*arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err
        assert "Traceback (most recent call last)" in error and error.splitlines()[-1].startswith(
            "headway: nowhere is"
        )


def test_a_message_of_the_operating_system_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / ("long name " * 20).strip()
    assert run("sample", *SCRIPTED, "--out", str(out), monkeypatch=monkeypatch) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"headway: [Errno 20] Not a directory: '{tmp_path / 'file'}'" or str(out) in line


def test_a_comparison_with_a_label_that_no_page_has_room_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match=r"a label of 200000 characters \(x+…\); give labels of at most 255"):
        compare_runs([("a", tmp_path), ("x" * 200_000, tmp_path)], tmp_path / "c")
