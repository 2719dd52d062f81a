"""Traces made elsewhere: a file of completions becomes a run that can be proved and reported, or one message."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny
from headway import cli
from headway.engines.scripted import Characters
from headway.problems.fields import reference_of
from headway.runs.importers.rows import CompletionRow, ImportOptions
from headway.runs.importers.run import Imported, import_traces
from headway.runs.importers.traces import SplitCompletion, divide, encode
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.prompts import prompt_ids
from headway.text.tags import ThinkTags, find_think_tags
from headway.types import HeadwayError, Problem

LOGS = Path(__file__).parent / "fixtures" / "imports"  # README.md there tells how they were made
[DETAILS] = LOGS.glob("details/*/*/*.parquet")
THOUGHT = "Hm.\n\nWait\n\n4."
ONE = {"prompt": "2 + 2?", "completion": f"<think>\n{THOUGHT}</think>\\boxed{{4}}", "answer": "4"}
USER = {"role": "user", "content": "2 + 2?"}
HIDDEN = {"type": "reasoning", "reasoning": "gAAAA", "redacted": True}
AUTHOR_TAGS = ImportOptions().author_tags
THINK = AUTHOR_TAGS[0]


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(**changes: Any) -> Settings:
    return Settings.of(**{"model": "scripted", "problems": "", "grader": "exact"} | changes)


def imported(path: Path, out: Path, **more: Any) -> tuple[Imported, Run]:
    options = {"author": "someone"} | {k: more.pop(k) for k in ImportOptions.__struct_fields__ if k in more}
    made = import_traces(path, out, settings(**more), ImportOptions(**options))
    return made, Run.load(out)


def said_by(role: str, *parts: str, **fields: str) -> dict[str, Any]:
    """A message: of one text, or of reasoning and text."""
    if len(parts) == 1:
        return {"role": role, "content": parts[0], **fields}
    reasoning, text = parts
    return {"role": role, "content": [{"type": "reasoning", "reasoning": reasoning}, {"type": "text", "text": text}]}


def row(text: str | None, *, thinking: str | None = None, stop: Any = None) -> CompletionRow:
    return CompletionRow("f, line 1", None, ({"role": "user", "content": "?"},), "4", text, thinking, stop)


# -- where the thinking ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "untagged", "said"),
    [
        (row("<think>\na\n</think>\nb"), "answer", SplitCompletion("a\n", "\nb")),
        (row("  <think>a</think>b</think>c"), "answer", SplitCompletion("a</think>b", "c")),
        (row("a</think>b"), "answer", SplitCompletion("a", "b")),  # the template had opened the thinking
        (row("b"), "answer", SplitCompletion("", "b")),
        (row("b"), "thought", SplitCompletion("b", None)),
        (row("b", stop="stop"), "answer", SplitCompletion("", "b")),
        (row("a", stop="length"), "auto", SplitCompletion("a", None)),
        (row("a", stop="length"), "answer", SplitCompletion("", "a")),
        (row("58", thinking=" "), "auto", SplitCompletion("", "58")),
        (row("", thinking="a</think>b"), "auto", SplitCompletion("a", "b")),
        (row("<think>a</think>b", thinking="<think>a</think>"), "auto", SplitCompletion("a", "b")),
        (row("<think>a"), "answer", SplitCompletion("a", None)),
        (row(""), "answer", SplitCompletion("", "")),
        (row("b", thinking="a"), "answer", SplitCompletion("a", "b")),
        (row("", thinking="a", stop="stop"), "answer", SplitCompletion("a", "")),
        (row("", thinking="a", stop="length"), "answer", SplitCompletion("a", None)),
        (row("", thinking="a"), "answer", SplitCompletion("a", None)),
    ],
)
def test_a_completion_is_divided_at_its_authors_tags(
    given: CompletionRow, untagged: Any, said: SplitCompletion
) -> None:
    assert divide(given, AUTHOR_TAGS, untagged=untagged) == said


def test_the_thinking_ends_where_its_author_ended_it_though_it_names_the_meta_provers_tag() -> None:
    given = row("[T]I must not write </think> yet.[/T]4")
    said = divide(given, [ThinkTags("[T]", "[/T]")])
    trace, answer, faithful = encode(Characters(), given, said, THINK, key=("1", 0))
    assert (trace.thought, answer, faithful) == ("I must not write </think> yet.", "4", True)
    assert trace.text == "I must not write </think> yet.</think>4" and trace.closed


def test_tokens_are_the_meta_provers_and_an_end_of_text_is_none_of_them() -> None:
    tokenizer = tiny.tokenizer()
    tags = find_think_tags(tokenizer, think_open=None, think_close=None)
    given = row("<think>Wait\n\n4</think>\\boxed{4}<end>")
    trace, answer, faithful = encode(tokenizer, given, divide(given, AUTHOR_TAGS), tags, key=("1", 0))
    assert trace.prompt_ids == prompt_ids(tokenizer, "?", tags)
    assert trace.token_ids == tuple(tokenizer.encode("Wait\n\n4</think>\\boxed{4}", add_special_tokens=False))
    assert (trace.thinking, answer, faithful) == (3, "\\boxed{4}", True)


def test_text_that_the_tokenizer_cannot_write_is_noticed() -> None:
    given = row("<think>½</think>4")
    said = divide(given, AUTHOR_TAGS)
    assert not encode(tiny.tokenizer(), given, said, THINK, key=("1", 0)).faithful


def test_a_thought_longer_than_the_budget_is_cut_there() -> None:
    given = row("abcdef</think>4")
    trace, answer, _ = encode(Characters(), given, divide(given, AUTHOR_TAGS), THINK, key=("1", 0), budget=3)
    assert (trace.text, trace.thinking, trace.closed, trace.stop, answer) == ("abc", 3, False, "length", None)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("4", "4"),
        (4, "4"),
        (["4"], "4"),
        ("So 6/8 is \\boxed{\\frac{3}{4}}.", "\\frac{3}{4}"),
        ("He has 2+2=4.\n#### 4", "4"),
    ],
)
def test_a_reference_answer_is_taken_from_its_solution(given: Any, answer: str) -> None:
    assert reference_of(given, "here") == answer


# -- a run of it ------------------------------------------------------------------------------------------------------


def exported(run: Run) -> list[dict[str, Any]]:
    by_id = {p.id: p for p in run.problems()}
    asked = ((by_id[t.problem_id], t) for t in run.traces())
    return [{"id": p.id, "prompt": p.prompt, "completion": t.text, "answer": p.answer} for p, t in asked]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_run_that_went_out_as_text_and_came_back_is_the_same_run(tmp_path: Path, kind: str) -> None:
    asked = Settings.of(model="scripted", problems="countdown", limit=5, traces=3, branches=2, seed=7)
    with Measurement.create(tmp_path / "a", asked) as measurement:
        measurement.sample()
        measurement.prove()
    rows = exported(Run.load(tmp_path / "a"))
    file = tmp_path / f"b.{kind}"
    jsonl(file, *rows) if kind == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), file)
    made, _ = imported(file, tmp_path / "b", grader="countdown", branches=2, seed=7)
    assert (made.problems, made.traces, made.without_thinking, made.not_closed, made.changed) == (5, 15, 0, 0, 0)
    with Measurement(Run.load(tmp_path / "b")) as measurement:
        measurement.prove()
        report = measurement.report()
    a, b = Run.load(tmp_path / "a"), Run.load(tmp_path / "b")
    assert sorted(a.problems(), key=str) == sorted(b.problems(), key=str)
    for kept in (Run.traces, Run.branches):
        assert sorted(kept(a), key=str) == sorted(kept(b), key=str)  # type: ignore[arg-type]
    assert (report["model"], report["meta_prover"]) == ("someone", "scripted")
    page = (tmp_path / "b" / "report.html").read_text()
    assert "<dt>Traces by</dt><dd><bdi>someone</bdi>" in page and "<dt>Meta-prover</dt><dd><bdi>scripted</bdi>" in page


def test_the_command_line_imports_proves_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["headway", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    file, out = str(jsonl(tmp_path / "f.jsonl", {**ONE, "q": "3 + 1?"})), str(tmp_path / "r")
    asked = ["import", file, "--model", "scripted", "--grader", "exact", "--out", out]
    assert run(*asked) == 2 and "--author" in capsys.readouterr().err
    assert run(*asked, "--author", "someone", "--prompt-column", "q", "--branches", "3", "--budget", "5") == 0
    assert "1 traces of 1 problems by someone: 0 without thinking, 1 not closed" in capsys.readouterr().out
    assert run("prove", "--out", out) == 0 and run("report", "--out", out) == 0
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (report["model"], report["problems"], report["budget"]) == ("someone", "f", 5)
    assert (
        Run.load(tmp_path / "r").settings["branches"] == 3
        and Run.load(tmp_path / "r").problems()[0].prompt == "3 + 1?"
    )
    assert run("measure", "--model", "scripted", "--out", out) == 2  # a run of other settings


def test_an_imported_run_has_nothing_to_sample(tmp_path: Path) -> None:
    imported(jsonl(tmp_path / "f.jsonl", ONE), tmp_path / "r")
    with Measurement(Run.load(tmp_path / "r")) as measurement, pytest.raises(HeadwayError, match="nothing to sample"):
        measurement.sample()


def test_completions_without_thinking_or_answer_are_kept_and_counted(tmp_path: Path) -> None:
    texts = ["4", "<think>Hm.\n\n4", "", "<think>4</think>"]
    made, run = imported(jsonl(tmp_path / "f.jsonl", *(ONE | {"completion": t} for t in texts)), tmp_path / "r")
    assert made == Imported("someone", problems=1, traces=4, without_thinking=2, not_closed=1)
    assert [t.outcome for t in run.traces()] == ["correct", "truncated", "no_answer", "no_answer"]
    assert [t.thinking for t in run.traces()] == [0, 6, 0, 1] and run.settings["budget"] == 6
    with Measurement(run) as measurement:
        measurement.prove()
        report = measurement.report()
        assert [len(measurement.segmenter(t)) for t in run.traces()] == [0, 1, 0, 1]
    assert report["n_traces"] == 4 and report["pass_at_1"]["value"] == 0.25


@pytest.mark.parametrize(("other", "closed"), [("a</think>4", False), ("<think>a</think>4", True), ("5", True)])
def test_where_the_template_opens_the_thinking_what_has_no_tags_was_cut_off(
    tmp_path: Path, other: str, closed: bool
) -> None:
    rows = [ONE | {"completion": "Hm. 4"}, ONE | {"completion": other}]
    _, run = imported(jsonl(tmp_path / "f.jsonl", *rows), tmp_path / "r")
    assert [t.closed for t in run.traces()] == [closed, True]


def test_rows_of_one_id_or_else_of_one_prompt_are_traces_of_one_problem(tmp_path: Path) -> None:
    asked = ["2 + 2?", "1 + 3?", "2 + 2?"]
    rows = [ONE | {"prompt": prompt, "completion": str(i)} for i, prompt in enumerate(asked)]
    _, run = imported(jsonl(tmp_path / "f.jsonl", *rows), tmp_path / "a")
    assert [(t.name, t.answer) for t in run.traces()] == [("1/0", "0"), ("2/0", "1"), ("1/1", "2")]
    assert run.problems() == [Problem("1", "2 + 2?", "4"), Problem("2", "1 + 3?", "4")]
    several = ONE | {"id": 7, "completion": ["0", "1"]}
    _, run = imported(jsonl(tmp_path / "f.jsonl", several, ONE | {"id": 7}), tmp_path / "b")
    assert [t.name for t in run.traces()] == ["7/0", "7/1", "7/2"] and run.settings["traces"] == 3


@pytest.mark.parametrize(
    "given",
    [
        {"messages": [USER], "response": ONE["completion"], "reference": 4},
        {"question": "2 + 2?", "reasoning_content": THOUGHT, "generation": "\\boxed{4}", "solution": "#### 4"},
        {"messages": [USER, said_by("assistant", ONE["completion"])], "answer": "4"},
        {
            "problem": "2 + 2?",
            "completion": [said_by("assistant", "\\boxed{4}", reasoning_content=THOUGHT)],
            "answer": "4",
        },
        {"messages": [USER, said_by("assistant", THOUGHT, "\\boxed{4}")], "target": ["4"]},
    ],
)
def test_what_people_call_their_columns_gives_the_same_trace(tmp_path: Path, given: dict[str, Any]) -> None:
    _, expected = imported(jsonl(tmp_path / "one.jsonl", ONE), tmp_path / "a")
    _, run = imported(jsonl(tmp_path / "f.jsonl", given), tmp_path / "b")
    assert list(run.traces()) == list(expected.traces()) and run.problems() == expected.problems()


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "f.jsonl", {"prompt": "no", "q": "2 + 2?", "c": "4", "a": "4", "n": "x", "answer": "no"})
    _, run = imported(file, tmp_path / "r", prompt_column="q", completion_column="c", answer_column="a", id_column="n")
    assert run.problems() == [Problem("x", "2 + 2?", "4")] and [t.answer for t in run.traces()] == ["4"]


def test_a_conversation_goes_through_the_chat_template_whole(tmp_path: Path) -> None:
    turns = [("system", "Be short."), ("user", "1 + 1?"), ("assistant", "2"), ("user", "2 + 2?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    tiny.tokenizer().save_pretrained(tmp_path / "m")
    _, run = imported(jsonl(tmp_path / "f.jsonl", ONE | {"prompt": prompt}), tmp_path / "r", model=str(tmp_path / "m"))
    [trace] = run.traces()
    asked = "<system>Be short.<user>1 + 1?<assistant>2<user>2 + 2?<assistant><think>"
    assert trace.prompt_ids == tuple(tiny.tokenizer().encode(asked, add_special_tokens=False))
    assert run.problems()[0].prompt == "system: Be short.\n\nuser: 1 + 1?\n\nassistant: 2\n\nuser: 2 + 2?"


# -- logs that the tools themselves wrote -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "eval"])
def test_reasoning_in_a_log_of_inspect_becomes_thinking(tmp_path: Path, form: str) -> None:
    made, run = imported(LOGS / f"inspect_sums.{form}", tmp_path / "r", author=None)
    assert made == Imported("mockllm/model", problems=3, traces=3, without_thinking=1, not_closed=1)
    first, cut_off, without = run.traces()
    assert first.text == "2 and 2.\n\nWait\n\nThat is 4.</think>It is \\boxed{4}."
    assert (first.thought, first.outcome) == ("2 and 2.\n\nWait\n\nThat is 4.", "correct")
    assert (cut_off.text, cut_off.outcome) == ("3 and 3.\n\nWait\n\n", "truncated")
    assert (without.text, without.thinking, without.outcome) == ("</think>\\boxed{7}", 0, "wrong")
    assert run.problems()[0] == Problem("2", "system: Be short.\n\nuser: 2 + 2?", "4")
    assert (run.settings["author"], run.problem_set["name"]) == ("mockllm/model", "sums")


@pytest.mark.parametrize(
    ("log", "author", "name"),
    [(LOGS / "inspect_countdown.eval", "hf/countdown", "countdown"), (DETAILS, "countdown", "countdown|0")],
    ids=["inspect", "lighteval"],
)
@pytest.mark.extras
def test_a_models_log_is_imported_proved_and_reported(tmp_path: Path, log: Path, author: str, name: str) -> None:
    asked = dict(author=None, model="builtin:countdown", grader="countdown", branches=2, answer_tokens=16)
    made, run = imported(log, tmp_path / "r", **asked, max_episodes=2)
    assert (made.author, made.problems, made.traces, made.changed) == (author, 2, 4, 0)
    assert [t.name for t in sorted(run.traces(), key=lambda t: t.name)] == ["0/0", "0/1", "1/0", "1/1"]
    with Measurement(run) as measurement:
        tokenizer = measurement.engine.tokenizer
        for trace, problem in ((t, p) for t in run.traces() for p in run.problems() if p.id == t.problem_id):
            assert trace.prompt_ids == prompt_ids(tokenizer, problem.prompt, measurement.tags)
            assert trace.thought.startswith("Okay\n\n") and trace.closed == ("</think>" in trace.text)
            assert tuple(tokenizer.encode(trace.text, add_special_tokens=False)) == trace.token_ids
        measurement.prove()
        report = measurement.report()
    assert (report["model"], report["meta_prover"], report["problems"]) == (author, "builtin:countdown", name)
    if log == DETAILS:
        assert report["pass_at_1"]["value"] == 0.5  # lighteval's own avg@2


def test_a_request_that_failed_is_left_out_and_counted(tmp_path: Path) -> None:
    log = json.loads((LOGS / "inspect_sums.json").read_text())
    log["samples"][0]["output"] = {"model": "mockllm/model", "choices": [], "completion": ""}
    log["samples"][0]["messages"].pop()
    log["results"]["scores"][0]["metrics"]["accuracy"]["value"] = float(
        "nan"
    )  # inspect writes NaN, which JSON has not
    (tmp_path / "f.json").write_text(json.dumps(log))
    made, run = imported(tmp_path / "f.json", tmp_path / "r")
    assert (made.failed, made.traces, made.problems) == (1, 2, 2) and [p.id for p in run.problems()] == ["3", "4"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_log_of_an_older_inspect_is_compressed_another_way(tmp_path: Path, method: int) -> None:
    log = json.loads((LOGS / "inspect_sums.json").read_text())
    with zipfile.ZipFile(tmp_path / "f.eval", "w", method) as archive:
        archive.writestr("_journal/start.json", json.dumps({"eval": log["eval"]}))
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    _, run = imported(tmp_path / "f.eval", tmp_path / "a")
    _, expected = imported(LOGS / "inspect_sums.eval", tmp_path / "b")
    assert list(run.traces()) == list(expected.traces())


def test_a_damaged_log_is_one_message(tmp_path: Path) -> None:
    content = (LOGS / "inspect_countdown.eval").read_bytes()
    (tmp_path / "f.eval").write_bytes(content[:2000] + bytes(9) + content[2009:])
    with pytest.raises(HeadwayError, match=r"samples/0_epoch_1.json: .*; the log is damaged"):
        imported(tmp_path / "f.eval", tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["f.eval"]


def test_a_sample_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.runs.importers.inspect_logs.MAX_SAMPLE_BYTES", 9000)
    with pytest.raises(HeadwayError, match="more than 9000 bytes"):
        imported(LOGS / "inspect_countdown.eval", tmp_path / "r")


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "holds no row"),
        (["", "  "], "holds no row"),
        ([{"q": "?", "answer": "4"}], "no column for the prompt (Headway looks for prompt, question"),
        ([{"prompt": "?", "text": "4", "answer": "4"}], "name it with --completion-column"),
        ([{"prompt": "?", "completion": "4"}], "no column for the reference answer (Headway looks for answer"),
        ([ONE, "{"], "f.jsonl, line 2: "),
        ([ONE, "", "[1]"], "f.jsonl, line 3: list; expected a JSON object"),
        ([ONE, "[" * 100_000], "f.jsonl, line 2: "),
        ([ONE, '{"prompt": "\udcff"}'], "f.jsonl, line 2: not a JSON object in UTF-8: 'utf-8' codec"),
        ([ONE | {"completion": "\ud800"}], "the completion is no valid Unicode"),
        ([ONE, {"prompt": "?", "answer": "4"}], "f.jsonl, line 2: no 'completion'; it has prompt, answer"),
        ([ONE | {"completion": None}], "f.jsonl, line 1: the completion is missing"),
        ([ONE | {"completion": {"a": 1}}], "line 1: the completion is missing"),
        ([ONE | {"completion": []}], "the completion is missing: an empty list"),
        ([ONE | {"completion": [{"role": "assistant", "content": [HIDDEN]}]}], "reasoning was hidden"),
        ([ONE | {"answer": None}], "f.jsonl, line 1: the reference answer is missing"),
        ([ONE | {"answer": " "}], "the reference answer is missing"),
        ([ONE | {"answer": ["4", "5"]}], "several reference answers (2)"),
        ([ONE | {"prompt": " "}], "a problem needs a non-empty 'prompt'"),
        ([ONE | {"prompt": []}], "the prompt is empty"),
        ([ONE | {"prompt": [{"role": "tool", "content": "?"}]}], "has the role 'tool'"),
        ([ONE | {"prompt": [{"role": "user", "content": [{"type": "image"}]}]}], "a part of type 'image'"),
        (
            [ONE | {"id": "a"}, ONE | {"id": "a", "prompt": "3?"}],
            "line 2: another prompt than in an earlier row of its problem",
        ),
        ([ONE, ONE | {"answer": "5"}], "line 2: another reference answer than in an earlier row of its problem"),
        ([ONE | {"id": "a"}, ONE | {"id": None}], "line 2: the id is NoneType"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_left(tmp_path: Path, lines: list[Any], says: str) -> None:
    file = tmp_path / "f.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    with pytest.raises(HeadwayError) as error:
        imported(file, tmp_path / "runs" / "r")
    assert says in str(error.value) and "f.jsonl" in str(error.value)
    assert not [*tmp_path.glob("runs/*")]


def test_a_late_bad_row_leaves_nothing(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "f.jsonl", *[ONE] * 300, ONE | {"answer": None})
    with pytest.raises(HeadwayError, match="line 301"):
        imported(file, tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["f.jsonl"]


def test_an_author_is_needed_and_a_run_is_never_written_over(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "f.jsonl", ONE)
    with pytest.raises(HeadwayError, match="does not say who wrote its completions; name the model with --author"):
        imported(file, tmp_path / "r", author=None)
    imported(file, tmp_path / "r")
    before = (tmp_path / "r" / "traces.jsonl").read_bytes()
    with pytest.raises(HeadwayError, match="exists and is not empty"):
        imported(file, tmp_path / "r")
    assert (tmp_path / "r" / "traces.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f.parquet", b"", "expected a Parquet file"),
        ("f.parquet", b"PAR1 and so on", "expected a Parquet file"),
        ("f.eval", b"", "expected a whole .eval log of inspect, which is a zip"),
        ("f.eval", (LOGS / "inspect_sums.eval").read_bytes()[:9000], "expected a whole .eval log of inspect"),
        (
            "f.eval",
            (LOGS / "inspect_sums.eval").read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03"),
            "expected a whole",
        ),
        ("f.json", b"", "holds no row"),
        ("f.json", b'[{"prompt": "?"}]', "no column for the completion"),
        ("f.json", b'{"eval": {"model": "m", "task": "t"}}', "holds no sample"),
        ("nowhere", None, "no file"),
    ],
)
def test_a_file_that_is_not_what_it_is_called(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(HeadwayError) as error:
        imported(tmp_path / name, tmp_path / "r")
    assert says in str(error.value) and name in str(error.value)
