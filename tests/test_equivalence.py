import pytest

from headway.core.votes import NO_VOTE
from headway.problems.graders import Pooled, judge_math
from headway.text.equivalence import ROUNDS, answer_classes, canonical
from headway.types import Problem


class Parity:
    """Says that two answers are equal if their lengths are; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def grade(self, items):
        self.asked += [(problem.answer, answer) for problem, answer in items]
        return [float(len(problem.answer) == len(answer)) for problem, answer in items]


def wrong(*answers):
    return [("p", a, 0.0) for a in answers]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"$\dfrac{1}{2}$.", r"\frac{1}{2}"),
        ("1,234.50", "1234.5"),
        ("0.25", " .25 "),
        ("007", "7"),
        ("-0", "0"),
    ],
)
def test_one_form_of_one_answer(a, b):
    assert canonical(a) == canonical(b)


@pytest.mark.parametrize(("a", "b"), [("1,2", "12"), ("x", "X"), ("2^3", "8"), ("1e99999999", "1e9")])
def test_other_answers_have_other_forms(a, b):
    assert canonical(a) != canonical(b)


def test_a_hostile_number_is_a_text():
    assert canonical("9" * 5000) == "9" * 5000


def test_wrong_answers_are_not_one_answer():
    a, b, c = answer_classes(wrong("8", "9", "8.0"), one_right=True)
    assert a == c != b


def test_right_answers_are_one_where_a_problem_has_one():
    items = [("p", "2+3", 1.0), ("p", "3+2", 1.0), ("q", "2+3", 1.0)]
    assert answer_classes(items, one_right=True) == [0, 0, 1]
    assert len(set(answer_classes(items, one_right=False))) == 3  # an expression may reach the target in its own way


def test_what_nobody_answered_or_decided_does_not_vote():
    assert answer_classes([("p", None, 0.0), ("p", "7", None)], one_right=True) == [NO_VOTE, NO_VOTE]


def test_a_verdict_parts_what_the_text_does_not():
    a, b = answer_classes([("p", "7", 1.0), ("p", "7", 0.0)], one_right=True)
    assert a != b


def test_a_grader_merges_wrong_texts_of_one_problem():
    same = Parity()
    items = [*wrong("aa", "aa", "bb", "c"), ("q", "dd", 0.0)]
    assert answer_classes(items, one_right=True, same=same) == [0, 0, 0, 1, 2]
    assert ("aa", "bb") in same.asked and all("dd" not in pair for pair in same.asked)


def test_a_grader_reads_what_was_written():
    same = Parity()
    answer_classes(wrong(r"2 \pi r", r"2 \pi x"), one_right=True, same=same)
    assert same.asked == [(r"2 \pi r", r"2 \pi x")]


def test_numbers_are_not_sent_to_a_grader():
    same = Parity()
    assert len(set(answer_classes(wrong("10", "20", "1/3"), one_right=True, same=same))) == 3
    same.asked.clear()
    answer_classes(wrong("10", "20"), one_right=True, same=same)
    assert same.asked == []


def test_the_work_is_bounded():
    same = Parity()
    texts = ["x" * n for n in range(1, 60)]  # no two of a length
    assert len(set(answer_classes(wrong(*texts), one_right=True, same=same))) == 59
    assert len(same.asked) == sum(59 - 1 - r for r in range(ROUNDS))
    same.asked.clear()
    answer_classes(wrong("x" * 5000, "y" * 5000), one_right=True, same=same)
    assert same.asked == []


def test_math_verify_merges_forms_of_wrong_answers():
    items = wrong(r"\frac{1}{3}", r"\dfrac13", "x+1", "1+x", "x+2")
    with Pooled(judge_math, workers=1) as same:
        found = answer_classes(items, one_right=True, same=same)
    assert found[0] == found[1] and found[2] == found[3]
    assert len({found[0], found[2], found[4]}) == 3
    assert Problem("p", "p", "1/3")  # the reference of such a question is an answer like any other
