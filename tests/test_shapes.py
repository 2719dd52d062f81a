"""Files as tools write them and as people publish them: read without flags, or one message that names the flags."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.problems import Columns, load_problems
from headway.problems.fields import MAX_TEXT, BadRow, LeftOut, reference_of
from headway.problems.files import MAX_ROW_BYTES
from headway.runs.importers.rows import ImportOptions, stop_of
from headway.runs.importers.run import Imported, import_traces
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.types import HeadwayError, Problem

Row = dict[str, Any]
ASKED, THOUGHT = "2 + 2?", "Hm.\n\nWait, 4."
SAID = f"<think>{THOUGHT}</think>4"
USER = {"role": "user", "content": ASKED}
ASSISTANT = {"role": "assistant", "content": SAID}
ONE = {"prompt": ASKED, "completion": SAID, "answer": "4"}
CHOICE = {"index": 0, "finish_reason": "stop", "message": ASSISTANT | {"content": "4", "reasoning_content": THOUGHT}}


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, *rows: Row) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def imported(path: Path | str, out: Path, **options: Any) -> tuple[Imported, Run]:
    settings = Settings.of(model="scripted", problems="", grader="exact")
    made = import_traces(Path(path), out, settings, ImportOptions(**{"author": "someone"} | options))
    return made, Run.load(out)


def read(path: Path | str, out: Path, **options: Any) -> list[tuple[str, str, str | None, float | None]]:
    """What was asked, thought and answered, and its reward."""
    _, run = imported(path, out, **options)
    asked = {problem.id: problem.prompt for problem in run.problems()}
    return [(asked[t.problem_id], t.thought, t.answer, t.reward) for t in run.traces()]


RIGHT = (ASKED, THOUGHT, "4", 1.0)
LM_EVAL = {
    "doc_id": 0, "doc": {"problem": "another", "answer": "5"}, "target": "#### 4",
    "arguments": {"gen_args_0": {"arg_0": ASKED, "arg_1": {"until": []}}},
    "resps": [[SAID]], "filtered_resps": ["4"], "filter": "strict", "exact_match": 1.0,
}  # fmt: skip
SHAPES: dict[str, Row] = {
    "lm-eval": LM_EVAL,
    "lm-eval, older": LM_EVAL | {"arguments": [[ASKED, {"until": []}]]},
    "lm-eval of a chat server": LM_EVAL | {"arguments": {"gen_args_0": {"arg_0": [json.dumps([USER])]}}},
    "verl's generations": {"input": ASKED, "output": SAID, "gts": "4", "score": 1.0, "step": 1},
    "verl's data set with responses": {
        "data_source": "mine", "prompt": [USER], "reward_model": {"ground_truth": "4", "style": "rule"},
        "extra_info": {"index": 0, "answer": "no", "question": "no"}, "responses": [SAID],
    },
    "verifiers": {
        "example_id": 0, "prompt": [USER], "completion": [ASSISTANT], "answer": "4", "info": {"x": 1}, "reward": 1.0,
        "is_truncated": False, "task": "default",
    },
    "open-r1": {
        "problem": ASKED, "solution": "It is $\\boxed{5}$.", "answer": "4", "uuid": "a", "generations": [SAID],
        "finish_reasons": None, "messages": [USER, {"role": "assistant", "content": "no"}],
    },
    "OpenThoughts": {"problem": ASKED, "deepseek_reasoning": THOUGHT, "deepseek_solution": "4",
                     "ground_truth_solution": "So $\\boxed{4}$."},
    "OpenMathReasoning": {"problem": ASKED, "generated_solution": SAID, "expected_answer": "4"},
    "ShareGPT": {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}], "answer": 4},
    "chat completion": {"prompt": ASKED, "answer": "4", "response": {"choices": [CHOICE]}},
    "batch with its request": {"custom_id": "a", "prompt": ASKED, "answer": "4",
                               "response": {"status_code": 200, "body": {"choices": [CHOICE]}}, "error": None},
    "choices": {"messages": [USER], "answer": "4", "choices": [{"text": SAID, "finish_reason": "stop"}]},
    "vLLM": {"prompt": ASKED, "outputs": [{"text": SAID, "finish_reason": "stop"}], "answer": "4"},
    "Responses API": {"prompt": ASKED, "answer": "4", "response": {"output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": THOUGHT}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4"}]},
    ]}},
    "parts": {"answer": "4", "messages": [USER, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": "4"},
    ]}]},
    "parts without a message": {"prompt": ASKED, "answer": "4", "completion": [
        {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": "4"},
    ]},
    "lighteval, older": {"full_prompt": ASKED, "predictions": [SAID], "gold": ["4"], "metrics": {"em": 1}},
    "capitals": {"ID": "a", "Problem": ASKED, "Response": SAID, "Answer": 4.0},
    "evalchemy's example": {"problem": ASKED, "expected_answer": "4", "reference_solution": "long\nand bare",
                            "model_outputs": [SAID], "model_answers": ["4"]},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_completions_as_tools_write_them_are_read_without_flags(tmp_path: Path, shape: str) -> None:
    row = SHAPES[shape]
    assert read(jsonl(tmp_path / "f.jsonl", row), tmp_path / "a") == [RIGHT]
    (tmp_path / "f.json").write_text(json.dumps([row], indent=1))
    assert read(tmp_path / "f.json", tmp_path / "b") == [RIGHT]
    if shape not in (
        "lm-eval, older",
        "Responses API",
        "parts",
    ):  # mixed lists are no Parquet
        assert read(parquet(tmp_path / "f.parquet", row), tmp_path / "c") == [RIGHT]


def test_forms_of_a_file(tmp_path: Path) -> None:
    cells = io.StringIO(newline="")
    writer = csv.DictWriter(cells, ONE)
    writer.writeheader()
    writer.writerow(ONE)
    texts = {
        "bom.jsonl": "\ufeff" + json.dumps(ONE), "bom.json": "\ufeff[" + json.dumps(ONE) + "]",
        "one.json": json.dumps(ONE, indent=2),
        "lines.json": json.dumps(ONE) + "\n" + json.dumps(ONE), "nan.json": '[{"x": NaN, ' + json.dumps(ONE)[1:] + "]",
        "a.csv": cells.getvalue(), "bom.csv": "\ufeff" + cells.getvalue(), "a.txt": "\n\n" + json.dumps(ONE),
    }  # fmt: skip
    for i, (name, text) in enumerate(texts.items()):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert set(read(tmp_path / name, tmp_path / str(i))) == {RIGHT}, name


def test_rows_inside_an_object(tmp_path: Path) -> None:
    task = {"num_total": 1, "examples": [SHAPES["evalchemy's example"]], "run_stats": [{"accuracy": 1.0}]}
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps({"results": {"AIME24": task}, "config": {"model": "m"}}))
    assert read(one, tmp_path / "a") == [RIGHT]
    two.write_text(json.dumps({"results": {"AIME24": task, "AIME25": task}}, indent=2))
    with pytest.raises(HeadwayError, match=r"several places: .* say which, e.g. .*two.json:results.AIME24.examples"):
        read(two, tmp_path / "b")
    assert read(f"{two}:results.AIME25.examples", tmp_path / "c") == [RIGHT]
    assert load_problems(f"{two}:results.AIME25.examples").problems == [Problem("0", ASKED, "4")]
    with pytest.raises(HeadwayError, match=r"no rows at 'results.MATH'"):
        read(f"{two}:results.MATH", tmp_path / "d")
    numbered = {str(i): {"origin_prompt": ASKED, "prediction": SAID, "gold": "4"} for i in range(2)}
    (tmp_path / "compass.json").write_text(json.dumps(numbered))
    assert read(tmp_path / "compass.json", tmp_path / "e") == [RIGHT, RIGHT]
    results = [{"model_answer": "4", "full_model_response": SAID}]
    row = {"question": ASKED, "expected_answer": "4", "completions": results}
    (tmp_path / "nested.json").write_text(json.dumps({"name": "sums", "results": [row]}))
    assert read(tmp_path / "nested.json", tmp_path / "g") == [RIGHT]


def test_a_record_for_each_filter_of_lm_eval_is_one_completion(tmp_path: Path) -> None:
    rows = [LM_EVAL, LM_EVAL | {"filter": "flexible", "filtered_resps": ["5"]}, LM_EVAL | {"doc_id": 1}]
    assert read(jsonl(tmp_path / "f.jsonl", *rows), tmp_path / "a") == [RIGHT, RIGHT]
    repeats = LM_EVAL | {"resps": [[SAID, "<think>b</think>5"]]}
    assert [r[2] for r in read(jsonl(tmp_path / "f.jsonl", repeats), tmp_path / "b")] == ["4", "5"]
    scored = LM_EVAL | {"resps": [[["-3.2", "False"]], [["-1.1", "True"]]]}
    with pytest.raises(HeadwayError, match="scores given choices has no trace"):
        read(jsonl(tmp_path / "f.jsonl", scored), tmp_path / "c")


def test_what_was_said_before_belongs_to_the_prompt(tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "5"}, {"role": "user", "content": "sure?"}, ASSISTANT]
    [(asked, *_)] = read(
        jsonl(tmp_path / "f.jsonl", {"prompt": [USER], "completion": turns, "answer": "4"}), tmp_path / "a"
    )
    assert asked == f"user: {ASKED}\n\nassistant: 5\n\nuser: sure?"
    system = {"system": "Be short.", **SHAPES["ShareGPT"]}
    [(asked, *_)] = read(jsonl(tmp_path / "f.jsonl", system), tmp_path / "b")
    assert asked == f"system: Be short.\n\nuser: {ASKED}"
    tools = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "4"},
        ASSISTANT,
    ]
    with pytest.raises(HeadwayError, match="role 'tool'"):
        read(jsonl(tmp_path / "f.jsonl", ONE | {"prompt": [USER], "completion": tools}), tmp_path / "c")
    with pytest.raises(HeadwayError, match="calls tools"):
        read(jsonl(tmp_path / "f.jsonl", ONE | {"completion": tools[:1]}), tmp_path / "c")


@pytest.mark.parametrize(
    "given",
    [
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\n2 + 2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<｜begin▁of▁sentence｜>Be short.<｜User｜>2 + 2?<｜Assistant｜><think>\n",
        "<|system|>\nBe short.<|end|>\n<|user|>\n2 + 2?<|end|>\n<|assistant|>\n",
        "system\nBe short.\nuser\n2 + 2?\nassistant\n<think>\n",
        json.dumps([{"role": "system", "content": "Be short."}, USER]),
    ],
)
def test_a_prompt_in_a_chat_template_is_its_messages(tmp_path: Path, given: str) -> None:
    [(asked, *_)] = read(jsonl(tmp_path / "f.jsonl", ONE | {"prompt": given}), tmp_path / "r")
    assert asked == f"system: Be short.\n\nuser: {ASKED}"


def test_a_prompt_in_a_template_that_is_not_read_is_refused_and_a_bare_one_stays(tmp_path: Path) -> None:
    for given in ("[INST] 2 + 2? [/INST]", "<|start|>user<|message|>2 + 2?<|end|><|start|>assistant"):
        with pytest.raises(HeadwayError, match=r"in a chat template that Headway does not read.*--prompt-column"):
            read(jsonl(tmp_path / "f.jsonl", ONE | {"prompt": given}), tmp_path / "r")
    bare = [
        "user\n2",
        "The system\nuser\nasks.",
        "[{",
        "a < b > begin",
        "What does [INST] mean?",
        "[1, 2]",
        "<s> is a tag",
    ]
    rows = [ONE | {"prompt": text} for text in bare]
    assert [asked for asked, *_ in read(jsonl(tmp_path / "f.jsonl", *rows), tmp_path / "r")] == bare


# -- what is asked ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "asks"),
    [
        (ONE | {"ground_truth": "5"}, ["'answer' or 'ground_truth'", "--answer-column"]),
        (ONE | {"ground_truth": "4"}, ["'answer' or 'ground_truth'", "--answer-column"]),
        (ONE | {"reward_model": {"ground_truth": "4"}}, ["'answer' or 'reward_model.ground_truth'"]),
        ({"prompt": ASKED, "completion": SAID, "gold": "4", "target": "5"}, ["'gold' or 'target'"]),
        (ONE | {"response": "5"}, ["'completion' or 'response'", "--completion-column"]),
        (ONE | {"question": "3 + 3?"}, ["'prompt' or 'question'", "--prompt-column"]),
        (ONE | {"problem_id": "a", "doc_id": "b"}, ["'problem_id' or 'doc_id'", "--id-column"]),
        ({"q": ASKED, "a": {"said": SAID}}, ["--prompt-column", "--completion-column", "--answer-column", "a.said"]),
        ({"custom_id": "a", "response": {"body": {"choices": [CHOICE]}}}, ["join it with its", "--prompt-col"]),
        (ONE | {"gold": "5", "output": "6"}, ["'answer' or 'gold'", "'completion' or 'output'"]),  # all at once
    ],
)  # fmt: skip
def test_what_is_unclear_is_asked_all_at_once(tmp_path: Path, row: Row, asks: list[str]) -> None:
    with pytest.raises(HeadwayError) as error:
        read(jsonl(tmp_path / "f.jsonl", row), tmp_path / "r")
    assert [said for said in asks if said not in str(error.value)] == []


@pytest.mark.parametrize(
    "more",
    [
        {"solution": "no"},
        {"question": "2"},
        {"messages": [USER]},
        {"gold": None},
        {"response": SAID},
        {"id": 3},
        {"thinking": True, "system": 3},
    ],
)
def test_what_is_clear_is_not_asked(tmp_path: Path, more: Row) -> None:
    assert read(jsonl(tmp_path / "f.jsonl", ONE | more), tmp_path / "r") == [RIGHT]


def test_a_column_that_only_later_rows_have_is_found(tmp_path: Path) -> None:
    rows = [ONE | {"reasoning": None}, ONE | {"completion": "4", "reasoning": THOUGHT}]
    assert read(jsonl(tmp_path / "f.jsonl", *rows), tmp_path / "r") == [RIGHT, RIGHT]


def test_a_dotted_path_reaches_inside(tmp_path: Path) -> None:
    row = {"x": {"q": [ASKED], "said": {"full": SAID}}, "info": {"gt.s": "4"}, "a.b": "7", "answer": "9"}
    flags = {
        "prompt_column": "x.q.0",
        "completion_column": "x.said.full",
        "answer_column": "info.gt",
        "id_column": "a.b",
    }
    file = jsonl(tmp_path / "f.jsonl", row | {"info": {"gt": "4"}})
    assert read(file, tmp_path / "r", **flags) == [RIGHT]
    assert Run.load(tmp_path / "r").problems() == [Problem("7", ASKED, "4")]
    assert load_problems(str(file), columns=Columns("x.q.-1", "info.gt")).problems == [Problem("0", ASKED, "4")]
    with pytest.raises(HeadwayError, match=r"no column 'x.q.1' \(--prompt-column\)"):
        load_problems(str(file), columns=Columns("x.q.1", "info.gt"))


# -- problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"problem": ASKED, "answer": "4"},
        {"Question": ASKED, "Answer": 4},
        {"question": ASKED, "answer": "2 and 2.\n#### 4"},
        {"question": ASKED, "final_answer": ["4"]},
        {"problem": ASKED, "solution": "Adding gives $\\boxed{4}$."},
        {"problem": ASKED, "solution": "$4$".strip("$")},
        {"problem": ASKED, "solution": "It is\n\\boxed{5}", "answer": "4"},
        {"messages": [USER], "answer": "4"},
        {"messages": [USER, ASSISTANT], "ground_truth": "4"},
        {"prompt": [USER], "reward_model": {"ground_truth": '["4"]', "style": "rule"}, "extra_info": {"answer": "no"}},
        {"instruction": ASKED, "input": "", "target": "4"},
        {"conversations": [{"from": "human", "value": ASKED}], "answer": "4"},
    ],
)
def test_problems_as_people_have_them(tmp_path: Path, row: Row) -> None:
    assert load_problems(str(jsonl(tmp_path / "f.jsonl", row))).problems == [Problem("0", ASKED, "4")]
    (tmp_path / "f.json").write_text(json.dumps({"version": 1, "data": [row]}))
    assert load_problems(str(tmp_path / "f.json")).problems == [Problem("0", ASKED, "4")]
    assert load_problems(str(parquet(tmp_path / "f.parquet", row))).problems == [Problem("0", ASKED, "4")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"problem": ASKED, "answer": "4", "ground_truth": "4"}, "'answer' or 'ground_truth'"),
        ({"Problem": ASKED, "Solution": "First add.\nThen it is four."}, "neither a box nor ####"),
        ({"problem": ASKED, "solution": "We add the two and the two. " * 5}, "neither a box nor ####"),
        (
            {"prompt": [{"role": "system", "content": "Be short."}, USER], "answer": "4"},
            "--prompt-column prompt.1.content",
        ),
        ({"problem": ASKED, "answer": ["4", "5"]}, "several reference answers"),
        ({"problem": ASKED, "answer": "\\boxed{}"}, "the reference answer is missing"),
        ({"problem": ASKED, "answer": "####"}, "the reference answer is missing"),
        ({"problem": ASKED}, "no column for the reference answer"),
    ],
)
def test_problems_that_must_not_be_guessed(tmp_path: Path, row: Row, says: str) -> None:
    with pytest.raises(HeadwayError) as error:
        load_problems(str(jsonl(tmp_path / "f.jsonl", row)))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("#### 1,234,567", "1234567"), ("#### 1, 2", "1, 2"), ("a #### b #### 3", "3"), (["x"], "x"), ('["x"]', "x"),
     ("[1, 2]", "[1, 2]"), ('["x", "y"]', None), (1.0, "1"), (0.5, "0.5"), (float("nan"), None), (True, None)],
)  # fmt: skip
def test_a_reference_is_read_out_of_what_holds_it(text: Any, answer: str | None) -> None:
    if answer is None:
        with pytest.raises(BadRow):
            reference_of(text, "here")
    else:
        assert reference_of(text, "here") == answer


# -- rows that cannot be used -----------------------------------------------------------------------------------------

TORN = '{"prompt": "2 + 2?", "compl'


def bad_rows(path: Path) -> Path:
    bad: list[Row] = [{"answer": ""}, {"answer": None}, {"completion": None}, {"completion": []}, {"prompt": []}]
    many = [ONE, *(ONE | row for row in bad), ONE]
    path.write_text("".join(json.dumps(row) + "\n" for row in many) + "[1]\n" + TORN)
    return path


def test_rows_that_cannot_be_used_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    file = bad_rows(tmp_path / "f.jsonl")
    with pytest.raises(HeadwayError, match=r"line 8: list; expected a JSON object.*--skip-bad"):
        imported(file, tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]
    made, run = imported(file, tmp_path / "r", skip_bad=True)
    assert (made.traces, len(list(run.traces()))) == (2, 2)
    assert made.left_out == LeftOut(
        {"the reference answer is missing": 2, "the completion is missing": 2, "the prompt is empty": 1, "list": 1,
         "not a JSON object in UTF-8": 1}
    )  # fmt: skip
    assert str(made.left_out).startswith("7 rows left out: 2 × the ")


def test_problems_that_cannot_be_used_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = bad_rows(tmp_path / "f.jsonl")
    assert [p.id for p in load_problems(str(file), skip_bad=True).problems] == ["0", "3", "4", "6"]
    assert "5 rows left out: 2 × the reference answer is missing" in caplog.text
    with pytest.raises(HeadwayError, match=r"holds no problem that can be used: 1 rows left out"):
        load_problems(str(jsonl(tmp_path / "g.jsonl", ONE | {"answer": ""})), skip_bad=True)
    with pytest.raises(HeadwayError, match="no completion that can be used: 1 rows left out"):
        imported(tmp_path / "g.jsonl", tmp_path / "r", skip_bad=True)


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    file = bad_rows(tmp_path / "f.jsonl")
    assert imported(file, tmp_path / "r", limit=1)[0].traces == 1
    many = jsonl(tmp_path / "g.jsonl", *[ONE] * 200)
    assert imported(many, tmp_path / "s", limit=130)[0].traces == 130


@pytest.mark.parametrize(
    ("value", "stop"),
    [("stop", "stop"), ("LENGTH", "length"), ({"type": "length", "length": 9}, "length"), (True, "length"),
     (False, None), (["stop"], None), ({"a": []}, None), (3, None), (None, None), ("content_filter", None)],
)  # fmt: skip
def test_why_a_completion_ended(value: Any, stop: str | None) -> None:
    assert stop_of(value) == stop


# -- hostile sizes ----------------------------------------------------------------------------------------------------


def column(values: Any) -> pa.Table:
    return pa.table({"prompt": [ASKED] * len(values), "completion": values, "answer": ["4"] * len(values)})


@pytest.mark.parametrize("to", ["import", "problems"])
def test_a_small_parquet_file_of_a_large_cell_is_one_message(tmp_path: Path, to: str) -> None:
    huge = "x" * (MAX_ROW_BYTES + 10)
    of_one_value = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([huge]))
    tables = {
        "more than 33554432 bytes a row": [column(pa.array([huge])), column(of_one_value)],
        "more than 1048576 values a row": [column(pa.array([[None] * (2**20 + 1)], pa.list_(pa.string())))],
        "longer than 4194304 characters": [column(pa.array(["x" * (MAX_TEXT + 1)]))],
    }
    file = tmp_path / "f.parquet"
    for says, made in tables.items():
        for table in made:
            table = table if to == "import" else table.rename_columns(["answer", "prompt", "id"])
            pq.write_table(table, file, compression="zstd")
            assert file.stat().st_size < 20_000
            with pytest.raises(HeadwayError) as error:
                imported(file, tmp_path / "r") if to == "import" else load_problems(str(file))
            assert "\n" not in str(error.value) and (
                says in str(error.value) or "list of other things" in str(error.value)
            )


def test_a_column_that_is_not_read_may_hold_anything(tmp_path: Path) -> None:
    others = {"when": pa.array([2**62], pa.timestamp("us")), "junk": ["x" * (MAX_ROW_BYTES + 10)]}
    table = pa.table({name: [value] for name, value in ONE.items()} | others)
    pq.write_table(table, tmp_path / "f.parquet", compression="zstd")
    assert read(tmp_path / "f.parquet", tmp_path / "r") == [RIGHT]
    assert load_problems(str(tmp_path / "f.parquet")).problems == [Problem("0", ASKED, "4")]


def test_values_that_python_does_not_have_are_one_message(tmp_path: Path) -> None:
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    no_text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    for answer in (pa.array([2**62], pa.timestamp("us")), no_text):
        pq.write_table(pa.table({"prompt": [ASKED], "answer": answer}), tmp_path / "f.parquet")
        with pytest.raises(HeadwayError, match=r"f.parquet, after row 0: .*; expected a Parquet file"):
            load_problems(str(tmp_path / "f.parquet"))


@pytest.mark.parametrize("form", ["{}\n", "[{}]"])
def test_a_long_completion_is_one_message(tmp_path: Path, form: str) -> None:
    row = json.dumps(ONE | {"completion": "x" * (MAX_TEXT + 1)})
    (tmp_path / "f.json").write_text(form.replace("{}", row))
    with pytest.raises(HeadwayError, match=f"the completion is longer than {MAX_TEXT} characters"):
        imported(tmp_path / "f.json", tmp_path / "r")
    (tmp_path / "f.jsonl").write_text(json.dumps(ONE) + "\n" + "x" * (MAX_ROW_BYTES + 9) + "\n" + json.dumps(ONE))
    made, _ = imported(tmp_path / "f.jsonl", tmp_path / "s", skip_bad=True)
    assert (made.traces, made.left_out) == (2, LeftOut({f"longer than {MAX_ROW_BYTES} bytes": 1}))


@pytest.mark.parametrize("deep", ['{"body":', "[", '{"a":'])
def test_what_is_nested_deep_is_read_or_one_message(tmp_path: Path, deep: str) -> None:
    ends = "".join({"{": "}", "[": "]"}[c] for c in reversed(deep) if c in "{[")
    for depth in (100, 430, 900, 5000):
        value = deep * depth + "1" + ends * depth
        for text in (f'{{"prompt": "?", "answer": "4", "completion": {value}}}', value, f'{{"x": {value}, "y": 1}}'):
            (tmp_path / "f.json").write_text(text)
            with pytest.raises(HeadwayError):
                imported(tmp_path / "f.json", tmp_path / "r")
            with pytest.raises(HeadwayError):
                load_problems(str(tmp_path / "f.json"), columns=Columns("completion", "answer"))


def test_a_long_cell_of_csv_is_read(tmp_path: Path) -> None:
    long = "x " * 100_000  # more than the csv module's own limit of 131,072
    (tmp_path / "f.csv").write_text(f'prompt,completion,answer\n{ASKED},"<think>{long}</think>4",4\n')
    assert read(tmp_path / "f.csv", tmp_path / "r") == [(ASKED, long, "4", 1.0)]
