from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from headway.engines.scripted import Characters
from headway.problems import countdown
from headway.problems.graders import load_grader
from headway.text.answers import answer_after
from headway.text.known_answers import Forms, KnownAnswers, ends_of, known_forms, written
from headway.text.numbers import rational, ways_to_write
from headway.text.offsets import decode_with_offsets
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import HeadwayError, MetaProver, Problem

TOKENIZER = tiny.tokenizer()
PROVER = meta_prover(ThinkTags("<think>", "</think>"), branches=4, max_tokens=16)
BOX = PROVER.suffix


def problem(answer):
    return Problem("p", "?", answer)


def whole(forms):
    """The forms that are all of their tokens."""
    return [TOKENIZER.decode(c.token_ids) for c in forms.continuations if not c.rest]


def forms_of(answer, *, grader="exact", prover=PROVER, forced=BOX, candidates=written):
    judge = load_grader(grader)
    judge.candidates = candidates
    return known_forms(TOKENIZER, prover, forced, problem(answer), judge)


@pytest.mark.parametrize(
    ("answer", "forms"),
    [
        ("x + 1", ["x + 1"]),
        ("12", ["12", "12.0", "12.00"]),
        ("1,234,567", ["1,234,567", "1234567", "1234567.0", "1,234,567.0", "1234567.00", "1,234,567.00"]),
        ("-0.5", ["-0.5", "-\\frac{1}{2}", "-\\dfrac{1}{2}", "\\frac{-1}{2}", "\\dfrac{-1}{2}", "-1/2", "-.5",
                  "-0.50", "-.50", "-50\\%", "-50%"]),
        ("50\\%", ["50\\%", "\\frac{1}{2}", "\\dfrac{1}{2}", "1/2", "0.5", ".5", "0.50", ".50", "50%", "50",
                  "50.0", "50.00"]),
        ("1/3", ["1/3", "\\frac{1}{3}", "\\dfrac{1}{3}"]),
        ("2/4", ["2/4", "\\frac{1}{2}", "\\dfrac{1}{2}", "1/2", "0.5", ".5", "0.50", ".50", "50\\%", "50%"]),
        ("\\frac{a}{b}", ["\\frac{a}{b}", "\\dfrac{a}{b}", "a/b"]),
        ("\\dfrac{\\sqrt{3}}{2}", ["\\dfrac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}}{2}"]),
        ("2^{10}", ["2^{10}", "1024", "1,024", "1024.0", "1,024.0", "1024.00", "1,024.00", "2^10"]),
        ("\\text{Tuesday}", ["\\text{Tuesday}", "Tuesday"]),
        ("(1,2)", ["(1,2)", "(1, 2)", "1,2", "1, 2"]),
        ("[0, 1)", ["[0, 1)", "[0,1)", "0,1", "0, 1", "(0,1)", "(0, 1)"]),
    ],
)  # fmt: skip
def test_written_forms_by_hand(answer, forms):
    assert written(problem(answer)) == forms


@pytest.mark.parametrize(
    "texts",
    [
        ["\\frac{1}{2}", "\\dfrac{1}{2}", "1/2", "0.5", ".5", "0.50", ".50", "50\\%", "50%"],
        ["-\\frac{25}{2}", "\\frac{-25}{2}", "-25/2", "-12.5", "-12.50"],
        ["1,234.5", "1234.5", "1234.50", "1,234.50", "\\frac{2469}{2}", "2469/2"],
        ["12", "12.0", "12.00"],
        ["10,000", "10000", "10,000.00"],
    ],
)
def test_every_text_of_a_number_gives_the_others(texts):
    for text in texts:
        assert set(texts) <= set(written(problem(text))), text
        assert rational(text) == rational(texts[0])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.50", Fraction(25, 2)), ("-1,234", Fraction(-1234)), ("10,\\!000", Fraction(10000)),
        ("1{,}234", Fraction(1234)), ("\\frac12", Fraction(1, 2)), ("-\\tfrac{2}{4}", Fraction(-1, 2)),
        ("150\\%", Fraction(3, 2)), ("$7$", Fraction(7)), ("+3", Fraction(3)), (".5", Fraction(1, 2)),
        ("1/0", None), ("1 1/2", None), ("1,23", None), ("x", None), ("2^{10}", Fraction(1024)),
        ("-2^3", Fraction(-8)), ("2^10", None), ("x^2", None), ("", None), ("9" * 5000, None),
        ("\\frac{\\pi}{2}", None), ("12.", None),
    ],
)  # fmt: skip
def test_a_number_is_read(text, number):
    assert rational(text) == number


@given(st.fractions(max_denominator=10**6).filter(lambda q: abs(q) < 10**12))
def test_all_ways_to_write_a_number_are_read_as_it(number):
    ways = ways_to_write(number)
    assert len(ways) == len(set(ways)) > 0
    assert {rational(text) for text in ways} == {number}


def test_only_forms_that_the_grader_calls_right_are_known():
    assert forms_of("1234", grader="exact").answers == ("1234",)
    numeric = ("1234", "1,234", "1234.0", "1,234.0", "1234.00", "1,234.00")
    assert forms_of("1234", grader="numeric").answers == numeric
    assert forms_of("x", candidates=lambda p: ["y"]) == Forms((), (), ("}", "\n"))


def test_a_form_is_tokens_that_decode_to_it():
    forms = forms_of("\\frac{1}{2}", candidates=lambda p: ["\\frac{1}{2}"])
    assert whole(forms) == ["\\frac{1}{2}"]
    # or of what is before its last characters, which one token may have together with the end
    assert {TOKENIZER.decode(c.token_ids) + c.rest for c in forms.continuations} == {"\\frac{1}{2}"}
    assert {c.rest for c in forms.continuations} == {"\\frac{1}{2}"[k:] for k in range(12)}
    # a word-level tokenizer cannot write this: it would be scored as question marks
    assert forms_of("π").answers == ()


def test_what_would_be_read_as_another_answer_is_no_form():
    assert forms_of("1} or 2").answers == ()
    assert forms_of("1\n2").answers == ()
    assert forms_of("{1}").answers == ("{1}",)


def test_a_form_must_leave_room_for_its_end():
    assert forms_of("a" * 15).answers == ("a" * 15,)
    assert forms_of("a" * 16).answers == ()  # 16 tokens: no branch can say that it ends there


def test_after_words_an_answer_follows_a_space():
    prover = MetaProver(suffix="The answer is", end_suffix="The answer is", max_tokens=16)
    forms = forms_of("12", prover=prover, forced=prover.suffix)
    assert whole(forms) == [" 12", "12"]
    assert ends_of(prover, prover.suffix) == ("\n",)
    assert ends_of(prover, BOX) == ("}", "\n")
    assert ends_of(MetaProver(suffix="", end_suffix="", stop=()), "") == ()


def test_a_tokenizer_that_melts_the_answer_into_the_box_writes_it_alone():
    class Melting(Characters):
        """`{1` is one token where both stand together, as in some vocabularies."""

        def encode(self, text, *, add_special_tokens):
            assert not add_special_tokens  # a BOS would stand in the middle of the prompt
            return [ord(c) for c in text.replace("{1", "\u00ff")]

        def decode(self, token_ids, *, skip_special_tokens):
            return "".join(map(chr, token_ids)).replace("\u00ff", "{1")

    forms = known_forms(Melting(), PROVER, BOX, problem("12"), load_grader("exact"))
    # or after a space, as a model may write that has the merged token in mind
    assert [c.token_ids for c in forms.continuations if not c.rest] == [tuple(map(ord, "12")), tuple(map(ord, " 12"))]


def test_a_completion_wrote_a_form_if_its_probability_is_counted():
    forms = forms_of("12", candidates=lambda p: ["12"])

    def wrote(text, ids=None):
        ids = tuple(TOKENIZER.encode(text, add_special_tokens=False)) if ids is None else ids
        return forms.wrote(ids, decode_with_offsets(TOKENIZER, ids))

    assert wrote("12") and wrote("12}") and wrote("12\n") and wrote("12} or not")
    assert not wrote("12!}") and not wrote("123}") and not wrote("1")
    assert not wrote("12 }")  # read as 12, but by a space of its own: its probability is not in the score
    assert not wrote("", ()) and not forms_of("x", candidates=lambda p: []).wrote(
        (), decode_with_offsets(TOKENIZER, ())
    )


def test_likelihoods_need_the_policys_own_distribution():
    with pytest.raises(HeadwayError, match="top-p 1"):
        forms_of("1", prover=MetaProver(suffix=BOX, end_suffix=BOX, top_p=0.9))
    with pytest.raises(HeadwayError, match="temperature above 0"):
        forms_of("1", prover=MetaProver(suffix=BOX, end_suffix=BOX, temperature=0.0))


def test_all_right_expressions_are_candidates_in_countdown():
    [made] = countdown.problems(1, split="train", seed=3)
    found = load_grader("countdown").candidates(made)
    assert found[0] == made.answer and len(found) == len(set(found)) > 1
    assert all(countdown.is_solution(f, made.answer) for f in found)
    assert load_grader("numeric").candidates(problem("0.5")) == written(problem("0.5"))


def test_expressions_by_hand():
    # 14 = 12 + 2 = 7 * 2: as steps write them, the larger operand first
    assert sorted(countdown.solutions("(4 * 3) + 2")) == ["(4 * 3) + 2", "(4 + 3) * 2"]
    assert sorted(countdown.solutions("(4 * 3) * 2")) == ["(3 * 2) * 4", "(4 * 2) * 3", "(4 * 3) * 2"]
    assert countdown.solutions("1 + 2 + 3 + 4 + 5") == ["1 + 2 + 3 + 4 + 5"]  # too many numbers to enumerate
    assert countdown.solutions("no expression") == ["no expression"]
    assert len(countdown.solutions("(4 * 3) * 2", most=2)) == 2


def test_forms_are_found_once_for_each_problem_and_forced_text():
    asked = []

    class Watched:
        def grade(self, items):
            asked.extend(items)
            return [1.0] * len(items)

    known = KnownAnswers(TOKENIZER, PROVER, Watched())
    first = known.forms(problem("1234"), BOX)
    assert known.forms(problem("1234"), BOX) is first and len(asked) == 6
    assert known.forms(problem("1234"), "So ").answers == first.answers and len(asked) == 12


def test_an_open_box_at_the_end_of_the_forced_text_belongs_to_the_answer():
    assert answer_after("Time is up. \\boxed{", "4} and so on") == "4"
    assert answer_after("The answer is", " 4\n") == "4"
    assert answer_after("\\boxed{", "}") is None
