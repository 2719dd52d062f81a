import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway import store
from headway.store import Run
from headway.types import Branch, HeadwayError, MetaProver, Trace

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
        st.sampled_from([made, Branch(made.problem_id, made.index, 0, 1, text, 3, 2, made.answer, made.reward)])
    )


@given(st.lists(records(), max_size=6))
def test_records_come_back_as_they_were(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("runs") / "run"
    Run.create(path, {}).append(made)
    run = Run.load(path)
    assert run.traces() == [r for r in made if isinstance(r, Trace)]
    assert run.branches() == [r for r in made if isinstance(r, Branch)]


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


def test_a_torn_last_line_is_dropped_and_the_run_goes_on(tmp_path):
    run = Run.create(tmp_path, {})
    run.append([trace(0), trace(1)])
    file = tmp_path / "traces.jsonl"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for kept in (first, first + 1, first + 60, len(whole) - 1):
        file.write_bytes(whole[:kept])
        assert Run.load(tmp_path).traces() == [trace(0)]
        file.write_bytes(whole[:kept])
        Run.load(tmp_path).append([trace(1)])
        assert file.read_bytes() == whole


def test_a_torn_first_line_and_a_long_one_are_dropped(tmp_path):
    run = Run.create(tmp_path, {})
    file = tmp_path / "traces.jsonl"
    file.write_bytes(b'{"problem_id": "')
    assert run.traces() == []
    run.append([trace(0)])
    whole = file.read_bytes()
    file.write_bytes(whole + b"x" * 200_000)  # longer than the blocks the end is searched in
    assert run.traces() == [trace(0)]
    assert file.read_bytes() == whole


def test_a_run_goes_on_with_the_same_settings(tmp_path):
    settings = {
        "model": "tiny", "budget": 64, "temperature": 0.6, "limit": None, "stop": ("\n", "!"), "spread": math.nan,
        "prover": MetaProver("a", "b"),
    }  # fmt: skip
    made = Run.create(tmp_path / "run", settings)
    made.append([trace()])
    again = Run.create(tmp_path / "run", settings)
    assert again.traces() == [trace()]
    assert again.settings == made.settings == Run.load(tmp_path / "run").settings


def test_other_settings_are_an_error_that_says_which(tmp_path):
    Run.create(tmp_path / "run", {"model": "tiny", "budget": 64, "seed": 0})
    with pytest.raises(HeadwayError) as error:
        Run.create(tmp_path / "run", {"model": "tiny", "budget": 128, "top_p": 0.9, "seed": 0})
    assert "(budget: there 64, now 128; top_p: there None, now 0.9)" in str(error.value)


def test_what_may_change_is_taken_over_and_nothing_else(tmp_path):
    Run.create(tmp_path / "run", {"budget": 5, "base_url": "a"})
    with pytest.raises(HeadwayError, match="budget: there 5, now 6"):
        Run.create(tmp_path / "run", {"budget": 6, "base_url": "b"}, may_change=["base_url"])
    assert Run.load(tmp_path / "run").settings == {"budget": 5, "base_url": "a"}
    Run.create(tmp_path / "run", {"budget": 5, "base_url": "b"}, may_change=["base_url"])
    assert Run.load(tmp_path / "run").settings == {"budget": 5, "base_url": "b"}


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
        run.traces()


def test_a_crash_in_writing_leaves_the_old_file(tmp_path):
    run = Run.create(tmp_path, {})
    run.write_json("report.json", {"value": 1})
    with pytest.raises(TypeError):
        run.write_json("report.json", {"value": object()})
    assert json.loads((tmp_path / "report.json").read_text()) == {"value": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "run.json"]
