"""The workers of graders: what starts them, what an answer may take, and when they end."""

import subprocess
import sys
import time

import pytest

from headway.problems.graders import Pooled, load_grader
from headway.problems.workers import Workers
from headway.types import HeadwayError, Problem

BODY = """
print("body")
from headway.problems.graders import load_grader
from headway.types import Problem
grader = load_grader("math-verify")
print(grader.grade([(Problem("p", "?", "0.5"), answer) for answer in ("\\\\frac{1}{2}", "\\\\frac{1}{3}")]))
"""
PRINTED = "body\n[1.0, 0.0]\n"


def ran(*arguments, text="", cwd):
    """Python with arguments and standard input; it returns when the last process that has its stderr has ended."""
    return subprocess.run(
        [sys.executable, *arguments], input=text, cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("form", ["script", "module", "-c", "stdin"])
def test_a_program_without_a_guard_runs_once_and_its_workers_end_with_it(form, tmp_path):
    (tmp_path / "plain.py").write_text(BODY)
    arguments = {"script": ["plain.py"], "module": ["-m", "plain"], "-c": ["-c", BODY], "stdin": ["-"]}[form]
    done = ran(*arguments, text=BODY, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (PRINTED, "", 0)


def test_a_script_without_a_guard_measures_once(tmp_path):
    (tmp_path / "plain.py").write_text(
        'import headway\nprint("body")\n'
        'run = headway.measure("scripted", "countdown", limit=2, grader="math-verify", out="run")\nprint("measured")\n'
    )
    done = ran("plain.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in ("body", "measured")] == ["body", "measured"]


def test_workers_end_with_a_caller_that_is_killed(tmp_path):
    done = ran(
        "-c", BODY + "import os, signal, sys; sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)", cwd=tmp_path
    )
    assert (done.stdout, done.returncode) == (PRINTED, -9)


def test_modules_of_the_working_directory_do_not_stand_in_for_others(tmp_path):
    for name in ("random", "pickle", "sympy", "headway"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    script = tmp_path / "scripts" / "plain.py"
    script.parent.mkdir()
    script.write_text(BODY)
    done = ran(str(script), cwd=tmp_path)
    assert (done.stdout, done.stderr) == (PRINTED, "")


def test_a_judge_of_the_script_is_refused_with_what_to_do(tmp_path):
    script = (
        'print("body")\nfrom headway.problems.graders import Pooled\nfrom headway.types import Problem\n'
        "def same(answer, reference): return answer == reference\n"
        'Pooled(same).grade([(Problem("p", "?", "1"), "1")])\n'
    )
    (tmp_path / "plain.py").write_text(script)
    done = ran("plain.py", cwd=tmp_path)
    assert done.stdout == "body\n"
    assert "HeadwayError: the judge same runs in a process of its own, which cannot import it" in done.stderr
    assert "put it into a module" in done.stderr


def test_a_judge_without_a_name_is_refused():
    with pytest.raises(HeadwayError, match=r"the judge .*<lambda> runs in a process of its own.*graders\.InPlace"):
        Workers(lambda answer, reference: True, workers=1, cpu_s=1.0).judge([("1", "1")])


def waits_or_works(answer, reference):
    """Waits longer than an answer may work, as a process does that the machine gives no processor."""
    if answer == "wait":
        time.sleep(1.0)
    while answer == "work":
        pass
    return True


def test_the_limit_is_processor_time():
    with Pooled(waits_or_works, workers=1, cpu_s=0.3) as grader:
        answers = ("wait", "work", "1", "wait")
        assert grader.grade([(Problem("p", "?", "1"), a) for a in answers]) == [1.0, None, 1.0, 1.0]


def test_one_that_waits_for_ever_is_undecided():
    with Pooled(waits_or_works, workers=1, cpu_s=0.3, wall_s=0.2) as grader:
        assert grader.grade([(Problem("p", "?", "1"), a) for a in ("wait", "1")]) == [None, 1.0]


def test_verdicts_keep_their_order_whatever_takes_longest():
    with Pooled(waits_or_works, workers=3, cpu_s=0.3) as grader:
        answers = ["wait", *map(str, range(200)), "work", "201"]
        undecided = [
            i for i, r in enumerate(grader.grade([(Problem("p", "?", "1"), a) for a in answers])) if r is None
        ]
        assert undecided == [201]


def test_bombs_are_undecided_and_what_follows_each_is_right():
    bombs = ("9^{9^{9^9}}", "(10^9)!", "{" * 900 + "1" + "}" * 900, "2^{10^{10}}")
    items = [
        (Problem("p", "?", "0.5"), text) for i, bomb in enumerate(bombs) for text in (bomb, f"{i + 1}/{2 * i + 2}")
    ]
    with load_grader("math-verify") as grader:
        assert grader.grade(items) == [None, 1.0] * len(bombs)


EQUATIONS = (
    "x = \\frac{e^{t}}{3} + ce^{-2t}",
    "y'' + ry' - rx(t) = 0",
    "ml\\ddot{\\theta} - mg\\sin\\theta = f\\cos\\theta",
)


def test_an_equation_in_a_sentence_is_decided_within_its_limit():
    """Read as one expression, the sentence's letters are unknowns too, and comparing the two takes minutes."""
    with load_grader("math-verify") as grader:
        items = [(Problem("p", "?", equation), f"the answer is ${equation}$") for equation in EQUATIONS]
        assert grader.grade(items) == [1.0] * len(items)
