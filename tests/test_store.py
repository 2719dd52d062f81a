import json
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.problems import ProblemSet
from headway.runs import store
from headway.runs.store import Run, TraceLine
from headway.types import Attempt, Branch, HeadwayError, MetaProver, Problem, Trace

REWARDS = st.none() | st.sampled_from([0.0, 1.0, 0.1 + 0.2])


def trace(index=0, text="Hm.\n\n2 + 2 = 4 \u202e🧮\x00", reward=1.0):
    return Trace(
        "p/1", index, (1, 2), tuple(range(len(text))), text, tuple(range(len(text))), 3, True, "stop", "4", reward
    )


def branch(number=0, reward=0.0):
    return Branch("p/1", 0, 1, number, "4}", 17, 2, "4", reward)


@st.composite
def records(draw):
    text = draw(st.text(max_size=20))
    made = Trace(
        draw(st.text()), draw(st.integers(0, 9)), (), tuple(range(len(text))), text, tuple(range(len(text))),
        draw(st.integers(0, len(text))), draw(st.booleans()), draw(st.sampled_from(["stop", "length"])),
        draw(st.none() | st.text()), draw(REWARDS),
    )  # fmt: skip
    return draw(
        st.sampled_from(
            [
                made,
                Branch(made.problem_id, made.index, 0, 1, text, 3, 2, made.answer, made.reward),
                Attempt(made.problem_id, made.index, 2, text, 3, made.answer, made.reward),
            ]
        )
    )


@given(st.lists(records(), max_size=6))
def test_records_come_back_as_they_were(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("runs") / "run"
    Run.create(path, {}).append(made)
    run = Run.load(path)
    assert list(run.traces()) == [r for r in made if isinstance(r, Trace)]
    assert list(run.branches()) == [r for r in made if isinstance(r, Branch)]
    assert list(run.attempts()) == [r for r in made if isinstance(r, Attempt)]


def test_what_is_unknown_is_null_on_disk_and_none_in_memory(tmp_path):
    run = Run.create(tmp_path, {})
    run.append([branch(0, math.nan), branch(1, None)])
    assert [json.loads(line)["reward"] for line in (tmp_path / "branches.jsonl").read_text().splitlines()] == [
        None,
        None,
    ]
    assert [b.reward for b in run.branches()] == [None, None]
    run.write_json("report.json", {"value": math.nan, "list": [math.nan, 1.0]})
    assert json.loads((tmp_path / "report.json").read_text()) == {"value": None, "list": [None, 1.0]}


def test_one_record_is_one_line_whatever_its_text(tmp_path):
    run = Run.create(tmp_path, {})
    run.append([trace(i, "a\n\r\u2028\u0085b") for i in range(3)])
    assert (tmp_path / "traces.jsonl").read_bytes().count(b"\n") == 3
    assert len(run.traces()) == 3


def test_records_are_a_sequence_on_disk(tmp_path):
    run = Run.create(tmp_path, {})
    made = [trace(i, "xyz" + "x" * i) for i in range(5)]
    run.append(made)
    there = run.traces()
    run.append([trace(9)])  # after it was looked at
    assert (len(there), len(run.traces())) == (5, 6)
    assert [there[0], there[-1]] == [made[0], made[4]]
    assert list(there[1:3]) == made[1:3] and list(there[::-2]) == made[::-2] == list(reversed(made))[::2]
    assert list(there.take([3, 0, 3])[1:]) == [made[0], made[3]]
    assert made[2] in there and there.index(made[2]) == 2
    assert list(there.read_as(TraceLine).take([4])) == [TraceLine("p/1", 4)]
    with pytest.raises(IndexError):
        there[5]


def test_keys_are_read_without_the_tokens_in_memory(tmp_path):
    run = Run.create(tmp_path, {})
    run.append([trace(i, "y" * 100_000) for i in range(40)])
    tracemalloc.start()
    keys = [(k.problem_id, k.index) for k in run.traces().read_as(TraceLine)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert keys == [("p/1", i) for i in range(40)]
    assert peak < 8e6 < (tmp_path / "traces.jsonl").stat().st_size  # one line and one block at a time


def test_a_torn_last_line_is_dropped_and_the_run_goes_on(tmp_path):
    run = Run.create(tmp_path, {})
    run.append([trace(0), trace(1)])
    file = tmp_path / "traces.jsonl"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for kept in (first, first + 1, first + 60, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert list(Run.load(tmp_path).traces()) == [trace(0)]
        assert file.read_bytes() == whole[:kept]  # readers never write
        Run.load(tmp_path).append([trace(1)])
        assert file.read_bytes() == whole


def test_a_torn_first_line_and_a_long_one_are_dropped(tmp_path):
    run = Run.create(tmp_path, {})
    file = tmp_path / "traces.jsonl"
    file.write_bytes(b'{"problem_id": "')
    assert list(run.traces()) == []
    run.append([trace(0)])
    whole = file.read_bytes()
    file.write_bytes(whole + b"x" * 200_000)  # longer than the blocks the end is searched in
    assert list(run.traces()) == [trace(0)]
    run.append([])
    run.append([trace(1)])
    assert list(run.traces()) == [trace(0), trace(1)] and file.read_bytes().startswith(whole + b"{")


def test_a_run_goes_on_with_the_same_settings(tmp_path):
    settings = {
        "model": "tiny", "budget": 64, "temperature": 0.6, "limit": None, "stop": ("\n", "!"), "spread": math.nan,
        "prover": MetaProver("a", "b"),
    }  # fmt: skip
    made = Run.create(tmp_path / "run", settings)
    made.append([trace()])
    again = Run.create(tmp_path / "run", settings)
    assert list(again.traces()) == [trace()]
    assert again.settings == made.settings == Run.load(tmp_path / "run").settings


def test_other_settings_are_an_error_that_says_which(tmp_path):
    Run.create(tmp_path / "run", {"model": "tiny", "budget": 64, "seed": 0}).append([trace()])
    with pytest.raises(HeadwayError) as error:
        Run.create(tmp_path / "run", {"model": "tiny", "budget": 128, "top_p": 0.9, "seed": 0})
    assert "(budget: there 64, now 128; top_p: there None, now 0.9)" in str(error.value)


def test_what_may_change_is_taken_over_and_nothing_else(tmp_path):
    Run.create(tmp_path / "run", {"budget": 5, "base_url": "a"}).append([trace()])
    with pytest.raises(HeadwayError, match="budget: there 5, now 6"):
        Run.create(tmp_path / "run", {"budget": 6, "base_url": "b"}, may_change=["base_url"])
    assert Run.load(tmp_path / "run").settings == {"budget": 5, "base_url": "a"}
    Run.create(tmp_path / "run", {"budget": 5, "base_url": "b"}, may_change=["base_url"])
    assert Run.load(tmp_path / "run").settings == {"budget": 5, "base_url": "b"}


def test_a_run_without_traces_has_nothing_to_lose_and_takes_other_settings(tmp_path):
    Run.create(tmp_path, {"model": "tinny"}, SUMS._replace(problems=PROBLEMS[:2]))
    run = Run.create(tmp_path, {"model": "tiny"}, SUMS)
    assert Run.load(tmp_path).settings == run.settings == {"model": "tiny"} and run.problems() == PROBLEMS


PROBLEMS = [Problem("1", "2 + 2?", "4"), Problem("2", "½ \u202e of\n3?", "1.5"), Problem("3", "1 + 1?", "2")]
SUMS = ProblemSet("sums", PROBLEMS, "numeric")


def test_a_run_keeps_its_problems_their_name_and_grader(tmp_path):
    Run.create(tmp_path / "run", {}, SUMS)
    run = Run.load(tmp_path / "run")
    assert run.problems() == PROBLEMS and run.problem_set == {"name": "sums", "grader": "numeric"}
    assert Run.create(tmp_path / "run", {}, SUMS).problems() == PROBLEMS


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ([PROBLEMS[0], Problem("2", "½ of 3?", "1.5"), Problem("3", "1 + 1?", "3")], "'2'"),
        ([*PROBLEMS[:2], Problem("3", "1 + 1?", "3")], "'3' (there: '1 + 1?', answer '2'; now: '1 + 1?', answer '3')"),
        (PROBLEMS[:2], "'3' (there: '1 + 1?', answer '2'; now: none)"),
        ([*PROBLEMS, Problem("4", "?", "4")], "'4' (there: none; now: '?', answer '4')"),
        (PROBLEMS[::-1], "'1'"),
    ],
    ids=["prompt", "answer", "fewer", "more", "order"],
)
def test_other_problems_are_an_error_that_names_the_first(tmp_path, now, says):
    Run.create(tmp_path, {}, SUMS).append([trace()])
    before = (tmp_path / "problems.jsonl").read_bytes()
    with pytest.raises(HeadwayError) as error:
        Run.create(tmp_path, {}, SUMS._replace(problems=now))
    assert f"made with other problems; the first that differs is {says}" in str(error.value)
    assert (tmp_path / "problems.jsonl").read_bytes() == before


def test_a_stop_before_the_problems_were_written_is_mended(tmp_path):
    Run.create(tmp_path, {}, SUMS)
    (tmp_path / "problems.jsonl").unlink()
    assert Run.load(tmp_path).problems() == []
    assert Run.create(tmp_path, {}, SUMS).problems() == PROBLEMS


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(HeadwayError, match="exists and is not a run folder"):
        Run.create(tmp_path, {})
    with pytest.raises(HeadwayError, match="exists and is not a run folder"):
        Run.create(tmp_path / "thesis.tex", {})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_run_cannot_be_loaded(tmp_path):
    with pytest.raises(HeadwayError, match="is not a run folder"):
        Run.load(tmp_path)
    for content in ("{", "[]", "null", '{"schema": 1}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(HeadwayError, match=r"run.json cannot be read"):
            Run.load(tmp_path)


def test_a_run_of_another_schema_is_an_error(tmp_path):
    Run.create(tmp_path, {})
    head = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(head | {"schema": store.SCHEMA + 1}))
    with pytest.raises(HeadwayError, match=f"has schema {store.SCHEMA + 1}, this version reads {store.SCHEMA}"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line | {"reward_model": 1},
        lambda line: {k: v for k, v in line.items() if k != "text"},
        lambda line: line | {"reward": "right"},
        lambda line: line | {"stop": "tired"},
        lambda line: line | {"thinking": 10_000},
        lambda line: line | {"offsets": []},
    ],
    ids=["unknown field", "missing field", "wrong type", "wrong choice", "thinking too long", "no offsets"],
)
def test_a_line_that_does_not_fit_is_named_with_its_file(tmp_path, change):
    run = Run.create(tmp_path, {})
    run.append([trace(0), trace(1)])
    file = tmp_path / "traces.jsonl"
    first, second = file.read_text().splitlines()
    file.write_text(first + "\n" + json.dumps(change(json.loads(second))) + "\n")
    with pytest.raises(HeadwayError, match=r"traces\.jsonl, line 2: "):
        list(run.traces())


def test_a_crash_in_writing_leaves_the_old_file(tmp_path):
    run = Run.create(tmp_path, {})
    run.write_json("report.json", {"value": 1})
    with pytest.raises(TypeError):
        run.write_json("report.json", {"value": object()})
    assert json.loads((tmp_path / "report.json").read_text()) == {"value": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["problems.jsonl", "report.json", "run.json"]
