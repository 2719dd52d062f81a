"""Completions as models write them: where their thinking ends, and what the others of their file say of it."""

import json
import math
from pathlib import Path

import pytest

from headway.procedures.forced import end_of
from headway.report.numbers.escapes import BranchEnd, escapes, warning
from headway.report.numbers.findings import cautions
from headway.runs.importers.rows import CompletionRow, ImportOptions
from headway.runs.importers.run import import_traces
from headway.runs.importers.traces import divide, survey
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.tags import FORMATS
from headway.text.thoughts import WRITTEN, read_written
from headway.types import Completion

FINAL = FORMATS["harmony"].close
MORE = "<|end|><|start|>assistant<|channel|>"


def row(text: str, *, stop: str | None = None, thinking: str | None = None) -> CompletionRow:
    return CompletionRow("here", None, ({"role": "user", "content": "?"},), "4", text, thinking, stop)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_found_whole_without_its_opening_cut_off_and_after_words(name: str) -> None:
    opens, closes = FORMATS[name].open, FORMATS[name].close
    said = [
        f"{opens}Hm.{closes}4",
        f"Hm.{closes}4",
        f"Well.{opens}Hm.{closes}4",
        f"{opens}Hm.",
        f"<s>{opens}Hm.{closes}",
    ]
    read = [divide(row(text), WRITTEN) for text in said]
    assert [(s.thinking.strip(), s.answer) for s in read] == [("Hm.", "4")] * 3 + [("Hm.", None), ("Hm.", "")]
    assert [found.opened for text in said if (found := read_written(text, WRITTEN))] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>a</think>Hm.\n<think>b</think>\n4", "a</think>Hm.\n<think>b", "\n4"),
        ("<think>a <think>b</think> c</think>4", "a <think>b</think> c", "4"),
        ("<think>a</think>\n</think>\n</think>4", "a", "4"),
        ("<think>\n<think>\n<think>a</think>4", "a", "4"),
        ("<think>\n\n</think>\n\n4", "", "\n\n4"),
        ("<think>a</think>4</think>", "a", "4"),
        ("<think>a</think>b\n<think>c", "a</think>b\n<think>c", None),
        ("<think> a b </think> <answer> 4 </answer>", " a b ", " <answer> 4 </answer>"),
        ("Well <think> a b </think> 4", " a b ", " 4"),
        # spoken of: in quotation marks, or within a sentence
        ("<think>I write `</think>` last.</think>4", "I write `</think>` last.", "4"),
        ("<think>The tag </think> comes later.</think>\n4", "The tag </think> comes later.", "\n4"),
        ("<think>a</think>4. I closed with </think>.", "a", "4. I closed with </think>."),
        ("<think>a</think>Use \"<think>\" and '</think>'.", "a", "Use \"<think>\" and '</think>'."),
        ("<think>a</think>The <think> tag opens.", "a", "The <think> tag opens."),
        ("<think>They ask for <reasoning>b</reasoning>.</think>4", "They ask for <reasoning>b</reasoning>.", "4"),
        ("a</think><reasoning>b</reasoning>4", "a", "<reasoning>b</reasoning>4"),
        ("<thinking>Not </think> yet.</thinking>4", "Not </think> yet.", "4"),
        ('<think>He said "no"</think>"4"', 'He said "no"', '"4"'),
        # gpt-oss: several channels, a final one alone, tools, another wording, and without special tokens
        (f"<|channel|>analysis<|message|>a{MORE}analysis<|message|>b{FINAL}4<|return|>",
         f"a{MORE}analysis<|message|>b", "4"),
        (f"<|channel|>analysis<|message|>a{MORE}commentary<|message|>b{FINAL}4<|end|>",
         f"a{MORE}commentary<|message|>b", "4"),
        ("<|channel|>final<|message|>4<|return|>", "", "4"),
        (f"<|start|>assistant<|channel|>analysis<|message|>a{MORE}final <|constrain|>json<|message|>4", "a", "4"),
        (f"<|channel|>analysis<|message|>a{MORE}commentary<|message|>b<|return|>",
         f"a{MORE}commentary<|message|>b<|return|>", None),
        (f"a{FINAL}4", "a", "4"),
        ("analysisWe add.assistantfinal4", "We add.", "4"),
        ("analysisWe ad", "We ad", None),
        ("<|im_start|>assistant\n<think>a</think>4", "a", "4"),
        ("<|begin_of_thought|>\n\na<|end_of_thought|>\n\n<|begin_of_solution|>\n4\n<|end_of_solution|>", "\na", "\n4"),
        ("Here's my thought process: a Here's my response: 4", " a ", " 4"),
    ],
)  # fmt: skip
def test_thinking_and_answer_are_where_the_model_put_them(text: str, thinking: str, answer: str | None) -> None:
    assert divide(row(text), WRITTEN) == (thinking, answer)


@pytest.mark.parametrize(
    "text",
    ["4", "analysis of it: 4", "Analysis: 4", "<THINK>a</THINK>4", "< think >a< /think >4", "[think]a[/think]4",
     "Put it in `<think>` and `</think>`: 4", "The <think> tag", "I think> 4", "1 < thinking", "<b>4</b>",
     "<|im_start|>assistant\n4<|im_end|>", "final: 4"],
)  # fmt: skip
def test_what_only_looks_like_thinking_is_an_answer(text: str) -> None:
    assert divide(row(text), WRITTEN) == ("", text)


OPENED, CLOSED, PLAIN, CUT = "<think>a</think>4", "a</think>4", "4", "Hm, a"


@pytest.mark.parametrize(
    ("texts", "thought"),
    [
        ([OPENED, PLAIN], False), (["Sure.<think>a</think>4", PLAIN, PLAIN], False), ([CLOSED, PLAIN, PLAIN], False),
        ([CLOSED, CUT], True), ([CLOSED, CLOSED, CUT, CUT], True), ([CLOSED] * 2 + [CUT] * 38, True),
        ([CLOSED] * 2 + [PLAIN] * 42, False), ([OPENED] * 3 + [CLOSED] * 2 + [PLAIN], False), ([PLAIN] * 3, False),
        (["</thinking>4", "a[/THINK]4", CUT], True),
    ],
)  # fmt: skip
def test_one_row_decides_for_no_more_than_one_other(texts: list[str], thought: bool) -> None:
    found = survey(map(row, texts), WRITTEN, "auto")
    assert (found.untagged == "thought") == thought
    disputed = any("without think tags are read as" in note for note in found.notes)
    assert disputed == (any(read and not read.opened for t in texts if (read := read_written(t, WRITTEN))))
    assert survey(map(row, texts), WRITTEN, "answer").untagged == "answer"


def test_what_was_not_understood_is_said() -> None:
    texts = ["<THINK>a</THINK>4", "<THINK>b</THINK>4", "[THINK]a[/THINK]4"]
    said = " ".join(survey(map(row, texts), WRITTEN, "auto").notes)
    assert "2 completions without known think tags have '<THINK>'" in said and "[/THINK] in 1 completions" in said
    alone = survey([row("", thinking="It is 4.", stop="stop")], WRITTEN, "auto")
    assert "they have no answer" in alone.notes[0]


def test_a_mixed_file_is_read_row_by_row(tmp_path: Path) -> None:
    texts = [f"{tags.open}Hm.{tags.close}4" for tags in FORMATS.values()] + ["4", "58</think>"]
    file = tmp_path / "f.jsonl"
    lines = [{"id": "1", "prompt": "2 + 2?", "completion": text, "answer": "4"} for text in texts]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = Settings.of(model="scripted", problems="", grader="exact")
    made = import_traces(file, tmp_path / "r", asked, ImportOptions(author="someone"))
    traces = list(Run.load(tmp_path / "r").traces())
    assert [(t.reward, t.answer) for t in traces] == [(1.0, "4")] * (len(FORMATS) + 1) + [(0.0, None)]
    assert [t.thinking > 0 for t in traces] == [True] * len(FORMATS) + [False, True]
    assert made.notes


# -- forced answers that escape ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stop", "end"),
    [
        ("4}", "stop", "stop"), ("4} and so on and", "length", "stop"), ("\\frac{1}{2", "length", "length"),
        ("Hm, I should", "length", "length"), ("4", "stop", "stop"), ("?} <think>\nHm", "length", "reopened"),
        ("4}<|channel|>analysis<|message|>", "stop", "reopened"), ("4} (in `<think>`)", "stop", "stop"),
        ("4}</think>", "stop", "stop"),
    ],
)  # fmt: skip
def test_how_a_forced_answer_ended(text: str, stop: str, end: str) -> None:
    assert end_of("Time is up.</think>\\boxed{", Completion((1,), stop), text) == end  # type: ignore[arg-type]
    assert end_of("The answer is", Completion((1,), "length"), "4} so") == "length"  # no box ends it


def test_the_rate_of_escapes_by_boundary_and_its_warning() -> None:
    def head(problem: str, boundary: int, end: str | None) -> BranchEnd:
        return BranchEnd(problem, 0, boundary, end)  # type: ignore[arg-type]

    ends = {("p", 0): ["reopened", "length"], ("p", 1): ["stop"] * 4, ("q", 0): ["stop"] * 2, ("q", 1): [None, "stop"]}
    found = escapes(head(problem, j, end) for (problem, j), some in ends.items() for end in some)
    assert (found["value"], found["n"], found["n_problems"]) == (2 / 9, 9, 2)  # one does not say
    assert (found["reopened"], found["length"]) == (1, 1)
    assert [(r["boundary"], r["value"], r["n"]) for r in found["by_boundary"]] == [(0, 0.5, 4), (1, 0.0, 5)]
    assert "1 think again, 1 are cut at their length; most at boundary 0, 0.500" in (warning({"escapes": found}) or "")
    calm = escapes([head("p", 0, "stop")] * 50 + [head("q", 0, "length")])
    assert warning({"escapes": calm}) is None and warning({}) is None
    unknown = escapes([head("p", 0, None)])
    assert math.isnan(unknown["value"]) and unknown["n"] == 0 and warning({"escapes": unknown}) is None


def test_a_run_whose_answers_are_cut_says_so(tmp_path: Path) -> None:
    asked = Settings.of(model="scripted", problems="countdown", limit=4, traces=1, branches=2, answer_tokens=3)
    with Measurement.create(tmp_path / "r", asked) as measurement:
        report = measurement.all()
    cut = [b for b in Run.load(tmp_path / "r").branches() if b.end == "length"]
    assert cut and report["escapes"]["length"] == len(cut) and report["escapes"]["n"] == report["branches"]["branches"]
    assert all(b.sampled == 3 for b in cut)
    assert any("of the forced answers escape" in caution for caution in cautions(report))
    assert "of the forced answers escape" in (tmp_path / "r" / "report.html").read_text()
