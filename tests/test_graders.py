import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.problems import countdown
from headway.problems.graders import (
    MAX_ANSWER_CHARS,
    InPlace,
    Pooled,
    exact,
    judge_math,
    load_grader,
    numeric,
)
from headway.text.answers import extract_answer
from headway.types import Grader, HeadwayError, Problem


def asked(*answers, reference="42"):
    return [(Problem("p", "What?", reference), answer) for answer in answers]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{\\frac{1}{4}} and on", "\\frac{1}{4}"),
        ("\\boxed{{{a}}b}", "{{a}}b"),
        ("\\boxed{1} no, \\boxed{2}", "2"),
        ("\\boxed{7", "7"),
        ("\\boxed{7\nand then {", "7"),
        ("\\boxed{\\frac{1}{4}\nmore}", "\\frac{1}{4}\nmore"),
        ("\\boxed{ 4 2 }", "4 2"),
        ("  42 \n", "42"),
        ("4}2", "4}2"),
        ("\\boxed{}", None),
        ("\\boxed{1} \\boxed{}", "1"),
        ("\\boxed{", None),
        ("\\boxed{\n42}", "42"),
        ("", None),
        (" \n", None),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert extract_answer(text) == answer


@given(st.text(alphabet="\\boxed{}a\n ", max_size=60) | st.text(max_size=60))
def test_an_answer_is_never_blank(text):
    answer = extract_answer(text)
    assert answer is None or answer == answer.strip() != ""


@given(st.text(alphabet="ab1", min_size=1, max_size=20), st.text(alphabet="xy \n.", max_size=20))
def test_a_closed_box_holds_its_answer(answer, before):
    assert extract_answer(before + "\\boxed{" + answer + "} after") == answer


def test_an_empty_box_is_none():
    assert extract_answer("It is 42. \\boxed{}") == "It is 42."
    assert extract_answer("\\boxed{42} and \\boxed{ }") == "42"


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [("4 2", "42", True), ("42", " 42\n", True), ("42.", "42", False), ("X", "x", False)],
)
def test_exact(answer, reference, right):
    assert exact(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("42", "42", True),
        ("it is 7, no, 42.", "42", True),
        ("1,234.5", "1234.5", True),
        ("-3", "-3", True),
        ("3", "-3", False),
        (".5", "0.5", True),
        ("4.2e1", "42", True),
        ("42.0000001", "42", False),
        ("0.1", "1e-1", True),
        ("42 or 43", "42", False),
        ("1e999", "42", False),
        ("none", "42", False),
        ("", "42", False),
    ],
)
def test_numeric(answer, reference, right):
    assert numeric(answer, reference) is right


def test_a_reference_without_a_number_is_an_error_of_the_user():
    with pytest.raises(HeadwayError, match="needs a number as reference"):
        numeric("42", "many")


@pytest.mark.parametrize("answer", ["(3 + 4) * 6", "6*(4+3)", " ((6)) * (3 + 4)\n"])
def test_countdown_takes_any_way_over_the_same_numbers(answer):
    assert countdown.is_solution(answer, "(3 + 4) * 6")


@pytest.mark.parametrize(
    "answer",
    [
        "42",
        "3 + 4 * 6",
        "(3 + 4) * 6 * 1",
        "6 * 7",
        "(3 + 4) * 6 = 42",
        "x",
        "(3 + 4) * six",
        "6 ** 3 + 4",
        "9 ** 9 ** 9 ** 9 ** 9",
        "7 << 99999999999",
        "-(3 + 4) * -6",
        "sum([3, 4]) * 6",
        "__import__('os').getcwd()",
        "(3).__class__",
        "True + 41",
        "3.0 + 4 * 6",
        "'a' * 999999999",
        "[3 + 4] * 6",
        "(lambda: 42)()",
        "6 / (3 - 3)",
        "6 // 3 * 4",
        "(" * 199,
        "1" * 201,
        "1+" * 100_000 + "1",
        "(3 + 4)\x00 * 6",
        "\ud800",
        "\u202e(3 + 4) * 6",
        "",
        " ",
    ],
)
def test_countdown_takes_nothing_else(answer):
    assert countdown.is_solution(answer, "(3 + 4) * 6") is False


def test_countdown_divides_exactly():
    # 8 / (3 - 8/3) = 8 / (1/3) = 24, which floating point misses
    assert countdown.evaluate("8 / (3 - 8 / 3)") == (24, (3, 3, 8, 8))
    assert countdown.is_solution("1 / 3 * 6", "6 / 3 * 1")


@given(st.text(max_size=30) | st.text(alphabet="0123456789+-*/() ", max_size=30))
def test_no_text_breaks_a_grader_that_runs_in_place(text):
    for judge in (exact, numeric, countdown.is_solution):
        assert InPlace(judge).grade(asked(text, reference="(3 + 4) * 6"))[0] in (0.0, 1.0)


def test_an_answer_too_long_is_wrong():
    long = "42" + " " * MAX_ANSWER_CHARS
    assert InPlace(exact).grade(asked("42", long)) == [1.0, 0.0]


@pytest.mark.parametrize("name", ["exact", "numeric", "countdown", "math-verify", "deepscaler"])
def test_graders_have_names(name):
    assert isinstance(load_grader(name), Grader)


def test_an_unknown_grader_names_those_there_are():
    with pytest.raises(HeadwayError, match=r"grader must be one of exact, numeric, .*; got 'guess'"):
        load_grader("guess")


def workers():
    """The live processes of our graders, servers first: a server is our child, and its workers are the server's."""
    servers = [pid for pid in children(os.getpid()) if b"headway.problems.workers" in command(pid)]
    return servers + [worker for server in servers for worker in children(server)]


def children(parent):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def nested(inner, times, core="1", closing="}"):
    return inner * times + core + closing * times


HOSTILE = [
    "9^{9^{9^9}}",
    "factorial(10**9)",
    "(10^9)!",
    "1e999999999",
    nested("{", 900),
    nested("(", 900, closing=")"),
    nested("\\frac{1}{", 200),
    nested("\\sqrt{", 250, core="2"),
    "\\frac{" * 300,
    "\\int " * 300 + "x",
    "\\int_0^1" * 200,
    "\\begin{pmatrix}" + "1 & " * 450 + "1\\end{pmatrix}",
    "x" * 2**20,
    "9" * 1999,
    "4\x002",
    "\u202e24\u202c",
    "\ud800",
    "__import__('os').system('sleep 99')",
    "1/0",
    "1=2=" * 400,
]


def test_math_grading_by_hand_and_hostile_answers():
    # one pool for all: its workers take a second each to import what they need
    with Pooled(judge_math, cpu_s=2.0) as grader:
        assert grader.grade([]) == []
        items = asked("42", "42.0", "\\boxed{42}", "the answer is 42", "41", "", "nonsense")
        assert grader.grade(items) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        assert grader.grade(asked("\\frac{1}{4}", "1/4", "0.26", reference="0.25")) == [1.0, 1.0, 0.0]
        right = ["the answer is 42", "It is 42.", "Answer: 42", "so $x = 42$", "42 apples", "x = 42", "One\ntwo\n42"]
        assert grader.grade(asked(*right)) == [1.0] * len(right)
        # the last number of an expression is not its value
        assert grader.grade(asked("8n^2 + 4n + 1", "2x1", "1 + x", "x^1", reference="1")) == [0.0] * 4
        assert grader.grade(asked("7 \\times 10^{37}", "10^{10}", reference="10")) == [0.0] * 2
        powers = ["4.49 \\times 10^{33}", "4.49E+33", "4490e30", "it is about $4.49 \\times 10^{33}$"]
        assert grader.grade(asked(*powers, reference="4.49e33")) == [1.0] * 4
        assert grader.grade(asked("4.49", "33", "4.49 e 33", "10", reference="4.49e33")) == [0.0] * 4
        assert grader.grade(asked("2e", "5.436563656918090", "2 \\times 10", reference="2e")) == [1.0, 1.0, 0.0]
        verdicts = dict(zip(HOSTILE, grader.grade(asked(*HOSTILE)), strict=True))
        assert {h[:20] for h, verdict in verdicts.items() if verdict not in (None, 0.0)} == set()
        assert verdicts["9^{9^{9^9}}"] is None  # a number no machine holds: nothing can say it is wrong
        assert verdicts["x" * 2**20] == 0.0  # too long to be read
        assert grader.grade(asked("42")) == [1.0]
        assert len(workers()) == 3
    assert workers() == []


def judge_badly(answer, reference):
    """A judge that some answers hang, kill, or make eat memory."""
    if answer == "hang":
        time.sleep(10_000)
    if answer == "exit":
        os._exit(3)
    if answer == "abort":
        os.abort()
    if answer == "eat":
        hoard = []
        while True:
            hoard.append(bytes(2**24))
    if answer == "recurse":
        return judge_badly(answer, reference)
    return None if answer == "cannot say" else answer == reference


def test_an_answer_that_hangs_or_kills_its_judge_is_undecided_and_the_next_is_graded():
    hostile = ["hang", "exit", "abort", "eat", "recurse", "cannot say"]
    with Pooled(judge_badly, workers=1, cpu_s=1.0, wall_s=3.0) as grader:
        for answer in hostile:
            # in one call, and in the next: the worker was replaced
            assert grader.grade(asked(answer, "42")) == [None, 1.0], answer
        assert grader.grade(asked("41", "hang", "42", "hang", "41")) == [0.0, None, 1.0, None, 0.0]
    assert workers() == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced(which):
    with Pooled(judge_badly, workers=1) as grader:
        assert grader.grade(asked("42")) == [1.0]
        died = workers()[which]
        os.kill(died, signal.SIGKILL)
        while command(died):  # empty once it has ended
            time.sleep(0.05)
        assert grader.grade(asked("42", "41")) == [1.0, 0.0]
        assert len(workers()) == 2
    assert workers() == []


def test_a_closed_grader_starts_again_and_closing_twice_is_fine():
    grader = Pooled(judge_badly, workers=1)
    grader.close()
    assert grader.grade(asked("42")) == [1.0]
    grader.close()
    assert grader.grade(asked("41")) == [0.0]
    grader.close()
    grader.close()
    assert workers() == []
