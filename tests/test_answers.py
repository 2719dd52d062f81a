"""Where an answer is in a text, which letter it chooses, and the rule of the grader `deepscaler`."""

import pytest

from headway.problems import deepscaler
from headway.problems.graders import Boxed
from headway.procedures.sample import grade_traces
from headway.text.answers import answer_after, extract_answer, last_box
from headway.text.letters import choice_of, is_choice
from headway.types import Problem, Trace


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>37</answer>", "37"),
        ("The sum is 5.\n<answer> 37 </answer>", "37"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("<answer>1</answer><answer> </answer>", "1"),
        ("<answer> 6.1e-12", "6.1e-12"),
        ("<answer>It is \\boxed{5}.</answer>", "5"),
        ("\\boxed{4} <answer>5</answer>", "5"),
        ("58</answer>", "58"),
        ("<|begin_of_box|>58<|end_of_box|>", "58"),
        ("$$\n\\boxed{\n23\n}\n$$", "23"),
        ("\\boxed{\\begin{pmatrix}\n3 \\\\\n1\n\\end{pmatrix}}", "\\begin{pmatrix}\n3 \\\\\n1\n\\end{pmatrix}"),
        ("It is \\boxed{23}. I was asked to use \\boxed{} and did.", "23"),
        ("It is 23.\n\n\\boxed{ }", "It is 23."),
        ("\\boxed{1} or, better, \\boxed{", None),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{\\text{It is } \\boxed{5}}", "5"),
        ("\\fbox{3} and \\boxed {4}", "3, 4"),
        ("The roots are \\boxed{2} and \\boxed{9}.", "2, 9"),
        ("$x=\\boxed{9}$ or $x=\\boxed{2}$", "9, 2"),
        ("\\boxed{2}, \\boxed{9}, \\text{ and } \\boxed{11}", "2, 9, 11"),
        ("\\[\\boxed{2}\\]\n\\[\\boxed{9}\\]", "2, 9"),
        ("First \\boxed{2}. That was a slip; it is \\boxed{9}.", "9"),
        ("\\boxed{2}, no, \\boxed{9}", "9"),
        ("It is \\boxed{9}. To repeat: \\boxed{9}.", "9"),
        ("\\boxed{9} \\boxed{9}", "9"),
        ("\\boxed{2} and \\boxed{9}. But a check says: \\boxed{8}", "8"),
        ("\\boxed{|x|<3}", "|x|<3"),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "end",
    [
        "<|im_end|>", "<|endoftext|>", "</s>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|return|>", "<|end|>",
        "<｜end▁of▁sentence｜>", "<end_of_turn>", "<eos>", "<end_of_turn>\n<eos>", "<|user|>", "<turn|>",
        "[|endofturn|]",
        "<|im_end|>\n<|im_start|>user\nWhat is \\boxed{3}?",
        "<|END_OF_TURN_TOKEN|>", "<seed:eos>", "<|end▁of▁sentence|>",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["58", "x-4", "It is \\boxed{7}."])
def test_an_end_token_of_any_family_ends_the_answer(text, end):
    assert extract_answer(text + end) == extract_answer(text + " " + end) == extract_answer(text)


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 3000 + "}" * 3000,
        "\\boxed{1}" + " $,;" * 50_000 + "x\\boxed{2}",
        "\\boxed{" + "$. {}" * 50_000 + "x}",
        "\\boxed{x}" * 20_000,
        "<answer>" * 20_000,
        "<|" + "a" * 200_000,
        "\\boxed{1}\\text{" + " " * 100_000 + "\\boxed{2}",
        "\\boxed{1}" + "a_{" * 50_000 + "\\boxed{2}",
    ],
)
def test_a_long_hostile_text_is_read(text):
    extract_answer(text)
    last_box(text)


@pytest.mark.parametrize("text", ["1 < |x| > 2", "a<b|c>d", "<x|y>", "{s : s > 1}", "x</sin", "f<|x|>g"])
def test_what_looks_like_a_token_stays(text):
    assert extract_answer(text) == text


def test_a_forced_text_may_have_opened_the_tag_or_the_box():
    assert answer_after("Time is up.</think>\n<answer>", "37</answer>") == "37"
    assert answer_after("so \\boxed{", "37}") == "37"
    assert answer_after("so ", "37") == "37"
    assert answer_after("so \\boxed{", "37", last_box) is None  # by a rule that wants a closed box


CHOSEN = [
    "C", "(C)", "C.", "C)", "c", "(C) 14", "C. 14 m", "\\textbf{(C)}\\ 14", "\\text{Option C}", "C: the third one",
    "The correct answer is C.", "ANSWER: C", "A and B are too small.\n\n**Answer: C**", "**C**", "Answer: (C)",
    "The answer is (C). Note that D is a common mistake.", "The answer is: **C**",
    "Therefore, the correct option is C.",
    "Let me see.\n\nC", "So (C) is correct", "I would choose C", "the answer is option C", "C \\text{ 14}",
    "The correct choice is C because it fits", "It is not A. The answer is C.", "**C.** 14 m", "C, since 14", "$C$",
    "(C)\n\nBecause it is.", "### Answer\nC", "My final answer is C", "C — the third",
]  # fmt: skip
OTHER = [
    "D", "D. 14 m", "The correct answer is B, not C.", "A \\text{ and } C", "Chemistry gives no clear result.", "A, C",
    "AC", "A and C", "The answer is not C", "The answer isn't C.", "C or D", "The answer is C or D", "A/C", "not C",
    "Option C is wrong.", "C + 1", "C - 1", "2C", "The wrong answer is C", "None", "Neither C nor D", "(A) and (C)",
    "The answer is B. C is a common mistake.", "B: C is wrong", "C^2", "Carbon", "I like C", "Answer: D (not C)", "14",
    "the answer is A. Cats", "It could be C.", "The answer is C and D",
]  # fmt: skip


@pytest.mark.parametrize("text", CHOSEN)
def test_an_answer_that_chooses_c(text):
    assert choice_of(text) == "C"


@pytest.mark.parametrize("text", OTHER)
def test_an_answer_that_does_not_choose_c(text):
    assert choice_of(text) != "C"


def test_a_reference_that_is_a_letter():
    assert all(map(is_choice, ["C", "(C)", "\\text{(C)}", "C.", "\\textbf{J}"]))
    assert not any(map(is_choice, ["c", "x", "K", "AC", "C + 1", "14", "\\text{Carbon}", "Cat"]))


# by the public rule, read by hand: reference, right, wrong
RULE = [
    ("\\frac{1}{2}", ["0.5", "1/2", "\\dfrac12", "\\frac12"], ["2/4", "\\frac{2}{4}", "50\\%", ".50001"]),
    (
        "42",
        ["42", "42.0", "42\\text{ cm}", "x=42", "\\$42", "42^\\circ", "42\\%", "\\text{42}"],
        ["84/2", "41+1", "42 apples"],
    ),
    ("1,000,000", ["1000000", "1{,}000{,}000"], ["1000001", "10^6", "1 million"]),
    ("x+1", ["1+x", "x + 1", "(x^2-1)/(x-1)"], ["x-1", "y+1"]),
    ("2^{10}", ["2^{10}"], ["1024"]),
    ("(1,2)", ["(1, 2)", "(1,2)", "\\left(1,2\\right)"], ["[1,2]", "(2,1)", "1,2", "\\{1,2\\}"]),
    ("3\\sqrt{7}", ["3\\sqrt7", "3*\\sqrt{7}", "\\sqrt{63}"], ["7\\sqrt{3}", "3\\sqrt{8}"]),
    ("7\\frac{3}{4}", ["7 3/4", "7+3/4", "7.75"], ["7"]),
    ("\\text{east}", ["east", "East"], ["west"]),
    ("abc", ["abc", "ABC"], ["cba"]),  # more than two letters are never evaluated
]


@pytest.mark.parametrize(("reference", "right", "wrong"), RULE)
def test_the_rule_of_deepscaler(reference, right, wrong):
    assert [a for a in right if not deepscaler.judge(a, reference)] == []
    assert [a for a in wrong if deepscaler.judge(a, reference)] == []


@pytest.mark.parametrize(
    "answer", ["__import__('os')", "[].append", "'a'*9", "a.b", "x;y", "lambda:0", "i\u0131__", "2\n3"]
)
def test_the_rule_evaluates_nothing_but_arithmetic(answer):
    assert deepscaler.judge(answer, "7") is False


def test_the_grader_wants_a_box_that_is_closed_and_the_last():
    def trace(text):
        text = "hm</think>" + text
        return Trace("p", 0, (1,), tuple(range(len(text))), text, tuple(range(len(text))), 2, True, "stop", "any")

    problems = {"p": Problem("p", "?", "9")}
    texts = [
        "9",
        "<answer>9</answer>",
        "\\boxed{9}",
        "\\boxed{2} and \\boxed{9}",
        "\\boxed{9",
        "\\boxed{9} \\boxed{8}",
    ]
    with Boxed(deepscaler.judge, workers=1) as grader:
        graded = grade_traces([trace(text) for text in texts], problems, grader)
    assert [t.reward for t in graded] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert [t.answer for t in graded] == [None, None, "9", "9", None, "8"]
