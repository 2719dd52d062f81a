"""Named sets of Countdown problems, and what thoughts about them say."""

import math
import random

import pytest

from headway.problems import countdown, countdown_text, load_problems
from headway.problems.countdown_sets import HARD_LUCK, SETS, TESTED, luck
from headway.problems.countdown_text import claims_success, written
from headway.types import HeadwayError, Problem


def key(problem: Problem) -> tuple[tuple[int, ...], int]:
    value, numbers = countdown.evaluate(problem.answer)
    return numbers, int(value)


def keys(name: str, limit: int) -> list[tuple[tuple[int, ...], int]]:
    return [key(p) for p in load_problems(name, limit=limit).problems]


def test_no_problem_is_in_two_roles_in_whatever_order_its_numbers_come() -> None:
    train = {*keys("countdown-train", 2000), *keys("countdown-hard-train", 2000)}
    tests = {*keys("countdown", TESTED), *keys("countdown-hard", TESTED)}
    validation = {*keys("countdown-validation", 500), *keys("countdown-hard-validation", 500)}
    assert not train & tests and not train & validation and not tests & validation
    assert len(train) > 3000 and len(tests) > 1000 and len(validation) > 800


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_different_solvable_problems_the_first_ones_whatever_the_limit(name: str) -> None:
    problems = load_problems(name, limit=300).problems
    assert load_problems(name, limit=40).problems == problems[:40]
    assert len({key(p) for p in problems}) == len({p.id for p in problems}) == 300
    for problem in problems:
        numbers, target = key(problem)
        asked = problem.prompt.removeprefix("Reach ").rstrip(".").replace(" with ", ", ").split(", ")
        assert (int(asked[0]), sorted(map(int, asked[1:]))) == (target, sorted(numbers))
        assert (luck(numbers, target) < HARD_LUCK) or not SETS[name].hard


def test_the_sets_there_were_are_as_they_were() -> None:
    for name, split in (("countdown", "heldout"), ("countdown-train", "train")):
        assert load_problems(name, limit=700).problems == list(countdown.problems(700, split=split))


def test_a_set_that_has_fewer_problems_says_so() -> None:
    with pytest.raises(HeadwayError, match=r"countdown-hard-validation has \d+ problems, got a limit of 100000"):
        load_problems("countdown-hard-validation", limit=100_000)


def test_luck_by_hand() -> None:
    assert luck((3, 6), 9) == luck((6, 3), 18) == 0.25  # 6 + 3, 6 - 3, 6 * 3, 6 / 3
    assert luck((3, 6), 10) == 0
    # 1 and 1: 1 + 1, 1 * 1 (1 - 1 is 0, a division by 1 is none); then 2 and 5: + - *, or 1 and 5: + - *
    assert luck((1, 1), 2) == 0.5


def test_luck_is_the_frequency_of_random_steps() -> None:
    rng, numbers, hits = random.Random(0), (2, 5, 7), 0
    for _ in range(4000):
        terms = countdown.Puzzle(numbers, 0, "").terms()
        while len(terms) > 1 and (choices := countdown.steps(terms)):
            terms = countdown.take(terms, rng.choice(choices))
        hits += len(terms) == 1 and terms[0].value == 24
    assert hits / 4000 == pytest.approx(luck(numbers, 24), abs=0.01)
    assert luck(numbers, 24) > 0.01


def test_what_a_thought_has_written() -> None:
    thought = (
        "Okay\n\n3 + 4 = 7\n\n7 * 2 = 15\n\n8 / 2 = 4\n\n9 / 2 = 4\n\n24? No.\n\nWait\n\n2 - 5 = 3\n\n24? Yes.\n\n"
    )
    assert written(thought) == (2, 5)
    assert written("") == written("3 + 4 is 7") == (0, 0)
    assert claims_success(thought) and not claims_success(thought + "Wait\n\n") and not claims_success("24? No.\n\n")


def test_a_number_without_end_is_no_step() -> None:
    assert written("1 + 1 = " + "2" * 10_000) == (0, 0)


def test_competence_by_hand() -> None:
    thoughts = ["2 + 3 = 5\n\n5? Yes.", "2 * 3 = 7\n\n7? Yes.", "4 - 1 = 3\n\n9? No.", "8 / 2 = 4\n\n4? Yes."]
    found = countdown_text.competence(thoughts, [1.0, 0.0, 0.0, None])
    assert found == {"right_steps": 3 / 4, "true_claims": 1 / 2}
    assert all(math.isnan(v) for v in countdown_text.competence(["?"], [0.0]).values())
