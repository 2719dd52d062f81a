"""The paper's evaluation and the diagnosis in report.json and compare.json, on scripted runs with known truth."""

from collections.abc import Sequence

import numpy as np
import pytest

from headway.core import stats
from headway.core.segment import by_markers, to_tokens
from headway.core.votes import maj_at_k
from headway.engines.scripted import ScriptedEngine
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.report.numbers.comparison import regret_against_best, token_efficiency
from headway.report.numbers.diagnosis import budget_to, calibration, diagnose, progress_histogram
from headway.report.numbers.evaluation import (
    BEST_STOP,
    PERFECT,
    VOTING,
    Votes,
    boundary_votes,
    direct_votes,
    envelope,
    evaluate,
    maj_by_episode_binned,
    trace_votes,
)
from headway.report.numbers.table import RunTable, run_table, summarize
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Branch, Episode, Problem, Trace

TAGS = ThinkTags("", "</think>")
BUDGET = 400
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(30)]


def cut(trace: Trace):
    return to_tokens(by_markers(trace.thought), trace.offsets[: trace.thinking])


def run(values: dict[str, Sequence[float]], *, traces: int = 4, branches: int = 8, seed: int = 0) -> RunTable:
    """A run of the scripted policy on the problems that have values."""
    problems = [p for p in PROBLEMS if p.id in values]
    engine, grader, by_id = ScriptedEngine(problems, values), InPlace(exact), {p.id: p for p in problems}
    limits = {"budget": BUDGET, "answer_tokens": 40}
    made = [t for c in sample(engine, problems, grader, TAGS, Sampling(traces, seed=seed, **limits)) for t in c]
    prover = meta_prover(TAGS, branches=branches, max_tokens=20)
    proving = Prover(engine, prover, by_id, grader=grader, segmenter=cut)
    return run_table(made, [b for c in proving.draw(made, seed=seed) for b in c], cut)


def everywhere(*values: float) -> dict[str, Sequence[float]]:
    return {p.id: values for p in PROBLEMS}


@pytest.fixture(scope="module")
def rising() -> RunTable:
    return run({p.id: (0.1, 0.3, 0.3 + i / 60, 0.4 + i / 60) for i, p in enumerate(PROBLEMS)})


def test_votes_of_traces_begin_at_pass_at_1(rising):
    entries = evaluate(rising, budget=BUDGET)
    plain = stats.mean(rising.rewards, rising.problems)
    tokens = np.mean(rising.tokens)
    for name in ("pass_at_k", "maj_at_k"):
        first, *_, last = entries[name]
        assert (first["k"], first["n"], first["n_problems"]) == (1, 120, 30)
        assert (first["value"], first["tokens"]) == (pytest.approx(plain.value), pytest.approx(tokens))
        assert first["stderr"] == pytest.approx(plain.stderr)
        assert (last["k"], last["tokens"]) == (4, pytest.approx(4 * tokens))
    passed = [r["value"] for r in entries["pass_at_k"]]
    assert passed == sorted(passed)


def test_direct_votes_are_over_all_branches_before_any_thinking(rising):
    direct = direct_votes(rising)
    assert direct.maj_at.shape == (30, 4 * 8)
    assert direct.maj_at[:, 0].mean() == pytest.approx(np.mean([c.values.values[0] for c in rising.curves]))
    assert direct.tokens[:, 0].mean() == pytest.approx(np.mean([c.tokens[0] for c in rising.curves]))
    # right with 0.1 and one wrong answer: a majority hardly ever finds it, one of 32 nearly always does
    assert direct.maj_at[:, 30].mean() < 0.02 < 0.9 < direct.pass_at[:, 30].mean()


def test_votes_at_boundaries_are_what_the_script_says():
    # one wrong answer: maj@4 of p is P(3 or 4 right) + P(2) / 2
    entries = evaluate(run(everywhere(0.2, 0.7, 0.7), traces=8), budget=BUDGET)["maj_by_episode"]
    for boundary, p in ((0, 0.2), (1, 0.7)):
        [record] = [r for r in entries if (r["branches"], r["boundary"]) == (4, boundary)]
        truth = p**4 + 4 * p**3 * (1 - p) + 3 * p**2 * (1 - p) ** 2
        assert record["value"] == pytest.approx(truth, abs=4 * record["stderr"])
        assert record["episodes"] == boundary + 3 and record["n"] == 240
    singles = [r for r in entries if r["branches"] == 1]
    # each further answer costs its own tokens and nothing else
    for one, two, four in zip(singles, *([r for r in entries if r["branches"] == p] for p in (2, 4)), strict=True):
        assert four["tokens"] - one["tokens"] == pytest.approx(3 * (two["tokens"] - one["tokens"]))


def test_one_branch_at_a_boundary_is_the_value_there(rising):
    entries = evaluate(rising, budget=BUDGET)["maj_by_episode"]
    for j in range(4):
        [record] = [r for r in entries if (r["branches"], r["boundary"]) == (1, j)]
        assert record["value"] == pytest.approx(np.mean([c.values.values[j] for c in rising.curves]))


def test_bins_hold_traces_of_like_length():
    values = {p.id: [0.5] * (1 + 1 + i % 7) for i, p in enumerate(PROBLEMS)}  # 1 to 7 episodes
    made = run(values, traces=1, branches=2)
    entries = [r for r in maj_by_episode_binned(made, boundary_votes(made)) if r["branches"] == 1]
    shapes = [(r["episodes_from"], r["episodes_to"], r["boundary"], r["n"]) for r in entries]
    few, many = sum(i % 7 < 5 for i in range(30)), sum(i % 7 >= 5 for i in range(30))
    assert shapes == [(1, 5, 0, few), (1, 5, 5, few), (6, 10, 0, many), (6, 10, 5, many), (6, 10, 10, many)]


def test_regret_names_what_it_is_against(rising):
    entries = evaluate(rising, budget=BUDGET)["regret_by_comparator"]
    assert {r["comparator"] for r in entries} == {PERFECT, BEST_STOP, VOTING}
    report = summarize(rising, model="m", problems="p", budget=BUDGET - 40, answer_tokens=40)
    perfect = [r for r in entries if r["comparator"] == PERFECT]
    best = [r for r in entries if r["comparator"] == BEST_STOP]
    for on_grid, exactly, against_best in zip(perfect, report["normalized_regret"], best, strict=True):
        assert on_grid["budget"] == exactly["budget"]
        assert on_grid["value"] == pytest.approx(exactly["value"], abs=0.02)  # a cell is 1/256 of the budget
        assert -1e-12 <= against_best["value"] <= on_grid["value"] + 1e-12


def test_who_may_answer_at_once_beats_votes_over_whole_traces():
    # always right: a forced answer before any thinking costs less than one whole trace
    made = run(everywhere(*[1.0] * 7), traces=1, branches=1)
    voting = [r for r in evaluate(made, budget=BUDGET)["regret_by_comparator"] if r["comparator"] == VOTING]
    assert voting[0]["value"] == 0.0 and all(r["value"] < 0 for r in voting[4:])


def test_a_run_needs_as_many_tokens_as_itself(rising):
    for record in token_efficiency([("a", rising), ("b", rising)]):
        assert (record["value"], record["label"], record["against"]) == (pytest.approx(1.0), "b", "a")
        assert record["stderr"] == pytest.approx(0.0, abs=1e-9)


def stretched(made: RunTable, factor: int) -> RunTable:
    """The same answers, for `factor` times the tokens."""
    return made._replace(tokens=factor * made.tokens)


def test_the_horizontal_gap_of_a_run_that_writes_three_times_as_much(rising):
    records = token_efficiency([("long", stretched(rising, 3)), ("short", rising)])
    assert [r["highest"] for r in records] == [True, *[False] * (len(records) - 1)]
    for r in records:
        assert r["value"] == pytest.approx(3.0) and r["stderr"] == pytest.approx(0.0, abs=1e-9)
        # no resample differs, which says nothing about other problems
        assert np.isnan(r["ci95"]).all()
        assert r["n"] == 240 and r["n_problems"] == 30
    assert records[0]["accuracy"] == max(r["accuracy"] for r in records) and records[0]["reached"] == 1.0


def answers(rng: np.random.Generator, *, traces: int = 8) -> RunTable:
    """A policy that is right with a chance of its own on each problem, without thinking or branches."""
    made, classes = [], []
    for problem, p in enumerate(np.linspace(0.3, 0.95, 30)):
        for index in range(traces):
            n, right = int(rng.integers(10, 30)), bool(rng.random() < p)
            made.append(
                Trace(f"p{problem}", index, (), (0,) * n, "", (0,) * n, 0, True, "stop", str(right), float(right))
            )
            classes.append(2 * problem + right)
    return run_table(made, [], lambda trace: [], classify=lambda answers: classes)


def test_the_interval_of_the_gap_covers_the_truth():
    rng = np.random.default_rng(0)
    found = [token_efficiency([("a", answers(rng)), ("b", answers(rng))])[0] for _ in range(20)]
    # two runs of one policy: a ratio of 1. Of 20 intervals at 95% fewer than 16 cover with a chance of 0.003
    assert sum(r["ci95"][0] <= 1 <= r["ci95"][1] for r in found) >= 16


def test_runs_are_paired_on_the_problems_both_have(rising):
    fewer = run({p.id: (0.5, 0.9) for p in PROBLEMS[10:20]})
    assert {r["n_problems"] for r in token_efficiency([("a", rising), ("b", fewer)])} == {10}
    best = regret_against_best([("a", rising), ("b", fewer)], budget=BUDGET)
    assert {r["n_problems"] for r in best} == {10} and {r["label"] for r in best} == {"a", "b"}
    # at each budget one of them is the best, and nobody is better on the mean curve
    assert all(r["value"] > -1e-12 for r in best)


def test_the_histogram_is_of_all_progress(rising):
    bins = progress_histogram(rising)
    assert sum(r["value"] for r in bins) == pytest.approx(1.0)
    assert (bins[0]["low"], bins[-1]["high"], bins[8]["low"]) == (-1.0625, 1.0625, -0.0625)
    assert bins[0]["n"] == 3 * 120
    # progress of 0.125 k lies in the middle of a bin
    flat = progress_histogram(run(everywhere(1.0, 1.0, 0.0)))
    assert {r["low"] + 0.0625: r["value"] for r in flat if r["value"]} == {0.0: 0.5, -1.0: 0.5}


def test_noise_is_no_overthinking_in_the_report():
    entries = diagnose(run(everywhere(0.5, 0.5, 0.5, 0.5), traces=8), budget=BUDGET)["overthinking"]
    assert entries["raw"]["value"] > 0.4
    for name in ("corrected", "gain"):
        assert abs(entries[name]["value"]) < 4 * entries[name]["stderr"]
    entries = diagnose(run(everywhere(0.1, 1.0, 0.2)), budget=BUDGET)["overthinking"]
    assert entries["corrected"]["value"] > 0.9 and 0.7 < entries["gain"]["value"] <= 0.85


def test_the_budget_that_reaches_most_of_the_final_accuracy():
    # all is known after the first episode; before it nothing is
    made = run(everywhere(0.0, 1.0, 1.0, 1.0))
    there = np.mean([c.tokens[1] for c in made.curves])
    found = budget_to(made, 0.9, budget=BUDGET)
    assert there - 3 <= found.value <= there + BUDGET / 256 + 3
    assert (found.n, found.n_problems) == (120, 30)
    # all problems rise at the same point: that no resample differs is no interval
    assert found.stderr < 1e-9 and np.isnan(found.ci95).all()
    early, late = (
        {p.id: (0.0, 1.0, 1.0, 1.0) for p in PROBLEMS[:20]},
        {p.id: (0.0, 0.0, 1.0, 1.0) for p in PROBLEMS[20:]},
    )
    found = budget_to(run(early | late), 0.9, budget=BUDGET)
    assert found.ci95[0] < found.value < found.ci95[1]
    assert np.isnan(budget_to(run(everywhere(0.0, 0.0)), 0.9, budget=BUDGET).value)


def test_thinking_after_the_answer_is_settled():
    made = run(everywhere(0.0, 1.0, 1.0, 1.0))
    entries = diagnose(made, budget=BUDGET)["settled"]
    after = np.mean([c.boundaries[-1] - c.boundaries[1] for c in made.curves])
    assert entries["tokens_after"]["value"] == pytest.approx(after)
    assert entries["share_after"]["value"] == pytest.approx(2 / 3, abs=0.03)


def test_error_bars_of_values_are_honest(rising):
    found = calibration(rising)
    assert abs(found.value - 1) < 4 * found.stderr < 0.4
    assert np.isnan(calibration(run(everywhere(0.5, 0.5), branches=2)).value)


def test_a_run_whose_branches_repeat_each_other_is_found_out(rising):
    # the engine ignored seeds: the second half of each boundary's branches are the first
    copied = [t._replace(rewards=np.repeat(t.rewards[:, :4], 2, axis=1)) for t in rising.tallies]
    assert calibration(rising._replace(tallies=copied)).value == 0.0


def test_undecided_answers_are_left_out_and_missing_branches_too():
    traces = [
        Trace("a", i, (0,), (0,) * 4, "xxxx", (0, 1, 2, 3), 4, True, "stop", "7", reward)
        for i, reward in enumerate([1.0, None, 0.0])
    ]
    drawn = [Branch("a", 0, 0, 0, "", 5, 1, "7", 1.0), Branch("a", 0, 0, 1, "", 5, 1, "7", None)]
    made = run_table(traces, drawn, lambda trace: [Episode(0, 4)], classify=lambda answers: [0, -1, 1, 0, -1])
    assert made.curves[0].tokens.tolist() == pytest.approx([5.0, np.nan], nan_ok=True)
    assert trace_votes(made).maj_at.tolist() == [[0.5, 0.5]]
    entries = evaluate(made, budget=20) | diagnose(made, budget=20)
    assert [r["n"] for r in entries["maj_at_k"]] == [2, 2]
    [record] = entries["maj_by_episode"]
    assert (record["value"], record["n"], record["tokens"]) == (1.0, 1, 5.0)
    assert len(entries["direct_maj_at_k"]) == 1


def test_one_problem_has_values_without_errors():
    one = run({"p3": (0.5, 0.75, 1.0)})
    entries = evaluate(one, budget=BUDGET) | diagnose(one, budget=BUDGET)
    assert entries["maj_at_k"][0]["value"] == 1.0 and np.isnan(entries["maj_at_k"][0]["stderr"])
    assert np.isnan(entries["budget_to_90"]["stderr"]) and entries["budget_to_90"]["value"] > 0
    assert np.isnan(token_efficiency([("a", one), ("b", one)])[0]["reached"])


def test_votes_know_no_order(rising):
    right = rising.rewards > 0
    own = [i for i, p in enumerate(rising.problems) if p == "p7"]
    expected = maj_at_k(rising.classes[own[::-1]], right[own[::-1]])
    row = trace_votes(rising).problems.index("p7")
    assert trace_votes(rising).maj_at[row] == pytest.approx(expected)


def test_completions_without_a_token_give_a_vote_of_no_accuracy():
    votes = Votes(["a"], np.array([2]), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)))
    assert envelope(votes, np.array([0.5, 2.0])).tolist() == [0.0, 0.0]
