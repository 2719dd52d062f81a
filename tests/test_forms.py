import pytest

import tiny
from headway.engines.scripted import Characters
from headway.problems import countdown
from headway.problems.graders import load_grader
from headway.text.answers import answer_after
from headway.text.known_answers import Forms, KnownAnswers, ends_of, known_forms, written
from headway.text.offsets import decode_with_offsets
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import HeadwayError, MetaProver, Problem

TOKENIZER = tiny.tokenizer()
PROVER = meta_prover(ThinkTags("<think>", "</think>"), branches=4, max_tokens=16)
BOX = PROVER.suffix


def problem(answer):
    return Problem("p", "?", answer)


def forms_of(answer, *, grader="exact", prover=PROVER, forced=BOX, candidates=written):
    judge = load_grader(grader)
    judge.candidates = candidates
    return known_forms(TOKENIZER, prover, forced, problem(answer), judge)


@pytest.mark.parametrize(
    ("answer", "forms"),
    [
        ("x + 1", ["x + 1"]),
        ("12", ["12"]),
        ("1234", ["1234", "1,234"]),
        ("1,234,567", ["1,234,567", "1234567"]),
        ("-70000", ["-70000", "-70,000"]),
        ("\\frac{1}{2}", ["\\frac{1}{2}", "\\dfrac{1}{2}", "1/2"]),
        ("1.5", ["1.5"]),
    ],
)
def test_written_forms_by_hand(answer, forms):
    assert written(problem(answer)) == forms


def test_only_forms_that_the_grader_calls_right_are_known():
    assert forms_of("1234", grader="exact").answers == ("1234",)
    assert forms_of("1234", grader="numeric").answers == ("1234", "1,234")
    assert forms_of("x", candidates=lambda p: ["y"]) == Forms((), ())


def test_a_form_is_tokens_that_decode_to_it():
    forms = forms_of("\\frac{1}{2}", candidates=lambda p: ["\\frac{1}{2}"])
    assert [TOKENIZER.decode(ids) for ids in forms.token_ids] == ["\\frac{1}{2}"]
    # a word-level tokenizer cannot write this: it would be scored as question marks
    assert forms_of("π") == Forms((), ())


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
    assert [TOKENIZER.decode(ids) for ids in forms.token_ids] == [" 12", "12"]
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
    assert forms.token_ids == ((ord("1"), ord("2")),)


def test_a_completion_wrote_a_form_if_it_begins_with_its_tokens_and_ends_there():
    forms = Forms(((5, 6), (7,)), ("ab", "c"))
    assert forms.wrote((5, 6, 9), "ab") and forms.wrote((7,), "c")
    assert not forms.wrote((5, 6, 9), "ab!")  # it went on
    assert not forms.wrote((8, 9), "ab")  # other tokens with the same text: their probability is not in the score


def test_likelihoods_need_the_policys_own_distribution():
    with pytest.raises(HeadwayError, match="top-p 1"):
        forms_of("1", prover=MetaProver(suffix=BOX, end_suffix=BOX, top_p=0.9))


def test_all_right_expressions_are_candidates_in_countdown():
    [made] = countdown.problems(1, split="train", seed=3)
    found = load_grader("countdown").candidates(made)
    assert found[0] == made.answer and len(found) == len(set(found)) > 1
    assert all(countdown.is_solution(f, made.answer) for f in found)
    assert load_grader("numeric").candidates(problem("1234")) == ["1234", "1,234"]


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
    assert known.forms(problem("1234"), BOX) is first and len(asked) == 2
    assert known.forms(problem("1234"), "So ").answers == first.answers and len(asked) == 4


def test_an_open_box_at_the_end_of_the_forced_text_belongs_to_the_answer():
    assert answer_after("Time is up. \\boxed{", "4} and so on") == "4"
    assert answer_after("The answer is", " 4\n") == "4"
    assert answer_after("\\boxed{", "}") is None
