import csv
import io
import itertools
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.problems import Columns, countdown, load_problems
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
        '{"id": "2", "prompt": ["?", "!"], "answer": "4"}',
        '{"id": true, "prompt": "?", "answer": "4"}',
        '{"id": "2", "prompt": "?", "answer": " "}',
        '{"id": "2", "prompt": "", "answer": "4"}',
        '{"id": "", "prompt": "?", "answer": "4"}',
        '{"id": "2", "prompt": "\udce4", "answer": "4"}',
        '{"id": "2", "prompt": "?", "answer": true}',
        '{"id": "2", "prompt": "?", "answer": 1e999}',
        "[" * 100_000,
    ],
)
def test_a_malformed_line_is_named_with_its_file(tmp_path, line):
    path = written(tmp_path, GOOD, "", line)
    with pytest.raises(HeadwayError) as error:
        load_problems(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    said = (
        "JSON object",
        "expected text",
        "is missing",
        "no 'answer'",
        "non-empty",
        "other things",
        "Unicode",
    )
    assert any(what in str(error.value) for what in said)


def test_an_id_seen_twice_is_an_error_even_as_text_and_number(tmp_path):
    path = written(tmp_path, GOOD, '{"id": 1, "prompt": "?", "answer": "4"}')
    with pytest.raises(HeadwayError, match=r"set.jsonl, line 2: the id was seen before \('1'\)"):
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


def in_csv(rows):
    columns = list(rows[0])
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def in_parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def in_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FORMATS = [(".jsonl", in_jsonl), (".csv", in_csv), (".parquet", in_parquet)]
# the reader of CSV ends a line at a bare carriage return; other texts survive
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1).filter(
    lambda text: text.strip() and "####" not in text and "boxed" not in text  # these mark a reference in a solution
)


@given(st.dictionaries(TEXT, st.tuples(TEXT, TEXT), min_size=1), st.sampled_from(FORMATS))
def test_problems_survive_a_file(tmp_path_factory, made, form):
    suffix, written_as = form
    problems = [Problem(i, prompt, answer.strip()) for i, (prompt, answer) in made.items()]
    path = tmp_path_factory.mktemp("sets") / f"set{suffix}"
    path.write_bytes(written_as([{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in problems]))
    assert load_problems(str(path)).problems == problems


@pytest.mark.parametrize(("suffix", "written_as"), FORMATS)
def test_other_columns_are_named_and_rows_are_numbered(tmp_path, suffix, written_as):
    path = tmp_path / f"set{suffix}"
    path.write_bytes(written_as([{"question": "2 + 2?", "n": 7, "out": 4}, {"question": 'a, "b"?', "n": 8, "out": 5}]))
    columns = Columns("question", "out")
    made = load_problems(str(path), columns=columns).problems
    assert made == [Problem("0", "2 + 2?", "4"), Problem("1", 'a, "b"?', "5")]
    assert [p.id for p in load_problems(str(path), columns=columns._replace(id="n")).problems] == ["7", "8"]
    assert load_problems(str(path), columns=columns, limit=1).problems == made[:1]
    with pytest.raises(HeadwayError) as error:
        load_problems(str(path))
    for said in (str(path), "no column for the reference answer", "question, n, out", "--answer-column"):
        assert said in str(error.value)


def test_what_a_csv_cell_holds_stays_as_it_is(tmp_path):
    path = tmp_path / "aime.csv"
    path.write_bytes("\ufeffid,prompt,answer\n1,?,025\n2,½,1e3\n".encode())
    assert [p.answer for p in load_problems(str(path)).problems] == ["025", "1e3"]


def test_a_whole_number_has_no_point_whatever_the_type_of_its_column(tmp_path):
    path = tmp_path / "set.parquet"
    path.write_bytes(in_parquet([{"prompt": "?", "answer": a} for a in (142.0, 0.5, 1e300)]))
    assert [p.answer for p in load_problems(str(path)).problems] == ["142", "0.5", "1e+300"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("set.csv", b"prompt,answer\n1,2\n1,2,3\n", "line 3: another number of cells: expected 2"),
        ("set.csv", b"prompt,answer\n1\n", "line 2: another number of cells: expected 2"),
        ("set.csv", b'prompt,answer\n1,"2\n', "expected CSV in UTF-8"),
        ("set.csv", b"prompt,answer\n\xe4,2\n", "expected CSV in UTF-8"),
        ("set.csv", b"", "holds no problem"),
        ("set.parquet", b"", "expected a Parquet file"),
        ("set.parquet", b"PAR1 no PAR1", "expected a Parquet file"),
        ("set.parquet", in_parquet([{"prompt": "?", "answer": None}]), "row 1: the reference answer is missing"),
        (
            "set.parquet",
            in_parquet([{"prompt": "?", "answer": float("nan")}]),
            "row 1: the reference answer is float",
        ),
        (
            "set.parquet",
            in_parquet([{"prompt": {"role": "user"}, "answer": "4"}]),
            "row 1: a problem needs a non-empty",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HeadwayError) as error:
        load_problems(str(tmp_path / name))
    assert says in str(error.value) and name in str(error.value)


def test_a_template_asks_and_has_a_place_for_the_problem(tmp_path):
    line = '{"id": "1", "prompt": "What is $\\\\frac{4}{2}$, {x}?", "answer": "2"}'
    made = load_problems(written(tmp_path, line), template="Solve {problem} in \\boxed{}.").problems
    assert made[0].prompt == "Solve What is $\\frac{4}{2}$, {x}? in \\boxed{}."
    with pytest.raises(HeadwayError, match=r"--prompt-template needs \{problem\}"):
        load_problems("countdown", template="Solve it.")


def test_sets_that_say_their_columns_take_no_others():
    for spec in ("countdown", "aime24", "gym:countdown"):
        with pytest.raises(HeadwayError, match="--prompt-column and the like are for files and hub: sets"):
            load_problems(spec, columns=Columns("question"))


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
