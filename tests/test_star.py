"""Selection for STaR and MRT as STaR: the rules by hand, and against the scripted engine with known probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.segment import by_markers, to_tokens
from headway.core.star import RULES, Choice, Sampled, best_prefix, best_trace, outcome, solution
from headway.engines.scripted import CLOSE, ScriptedEngine
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.procedures.select import (
    Candidate,
    choose,
    cut_text,
    fresh_rounds,
    selection_metrics,
    solutions,
    whole_text,
    without_solution,
)
from headway.text.answers import extract_answer
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Branch, Outcome, Problem

TAGS = ThinkTags("<think>", CLOSE)
GRADER = InPlace(exact)
END, MOST = 0, 16
VALUE = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1))


def traced(of: Outcome, values: list[float], *, finished: bool = True) -> Sampled:
    return Sampled(of, finished, np.arange(1.0, len(values) + 1) * 10, np.array(values, dtype=float))


class Play:
    """Traces of scripted problems with their values, and everything that a selection does with them."""

    def __init__(self, scripts: list[list[float]], *, kind: str = "likelihood", traces: int = 4, branches: int = 4):
        self.problems = {f"p{i}": Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(len(scripts))}
        names = list(self.problems)
        self.engine = ScriptedEngine(list(self.problems.values()), dict(zip(names, scripts, strict=True)))
        self.prover = Prover(
            self.engine, meta_prover(TAGS, branches=branches, max_tokens=MOST), self.problems, grader=GRADER,
            segmenter=lambda t: to_tokens(by_markers(t.thought), t.offsets[: t.thinking]),
        )  # fmt: skip
        sampling = Sampling(traces, 1000, answer_tokens=40, seed=3)
        chunks = sample(self.engine, list(self.problems.values()), GRADER, TAGS, sampling)
        self.traces = [t for chunk in chunks for t in chunk]
        curves, _, _ = self.prover.curves(kind, self.traces, seed=3)
        self.candidates = [
            Candidate(t.key, t.outcome, t.stop == "stop", len(t.token_ids), curve)
            for t, curve in zip(self.traces, curves, strict=True)
        ]

    def select(self, rule):
        choices = choose(RULES[rule], self.candidates, budget=1040)
        rounds = fresh_rounds(self.candidates, choices)
        cut = [t for t in self.traces if t.key in rounds]
        answers = [b for chunk in self.prover.draw(cut, seed=3, rounds=rounds) for b in chunk]
        solved = solutions(answers, max_tokens=MOST)
        choices = without_solution(self.candidates, choices, solved)
        texts = [
            whole_text(t, END) if c.boundary is None else cut_text(t, c.boundary, solved[t.key], self.prover, END)
            for t, c in zip(self.traces, choices, strict=True)
            if c.left_out is None
        ]
        return choices, texts, answers


# -- the rules --------------------------------------------------------------------------------------------------------


def test_outcome_keeps_exactly_the_correct_traces() -> None:
    group = [traced(o, [0.5]) for o in ("wrong", "correct", "no_answer", "undecided", "truncated", "correct")]
    reasons = [c.left_out for c in outcome(group, 100)]
    assert reasons == ["wrong", None, "no_answer", "undecided", "truncated", None]
    assert outcome([traced("correct", [1.0], finished=False)], 100) == [Choice("not_finished")]


def test_the_best_prefix_by_hand() -> None:
    nan = math.nan
    cases = {
        (0.1, 0.4, 0.9, 0.7): Choice(boundary=2),
        (0.1, 0.9, 0.4, 0.9): Choice(boundary=1),  # the shortest of equals
        (0.5, 0.2, 0.5): Choice("no_progress"),
        (0.5,): Choice("no_progress"),  # no thinking at all
        (0.1, nan, 0.6): Choice(boundary=2),
        (nan, 0.2, 0.6): Choice("no_value"),  # progress from an unknown value is unknown
        (0.1, nan, nan): Choice("no_progress"),
    }
    for values, made in cases.items():
        assert best_prefix([traced("wrong", list(values))], 100) == [made], values


@given(st.lists(VALUE, min_size=1, max_size=8))
def test_no_prefix_has_more_progress_than_the_best_and_no_shorter_one_as_much(values: list[float]) -> None:
    [choice] = best_prefix([traced("correct", values)], 100)
    if choice.boundary is None:
        assert math.isnan(values[0]) or not any(v > values[0] for v in values)
        return
    best = values[choice.boundary]
    assert best > values[0]
    assert all(math.isnan(v) or v <= best for v in values)
    assert all(math.isnan(v) or v < best for v in values[: choice.boundary])


def test_the_best_trace_progresses_early() -> None:
    late, early, wrong = [0.0, 0.0, 0.0, 1.0], [0.0, 0.9, 0.9, 0.9], [0.9, 1.0, 1.0, 1.0]
    # up to 40 tokens late has the regret 1, early 1 - 0.9 * 2 / 4 = 0.55; up to 400 tokens 0.90 and 1 - 0.9 * 38 / 40
    group = [traced("correct", late), traced("correct", early), traced("wrong", wrong)]
    assert best_trace(group, 40) == [Choice("another_is_better"), Choice(), Choice("wrong")]
    # cumulative progress alone would take the late one; with budget enough its higher end counts for more
    assert best_trace(group, 4000) == [Choice(), Choice("another_is_better"), Choice("wrong")]
    assert best_trace(group[:1] * 2, 40) == [Choice(), Choice("another_is_better")]  # the first of equals


def test_the_best_trace_without_values_is_none() -> None:
    nan = math.nan
    known, unknown = traced("correct", [0.1, 0.2]), traced("correct", [nan, nan])
    assert best_trace([unknown, known], 40) == [Choice("no_value"), Choice()]
    assert best_trace([unknown, traced("wrong", [0.5, 0.5])], 40) == [Choice("no_value"), Choice("wrong")]
    assert best_trace([traced("wrong", [0.5])], 40) == [Choice("wrong")]


def test_a_solution_is_correct_and_complete() -> None:
    rewards = np.array([0.0, np.nan, 1.0, 1.0])
    assert solution(rewards, np.array([True, True, True, True])) == 2
    assert solution(rewards, np.array([True, True, False, True])) == 3
    assert solution(rewards, np.array([True, True, False, False])) is None


def test_a_branch_as_long_as_allowed_is_no_solution() -> None:
    def branch(number: int, sampled: int) -> Branch:
        return Branch("p0", 0, 1, number, "4", 10 + sampled, sampled, "4", 1.0)

    assert solutions([branch(5, 3), branch(4, MOST)], max_tokens=MOST)["p0", 0].branch == 5
    assert solutions([branch(4, MOST)], max_tokens=MOST) == {}


# -- against known probabilities --------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.6, 0.9]), min_size=4, max_size=4), min_size=1, max_size=4))
def test_likelihood_cuts_where_the_script_is_best(scripts: list[list[float]]) -> None:
    play = Play(scripts, traces=2, branches=1)
    for candidate, choice in zip(
        play.candidates, choose(RULES["best_prefix"], play.candidates, budget=1), strict=True
    ):
        script = scripts[int(candidate.key[0][1:])]
        best = script.index(max(script))
        assert choice == (Choice(boundary=best) if best else Choice("no_progress"))


@pytest.mark.parametrize("kind", ["likelihood", "branches"])
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_ever_keeps_a_wrong_solution(rule: str, kind: str) -> None:
    play = Play([[0.1, 0.3, 0.5, 0.2], [0.5] * 4, [0.0, 0.1, 0.0, 0.9], [0.0] * 4], kind=kind, traces=8)
    choices, texts, _ = play.select(rule)
    assert texts and len(texts) == sum(c.left_out is None for c in choices) < len(choices)
    for text in texts:
        written = play.engine.tokenizer.decode(text.completion_ids[:-1], skip_special_tokens=False)
        _, _, rest = written.partition(CLOSE)
        assert extract_answer(rest) == play.problems[text.problem_id].answer
        assert text.completion_ids[-1] == END and text.text == written
    if rule == "outcome":
        assert [t.key for t in texts] == [t.key for t in play.traces if t.reward == 1]
    if rule == "best_trace":
        assert len({t.problem_id for t in texts}) == len(texts)


def test_a_cut_text_is_the_sampled_tokens_and_never_says_that_time_is_up() -> None:
    play = Play([[0.0, 0.2, 0.9, 0.1]], traces=6)
    _, texts, answers = play.select("best_prefix")
    by_key = {t.key: t for t in play.traces}
    assert texts and {t.boundary for t in texts} == {2}
    for text in texts:
        trace = by_key[text.key]
        cut = play.prover.forced(trace)[2].position
        assert text.completion_ids[:cut] == trace.token_ids[:cut] and text.prompt_ids == trace.prompt_ids
        end = tuple(map(ord, play.prover.meta_prover.end_suffix))
        rest = text.completion_ids[cut:-1]
        assert rest[: len(end)] == end
        assert rest[len(end) :] in {b.token_ids for b in answers if b.key == text.key and b.reward == 1}
        assert "Time is up" not in text.text


def test_solutions_are_fresh_so_that_the_value_of_a_choice_is_not_too_high() -> None:
    # with constant values of 0.5 every choice is noise: the branches that chose say more, fresh ones 0.5
    play = Play([[0.5] * 6] * 40, kind="branches", traces=4)
    choices, texts, answers = play.select("best_prefix")
    metrics = selection_metrics(play.candidates, choices, texts, answers)
    assert metrics["chosen_value"] > 0.75
    n = len(answers)
    assert n > 300 and abs(metrics["fresh_value"] - 0.5) < 4 * 0.5 / math.sqrt(n)
    assert min(b.branch for b in answers) == play.prover.meta_prover.branches  # none of round 0


def test_the_metrics_add_up() -> None:
    play = Play([[0.1, 0.3, 0.9, 0.2], [0.5] * 4, [0.0] * 4], traces=4)
    choices, texts, answers = play.select("best_prefix")
    made = selection_metrics(play.candidates, choices, texts, answers)
    assert made["sampled"] == 12 == made["selected"] + sum(made["left_out"].values())
    assert made["left_out"]["no_progress"] == 8 and made["problems"] == 3 and made["selected_problems"] == 1
    sampled = sum(len(t.token_ids) for t in play.traces) + sum(len(b.token_ids) for b in answers)
    assert made["tokens_sampled"] == sampled
