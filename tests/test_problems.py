import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.problems import load_problems
from headway.tasks import countdown
from headway.types import HeadwayError, Problem

GOOD = '{"id": "1", "prompt": "What is 2 + 2?", "answer": "4"}'


def written(tmp_path, *lines):
    path = tmp_path / "set.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return str(path)


def test_a_file_of_problems(tmp_path):
    lines = [GOOD, "", '{"id": 2, "prompt": "½ of 3?", "answer": 1.5, "level": [3], "solution": "..."}', "  "]
    loaded = load_problems(written(tmp_path, *lines))
    assert loaded.problems == [Problem("1", "What is 2 + 2?", "4"), Problem("2", "½ of 3?", "1.5")]
    assert (loaded.name, loaded.grader) == ("set", "math-verify")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '"id"',
        GOOD + GOOD,
        '{"id": "2", "prompt": "?"}',
        '{"id": "2", "prompt": "?", "answer": null}',
        '{"id": "2", "prompt": ["?"], "answer": "4"}',
        '{"id": true, "prompt": "?", "answer": "4"}',
        '{"id": "2", "prompt": "?", "answer": " "}',
        '{"id": "2", "prompt": "", "answer": "4"}',
        '{"id": "", "prompt": "?", "answer": "4"}',
        '{"id": "2", "prompt": "\udce4", "answer": "4"}',
    ],
)
def test_a_malformed_line_is_named_with_its_file(tmp_path, line):
    path = written(tmp_path, GOOD, "", line)
    with pytest.raises(HeadwayError) as error:
        load_problems(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert "expected a JSON object with 'id', 'prompt' and 'answer'" in str(error.value)


def test_an_id_seen_twice_is_an_error_even_as_text_and_number(tmp_path):
    path = written(tmp_path, GOOD, '{"id": 1, "prompt": "?", "answer": "4"}')
    with pytest.raises(HeadwayError, match=r"set.jsonl, line 2: the id '1' was seen before"):
        load_problems(path)


def test_a_limit_reads_no_further(tmp_path):
    assert len(load_problems(written(tmp_path, GOOD, "broken"), limit=1).problems) == 1


@pytest.mark.parametrize("lines", [[], [""], ["", "  ", ""]])
def test_an_empty_set_is_an_error(tmp_path, lines):
    with pytest.raises(HeadwayError, match="holds no problem"):
        load_problems(written(tmp_path, *lines))


def test_no_such_file_or_set_names_the_sets():
    with pytest.raises(HeadwayError, match="no problem file or named set 'nowhere'; named sets are countdown"):
        load_problems("nowhere")
    with pytest.raises(HeadwayError, match="--limit must be at least 1, got 0"):
        load_problems("countdown", limit=0)


def test_a_directory_is_not_a_problem_file(tmp_path):
    with pytest.raises(HeadwayError, match="no problem file"):
        load_problems(str(tmp_path))


@given(st.dictionaries(st.text(min_size=1).filter(str.strip), st.tuples(*[st.text().filter(str.strip)] * 2)))
def test_problems_survive_a_file(tmp_path_factory, made):
    problems = [Problem(i, prompt, answer) for i, (prompt, answer) in made.items()]
    if problems:
        path = tmp_path_factory.mktemp("sets") / "set.jsonl"
        path.write_text(
            "".join(json.dumps({"id": p.id, "prompt": p.prompt, "answer": p.answer}) + "\n" for p in problems)
        )
        assert load_problems(str(path)).problems == problems


@pytest.mark.parametrize(("name", "split"), [("countdown", "heldout"), ("countdown-train", "train")])
def test_named_sets_are_their_splits(name, split):
    loaded = load_problems(name, limit=5)
    assert loaded.problems == list(countdown.problems(5, split=split))
    assert (loaded.name, loaded.grader) == (name, "countdown")
    assert len(load_problems(name).problems) == 200


def key(problem):
    value, numbers = countdown.evaluate(problem.answer)
    return numbers, value


def test_held_out_and_training_problems_never_share_numbers_and_target():
    held_out = [key(p) for p in countdown.problems(400, split="heldout")]
    train = [key(p) for seed in range(2) for p in countdown.problems(1000, split="train", seed=seed)]
    assert not set(held_out) & set(train)
    assert len(set(held_out)) == 400


def test_a_split_depends_on_the_sorted_numbers_and_the_target_alone():
    rng = random.Random(0)
    for _ in range(400):
        made = countdown.puzzle(rng, rng.choice(["train", "heldout"]))
        splits = {countdown.split_of(order, made.target) for order in itertools.permutations(made.numbers)}
        assert len(splits) == 1
    puzzles = [((a, b, c), t) for a in range(1, 12) for b in range(a) for c in range(b + 1) for t in range(10, 20)]
    held_out = sum(countdown.split_of(numbers, target) == "heldout" for numbers, target in puzzles)
    # a tenth of some 2800; four standard errors are 0.023
    assert held_out / len(puzzles) == pytest.approx(0.1, abs=0.023)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_first_problems_do_not_depend_on_how_many_are_made(split):
    many = list(countdown.problems(300, split=split))
    assert list(countdown.problems(40, split=split)) == many[:40]
    assert list(countdown.problems(40, split=split, seed=1)) != many[:40]
    assert len({p.id for p in many}) == 300


def test_every_reference_answer_solves_its_own_prompt():
    for problem in countdown.problems(300, split="train"):
        value, numbers = countdown.evaluate(problem.answer)
        target, given_numbers = problem.prompt.removeprefix("Reach ").removesuffix(".").split(" with ")
        assert value == int(target)
        assert list(numbers) == sorted(map(int, given_numbers.split(", ")))
        assert countdown.SMALLEST_TARGET <= value <= countdown.LARGEST_RESULT
        assert countdown.is_solution(problem.answer, problem.answer)


def test_steps_by_hand():
    terms = countdown.Puzzle((3, 6), 9, "").terms()
    assert [s.line() for s in countdown.steps(terms)] == ["6 + 3 = 9", "6 - 3 = 3", "6 * 3 = 18", "6 / 3 = 2"]
    left = countdown.take((*terms, countdown.Term(5, "5")), countdown.steps(terms)[1])
    assert left == (countdown.Term(5, "5"), countdown.Term(3, "(6 - 3)"))
    # no zero, no negative, nothing above 99, no fraction, no division by one
    assert [s.line() for s in countdown.steps(countdown.Puzzle((50, 50), 1, "").terms())] == ["50 / 50 = 1"]
    assert [s.line() for s in countdown.steps(countdown.Puzzle((1, 7), 1, "").terms())] == [
        "7 + 1 = 8",
        "7 - 1 = 6",
        "7 * 1 = 7",
    ]
