"""Sampling and proving against the scripted engine, whose success probabilities are known."""

import math
import random

import numpy as np
import pytest

from headway.core.segment import boundaries, by_markers, by_tokens, to_tokens
from headway.core.tally import lay_out, value_curve
from headway.engines.scripted import CLOSE, ScriptedEngine, ramps
from headway.problems.graders import InPlace, Pooled, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, derive_seed, grade_traces, make_trace, sample
from headway.text.prompts import meta_prover, prompt_ids
from headway.text.tags import ThinkTags
from headway.types import Branch, Completion, Engine, Problem

TAGS = ThinkTags("<think>", CLOSE)
GRADER = InPlace(exact)
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(6)]
BY_ID = {p.id: p for p in PROBLEMS}
VALUES = {p.id: [0.1 * i, 0.5, 0.2 + 0.1 * i, 1 - 0.1 * i] for i, p in enumerate(PROBLEMS)}
EPISODES = 3


class Recording(ScriptedEngine):
    """The scripted engine, and what it was asked."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def sample(self, prompts, params, *, seeds):
        self.asked += zip((p.ids for p in prompts), seeds, strict=True)
        return super().sample(prompts, params, seeds=seeds)


def engine():
    return Recording(PROBLEMS, VALUES)


def forcing(branches):
    return meta_prover(TAGS, branches=branches, max_tokens=16)


def segmenter(trace):
    return to_tokens(by_markers(trace.thought), trace.offsets[: trace.thinking])


def sampled(policy=None, *, traces=3, budget=1000, seed=0, **options):
    sampling = Sampling(traces, budget, answer_tokens=40, seed=seed)
    chunks = sample(policy or engine(), PROBLEMS, GRADER, TAGS, sampling, **options)
    return [t for chunk in chunks for t in chunk]


def prover(branches=2, *, policy=None, grader=GRADER, cut=segmenter):
    return Prover(policy or engine(), forcing(branches), BY_ID, grader=grader, segmenter=cut)


def proved(traces, *, branches=2, policy=None, **options):
    return [b for chunk in prover(branches, policy=policy).draw(traces, **options) for b in chunk]


def curve(trace, branches, cut=segmenter):
    own = [b for b in branches if (b.problem_id, b.index) == (trace.problem_id, trace.index)]
    return value_curve(lay_out((trace.problem_id, trace.index), boundaries(cut(trace)), own))


def test_the_scripted_engine_is_an_engine():
    assert isinstance(engine(), Engine)
    script = ramps(PROBLEMS, episodes=4)
    assert all(len(v) == 5 and v == sorted(v) and 0 <= v[0] <= v[-1] <= 1 for v in script.values())


def test_pass_at_1_is_what_the_script_says():
    traces, n = sampled(traces=400), 400
    assert len(traces) == len(PROBLEMS) * n
    for problem in PROBLEMS:
        rewards = [t.reward for t in traces if t.problem_id == problem.id]
        p = VALUES[problem.id][-1]
        assert abs(np.mean(rewards) - p) <= 4 * math.sqrt(p * (1 - p) / n)


def test_values_are_what_the_script_says():
    traces, n = sampled(traces=1), 400
    branches = proved(traces, branches=n)
    assert len(traces) == len(PROBLEMS)
    for trace in traces:
        estimate = curve(trace, branches).values
        truth = np.array(VALUES[trace.problem_id])
        assert estimate.n.tolist() == [n] * (EPISODES + 1)
        assert (np.abs(estimate.values - truth) <= 4 * np.sqrt(truth * (1 - truth) / n)).all()


def test_the_standard_error_covers_at_its_rate():
    traces, n = sampled(traces=30), 64
    branches = proved(traces, branches=n)
    known = [curve(t, branches).values for t in traces]
    inside = [
        abs(v - p) <= 1.96 * se
        for t, estimate in zip(traces, known, strict=True)
        for v, se, p in zip(estimate.values, estimate.stderr, VALUES[t.problem_id], strict=True)
        if 0.2 <= p <= 0.8
    ]
    # nominal 0.95, a little less for 64 yes-or-nos
    assert len(inside) > 300
    assert 0.90 <= np.mean(inside) <= 0.98


def test_a_trace_and_its_thought():
    trace = sampled(traces=1)[0]
    assert trace.closed
    assert trace.stop == "stop"
    assert trace.text.startswith("Okay\n\nThis is step 1.")
    assert trace.thought + CLOSE + "\n\n\\boxed{" + trace.answer + "}" == trace.text
    assert trace.prompt_ids == prompt_ids(engine().tokenizer, PROBLEMS[0].prompt, TAGS)
    assert (trace.outcome == "correct") == (trace.answer == PROBLEMS[0].answer) == (trace.reward == 1.0)


def test_a_budget_cuts_a_trace_that_would_think_longer():
    whole = sampled(traces=2)
    for cut, trace in zip(sampled(traces=2, budget=30), whole, strict=True):
        assert trace.thinking > 30
        assert (cut.thinking, len(cut.token_ids), cut.stop, cut.closed) == (30, 30, "length", False)
        assert (cut.answer, cut.reward, cut.outcome) == (None, 0.0, "truncated")
        assert cut.text == trace.text[:30]
        assert cut.token_ids == trace.token_ids[:30]


def test_a_budget_that_just_holds_the_thought_keeps_the_answer():
    thinking = sampled(traces=1)[0].thinking
    assert sampled(traces=1, budget=thinking) == sampled(traces=1)
    assert all(t.outcome == "truncated" for t in sampled(traces=1, budget=thinking - 1))


def test_a_thought_that_ends_without_closing_has_no_answer():
    completion = Completion(tuple(map(ord, "Hm. \\boxed{0}")), "stop")
    ungraded = make_trace(engine().tokenizer, "p0", 0, (), completion, TAGS, budget=99)
    [trace] = grade_traces([ungraded], BY_ID, GRADER)
    assert (trace.closed, trace.thinking, trace.stop) == (False, 13, "stop")
    assert (trace.answer, trace.reward, trace.outcome) == (None, 0.0, "no_answer")


def test_boxes_in_the_thought_do_not_answer():
    class Boxing(ScriptedEngine):
        def sample(self, prompts, params, *, seeds):
            text = "\\boxed{0}</think>"
            return [[Completion(tuple(map(ord, text)), "stop")] * params.n for _ in prompts]

    assert [t.outcome for t in sampled(Boxing(PROBLEMS, VALUES), traces=1)] == ["no_answer"] * len(PROBLEMS)


def test_a_resumed_sampling_equals_one_that_was_never_stopped():
    whole = sampled(traces=3, problems_at_once=2)
    kept = whole[:7]  # two problems and a third of the next
    policy = engine()
    rest = sampled(policy, traces=3, problems_at_once=2, done={(t.problem_id, t.index) for t in kept})
    assert kept + rest == whole
    assert len(policy.asked) == 4  # the first two problems are not sampled again
    assert sampled(traces=3, problems_at_once=6) == whole


def test_a_resumed_proof_equals_one_that_was_never_stopped():
    traces = sampled(traces=2)
    whole = proved(traces, traces_at_once=5)
    for kept in (whole[:1], whole[:41], whole):
        done = {((b.problem_id, b.index), b.boundary, b.branch) for b in kept}
        assert kept + proved(traces, traces_at_once=5, done=done) == whole
    policy = engine()
    assert proved(traces, policy=policy, done={((b.problem_id, b.index), b.boundary, b.branch) for b in whole}) == []
    assert policy.asked == []


def test_the_order_of_traces_changes_nothing():
    traces = sampled(traces=2)
    shuffled = random.Random(0).sample(traces, len(traces))
    branches, again = proved(traces), proved(shuffled, traces_at_once=3)
    assert sorted(map(repr, branches)) == sorted(map(repr, again))
    for trace in traces:
        one, other = curve(trace, branches), curve(trace, again[::-1])
        assert one.values.values.tolist() == other.values.values.tolist()
        assert one.tokens.tolist() == other.tokens.tolist()


def test_another_seed_is_another_run_and_the_same_seed_is_not():
    assert sampled(seed=1) == sampled(seed=1)
    assert sampled(seed=1) != sampled(seed=2)
    traces = sampled()
    assert proved(traces, seed=1) == proved(traces, seed=1)
    assert proved(traces, seed=1) != proved(traces, seed=2)


def test_seeds_differ_by_every_part_and_are_the_same_everywhere():
    assert len({derive_seed(0, "a", 1), derive_seed(0, "a1"), derive_seed(0, "a", "1"), derive_seed(1, "a", 1)}) == 4
    assert derive_seed(0, "p", 1, 2) == derive_seed(0, "p", 1, 2) < 2**63


@pytest.mark.parametrize("budget", [1000, 55])
def test_a_branch_starts_with_the_sampled_tokens_and_counts_its_own(budget):
    traces, policy, forced = sampled(budget=budget), engine(), forcing(2)
    branches = iter(proved(traces, policy=policy))
    asked = iter(policy.asked)
    for trace in traces:
        positions = boundaries(segmenter(trace))
        assert positions[-1] == trace.thinking
        for j, position in enumerate(positions):
            prefix, _ = next(asked)
            ended = trace.closed and position == trace.thinking
            suffix = tuple(map(ord, forced.end_suffix if ended else forced.suffix))
            assert prefix == trace.prompt_ids + trace.token_ids[:position] + suffix
            for b in range(2):
                branch = next(branches)
                assert (branch.problem_id, branch.index) == (trace.problem_id, trace.index)
                assert (branch.boundary, branch.branch) == (j, b)
                assert branch.sampled == len(branch.text)
                assert branch.tokens == position + len(suffix) + branch.sampled
                assert branch.text == branch.answer + "}"
                assert branch.reward == float(branch.answer == BY_ID[trace.problem_id].answer)
    assert next(branches, None) is next(asked, None) is None
    assert len({seed for _, seed in policy.asked}) == len(policy.asked)


def test_cuts_on_a_grid_of_tokens_are_proved_as_well():
    traces = sampled(traces=1)

    def grid(trace):
        return by_tokens(trace.thinking, size=10)

    [branches] = prover(cut=grid).draw(traces)
    for trace in traces:
        found = curve(trace, branches, grid)
        assert found.boundaries == [*range(0, trace.thinking, 10), trace.thinking]
        assert not np.isnan(found.values.values).any()
        assert (np.diff(found.tokens[:-1]) > 0).all()


def branch(boundary, number, reward, tokens=20, sampled=2, problem="p0"):
    return Branch(problem, 0, boundary, number, "", tokens, sampled, "4", reward)


def test_a_value_curve_by_hand():
    trace = sampled(traces=1)[0]
    drawn = [branch(0, 0, 1.0, 20, 2), branch(0, 1, 0.0, 23, 5), branch(1, 1, None, 40, 4), branch(3, 0, 1.0, 70, 1)]
    got = curve(trace, drawn)
    # boundary 1 was asked and not decided; boundary 2 was not asked
    # 18, 36 and 69 tokens before the answer, and an answer has (3.5 + 4 + 1) / 3
    assert got.tokens[[0, 1, 3]] == pytest.approx([18 + 8.5 / 3, 36 + 8.5 / 3, 69 + 8.5 / 3])
    assert np.isnan(got.tokens).tolist() == [False, False, True, False]
    assert np.isnan(got.values.values).tolist() == [False, True, True, False]
    assert got.values.values[[0, 3]].tolist() == [0.5, 1.0]
    assert got.values.n.tolist() == [2, 0, 0, 1]
    assert np.isnan(curve(trace, []).values.values).all()


@pytest.mark.parametrize("wrong", [branch(EPISODES + 1, 0, 1.0), branch(0, 0, 1.0, problem="p1")])
def test_a_branch_of_another_cut_or_trace_is_an_error(wrong):
    trace = sampled(traces=1)[0]
    with pytest.raises(ValueError, match="does not fit trace p0/0 with 4 boundaries"):
        lay_out((trace.problem_id, trace.index), boundaries(segmenter(trace)), [wrong])


def undecided_for_odd(answer, reference):
    return None if int(reference) % 4 else answer == reference


def test_what_the_grader_cannot_decide_is_unknown_and_not_wrong():
    with Pooled(undecided_for_odd, workers=1) as grader:
        [traces] = sample(engine(), PROBLEMS, grader, TAGS, Sampling(1, 1000, 40))
        [branches] = prover(grader=grader).draw(traces)
    for trace in traces:
        odd = int(trace.problem_id[1:]) % 2 == 1
        assert (trace.outcome == "undecided") == odd
        assert np.isnan(curve(trace, branches).values.values).all() == odd
