"""Extending traces, against the scripted engine and the built-in model."""

from pathlib import Path

import numpy as np
import pytest

from headway.engines import hf
from headway.engines.loading import model_path
from headway.engines.scripted import CLOSE, ScriptedEngine
from headway.problems import load_problems
from headway.problems.graders import InPlace, exact, load_grader
from headway.procedures.extend import MARKERS, Extension, extend
from headway.procedures.sample import Sampling, sample
from headway.runs.derived import extend_run
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.tags import ThinkTags
from headway.types import Completion, HeadwayError, Problem

TAGS = ThinkTags("<think>", CLOSE)
GRADER = InPlace(exact)
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(40)]
BY_ID = {p.id: p for p in PROBLEMS}
ANSWER_TOKENS = 40


class Saying(ScriptedEngine):
    """An engine that says the same to everything, and remembers what it was asked."""

    def __init__(self, text, stop="stop"):
        super().__init__([], {})
        self.says = Completion(tuple(map(ord, text)), stop)
        self.asked = []

    def sample(self, prompts, params, *, seeds):
        self.asked.append((["".join(map(chr, p.ids)) for p in prompts], params))
        return [[self.says] for _ in prompts]


def sampled(engine, problems=PROBLEMS, *, budget=1000, traces=1):
    chunks = sample(engine, problems, GRADER, TAGS, Sampling(traces, budget, ANSWER_TOKENS))
    return [t for chunk in chunks for t in chunk]


def extended(engine, traces, tags=TAGS, *, rounds=3, round_tokens=60, seed=0, traces_at_once=64, done=()):
    sampling = Sampling(answer_tokens=ANSWER_TOKENS, seed=seed)
    extension = Extension(rounds, round_tokens, sampling, traces_at_once)
    return [t for chunk in extend(engine, traces, BY_ID, GRADER, tags, extension, done=done) for t in chunk]


def one_trace():
    return sampled(ScriptedEngine(PROBLEMS, {p.id: [0.0, 1.0] for p in PROBLEMS}), PROBLEMS[:1])[0]


def test_each_round_opens_a_paragraph_with_the_next_marker_and_drops_the_closing():
    trace = one_trace()
    engine = Saying(f" hm.\n\n{CLOSE}\n\n\\boxed{{0}}")
    [longer] = extended(engine, [trace], rounds=6)
    markers = [*MARKERS, *MARKERS[:2]]
    assert longer.thought == trace.thought + "".join(f"{m} hm.\n\n" for m in markers)
    assert [p.removeprefix("".join(map(chr, trace.prompt_ids))) for [p], _ in engine.asked] == [
        trace.thought + "".join(f"{m} hm.\n\n" for m in markers[:r]) + markers[r] for r in range(6)
    ]
    assert [params.stop for _, params in engine.asked] == [(CLOSE,)] * 5 + [()]
    assert (longer.closed, longer.answer, longer.reward) == (True, "0", 1.0)
    assert longer.prompt_ids == trace.prompt_ids and longer.index == trace.index


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\n\n\n"])
def test_a_marker_stands_after_a_blank_line_and_no_more(ending):
    [longer] = extended(Saying(f" so{ending}{CLOSE}"), [one_trace()], rounds=2)
    assert f"Wait so\n\n{ending[2:]}But wait so{ending}" in longer.thought


def test_a_round_that_its_length_cut_off_loses_the_paragraph_it_was_in():
    [longer] = extended(Saying(" one.\n\nTwo is not fin", "length"), [one_trace()], rounds=2)
    assert longer.thought.endswith("Wait one.\n\nBut wait one.\n\nTwo is not fin")
    assert (longer.outcome, longer.closed) == ("truncated", False)
    # a single paragraph that is longer than the round has nothing else to lose
    [longer] = extended(Saying(" one", "length"), [one_trace()], rounds=2)
    assert longer.thought.endswith("Wait one\n\nBut wait one")


def test_a_thought_that_the_model_opened_itself_is_open():
    [longer] = extended(
        Saying(" one.\n\nTwo is not fin", "length"), [one_trace()], rounds=2, tags=ThinkTags("", CLOSE)
    )
    assert (longer.outcome, longer.thinking) == ("truncated", len(longer.token_ids))


def test_a_round_takes_no_more_than_its_tokens():
    trace = one_trace()
    for tokens in (9, 60):
        engine = Saying("x" * 500, "length")
        [longer] = extended(engine, [trace], rounds=1, round_tokens=tokens)
        assert longer.thinking == trace.thinking + tokens
        assert engine.asked[0][1].max_tokens == tokens - len("Wait") + ANSWER_TOKENS


def test_a_round_without_room_is_refused():
    with pytest.raises(HeadwayError, match="a round of 3 tokens has no room after its marker; give at least 5"):
        extended(Saying("x"), [one_trace()], round_tokens=3)


def test_a_thought_that_was_cut_off_comes_to_its_scripted_end():
    # eight episodes; the first run stops within the third, three rounds of 250 characters are room for the rest
    values = {p.id: [0.0] * 8 + [1.0] for p in PROBLEMS}
    engine = ScriptedEngine(PROBLEMS, values)
    short = sampled(engine, budget=70)
    assert {t.outcome for t in short} == {"truncated"}
    longer = extended(engine, short, round_tokens=250)
    assert all(t.closed and t.reward == 1.0 for t in longer)
    for before, after in zip(short, longer, strict=True):
        kept = before.thought.rindex("\n\n")
        assert after.token_ids[:kept] == before.token_ids[:kept]
        assert after.text[kept:].startswith("\n\nWait")
        assert after.text.count("step ") == 8


def test_extended_traces_are_right_as_often_as_the_script_says():
    # the end of the script is right with 0.3, whatever was sampled before
    engine = ScriptedEngine(PROBLEMS, {p.id: [0.9, 0.3] for p in PROBLEMS})
    longer = extended(engine, sampled(engine, traces=10))
    share = np.mean([t.reward for t in longer])
    assert share == pytest.approx(0.3, abs=4 * (0.21 / 400) ** 0.5)


def test_a_stopped_extension_goes_on_to_the_same_traces():
    engine = ScriptedEngine(PROBLEMS, {p.id: [0.5, 0.5] for p in PROBLEMS})
    traces = sampled(engine, PROBLEMS[:10])
    whole = extended(engine, traces, traces_at_once=4)
    done = {(t.problem_id, t.index) for t in whole[:6]}
    assert extended(engine, traces, traces_at_once=4, done=done) == whole[6:]
    assert whole != extended(engine, traces, traces_at_once=4, seed=1)


def test_an_extended_run_is_a_run(tmp_path: Path):
    settings = Settings.of(model="scripted", problems="countdown", limit=6, traces=2, branches=2, budget=400)
    with Measurement.create(tmp_path / "a", settings) as measurement:
        measurement.all()
    extend_run(tmp_path / "a", tmp_path / "b", rounds=2, round_tokens=100)
    whole = (tmp_path / "b" / "traces.jsonl").read_bytes()
    with Measurement(Run.load(tmp_path / "b")) as measurement:
        measurement.prove()
        report = measurement.report()
    assert report["budget"] == 400 + 2 * 100 and report["n_traces"] == 12
    assert report["thinking_tokens"]["value"] > 0
    # torn in the middle it goes on to the same; asked otherwise it refuses
    (tmp_path / "b" / "traces.jsonl").write_bytes(whole[: len(whole) // 2])
    extend_run(tmp_path / "a", tmp_path / "b", rounds=2, round_tokens=100)
    assert (tmp_path / "b" / "traces.jsonl").read_bytes() == whole
    with pytest.raises(HeadwayError, match="other settings"):
        extend_run(tmp_path / "a", tmp_path / "b", rounds=3, round_tokens=100)
    with pytest.raises(HeadwayError, match="rounds must be at least 1, got 0"):
        extend_run(tmp_path / "a", tmp_path / "c", rounds=0, round_tokens=100)
    with pytest.raises(HeadwayError, match="has no traces"):
        (tmp_path / "a" / "traces.jsonl").unlink()
        extend_run(tmp_path / "a", tmp_path / "d", rounds=1, round_tokens=100)


def test_a_real_model_goes_on_from_the_tokens_it_sampled():
    engine = hf.load(model_path("builtin:countdown"))
    made = load_problems("countdown", limit=4)
    tags, grader = ThinkTags("<think>", "</think>"), load_grader(made.grader)
    by_id = {p.id: p for p in made.problems}
    traces = [t for chunk in sample(engine, made.problems, grader, tags, Sampling(1, 250, 24)) for t in chunk]
    extension = Extension(rounds=2, round_tokens=60, sampling=Sampling(answer_tokens=24))
    longer = [t for chunk in extend(engine, traces, by_id, grader, tags, extension) for t in chunk]
    assert any(t.closed for t in traces)
    for before, after in zip(traces, longer, strict=True):
        assert after.prompt_ids == before.prompt_ids
        if before.closed:
            assert after.token_ids[: before.thinking] == before.token_ids[: before.thinking]
            assert after.text[len(before.thought) :].lstrip("\n").startswith("Wait")
        assert before.thinking < after.thinking <= before.thinking + 2 * 60
        assert after.text.count("</think>") == after.closed
