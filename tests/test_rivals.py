"""The rivals of MRT: a step of each recipe in recipes/rivals, hand numbers, and the policy's own values."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from headway.core.segment import by_markers, to_tokens
from headway.credit import SCHEMES, Group
from headway.credit.length_penalty import penalties
from headway.credit.s_grpo import exit_rewards
from headway.engines.scripted import CLOSE, ScriptedEngine
from headway.problems.graders import InPlace, exact
from headway.procedures.continued import ROOM, continued_curves, through_openers
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.training import MRTConfig, main
from headway.types import Episode, HeadwayError, Problem, SamplingParams

# third parties warn about their own futures
pytestmark = pytest.mark.filterwarnings("default")

RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "rivals").glob("*.yaml"))
SMALL = dict(
    limit=8, num_generations=4, per_device_train_batch_size=8, max_completion_length=64, steps_per_generation=1,
    max_steps=1, branches=2, use_cpu=True, disable_tqdm=True,
)  # fmt: skip


def test_there_is_a_recipe_for_each_rival() -> None:
    assert {path.stem for path in RECIPES} == {"brpo", "dler", "grpo_vps", "length_penalty", "s_grpo", "vineppo"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_trains(path: Path, tmp_path: Path) -> None:
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main(["--config", str(path), "--output_dir", str(tmp_path), *options])
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    scheme = SCHEMES[yaml.safe_load(path.read_text())["credit"]]
    bonuses = np.concatenate([line["bonuses"] for line in lines])
    assert np.isfinite(bonuses).all()
    if scheme.needs_values:
        assert (bonuses != 0).any()
    assert (tmp_path / "model.safetensors").exists()


# -- by hand ----------------------------------------------------------------------------------------------------------


def group_of(rewards, values=None, *, lengths=None, stopped=True):
    values = [np.array([0.5, 0.5])] * len(rewards) if values is None else [np.array(v, dtype=float) for v in values]
    episodes = [[Episode(2 * j, 2 * j + 2) for j in range(len(v) - 1)] for v in values]
    costs = [np.arange(len(v), dtype=float) for v in values]
    lengths = [2 * len(v) for v in values] if lengths is None else lengths
    return Group(np.array(rewards, dtype=float), values, episodes, [stopped] * len(values), costs, lengths)


def one_each(bonuses):
    assert all(b.shape == (2, 1) and np.array_equal(b[0], b[1], equal_nan=True) for b in bonuses)
    return np.array([b[0, 0] for b in bonuses])


def test_length_penalty_by_hand():
    # correct ones of 10, 20 and 30 tokens: mean 20, standard deviation sqrt(200 / 3)
    pays = penalties(np.array([1.0, 1.0, 1.0, 0.0]), np.array([10.0, 20.0, 30.0, 500.0]))
    z = 10 / np.sqrt(200 / 3)
    assert pays == pytest.approx([1 / (1 + np.exp(z)), 0.5, 1 / (1 + np.exp(-z)), 0.0])
    got = one_each(SCHEMES["length_penalty"].bonuses(group_of([1, 1, 1, 0], lengths=[10, 20, 30, 500])))
    assert got == pytest.approx(-pays + (pays.sum() - pays) / 3)


def test_length_penalty_where_lengths_do_not_differ():
    lengths = np.array([7.0, 7.0, 9.0])
    assert penalties(np.array([0.0, 0.0, 1.0]), lengths).tolist() == [0, 0, 0.5]  # one correct
    assert penalties(np.array([1.0, 1.0, 0.0]), lengths).tolist() == [0.5, 0.5, 0]
    assert penalties(np.zeros(3), lengths).tolist() == [0, 0, 0]
    assert np.array_equal(penalties(np.array([np.nan, 1.0, 0.0]), lengths), [np.nan, 0.5, 0], equal_nan=True)
    assert np.isfinite(penalties(np.ones(3), np.array([1.0, 1.0, 1e9]))).all()


def test_outcome_and_length_penalty_are_the_papers_leave_one_out():
    rewards, lengths, a = np.array([1.0, 1.0, 0.0, 1.0]), np.array([10.0, 30.0, 20.0, 11.0]), 0.2
    G = len(rewards)
    paid = rewards - a * penalties(rewards, lengths)
    leave_one_out = paid - (paid.sum() - paid) / (G - 1)
    bonuses = one_each(SCHEMES["length_penalty"].bonuses(group_of(rewards, lengths=lengths.astype(int).tolist())))
    ours = rewards - rewards.mean() + a * (G - 1) / G * bonuses
    assert ours == pytest.approx((G - 1) / G * leave_one_out)


def test_dler_by_hand():
    unknown = [1, np.nan, 0]
    for rewards, expected in (([1, 0, 1], [1, 0, 1]), ([1, 1], [0, 0]), ([0, 0], [0, 0]), (unknown, unknown)):
        got = one_each(SCHEMES["dler"].bonuses(group_of(rewards)))
        assert np.array_equal(got, expected, equal_nan=True)


def test_vineppo_by_hand():
    [steps] = SCHEMES["vineppo"].bonuses(group_of([1], [[0.25, 0.5, 0.375, 0.0]]))
    assert steps.tolist() == [[0.25, -0.125, 0.625], [-0.125, 0.625, 0.0]]  # to the outcome, not to the last value
    [[own, _]] = SCHEMES["vineppo"].bonuses(group_of([np.nan], [[0.25, 0.5, 0.5]]))
    assert own[0] == 0.25 and np.isnan(own[1])


def test_s_grpo_by_hand():
    assert exit_rewards(np.array([0.0, 1.0, 0.0, 1.0, 1.0])).tolist() == [0, 1, 0, 0.5, 0.25]
    assert exit_rewards(np.array([0.5, 0.5])).tolist() == [0.5, 0.375]
    # exits 0, 1 and 1 (the outcome): rewards 0, 1, 1/2, mean 1/2; an episode has the exits after it, over 3
    [[own, end]] = SCHEMES["s_grpo"].bonuses(group_of([1], [[0.0, 1.0, 0.0]]))
    assert own == pytest.approx([0.5 / 3, 0.0])
    assert end == pytest.approx([0.0, 0.0])
    # wrong in the end: 0, 1, 0 and mean 1/3
    [[own, end]] = SCHEMES["s_grpo"].bonuses(group_of([0], [[0.0, 1.0, 1.0]]))
    assert own == pytest.approx([1 / 9, -1 / 9])
    assert end == pytest.approx([-1 / 9, 0.0])
    [alone] = SCHEMES["s_grpo"].bonuses(group_of([1], [[0.25]]))
    assert alone.tolist() == [[0.0], [0.0]]


def test_s_grpo_passes_over_what_is_unknown():
    nan = np.nan
    assert np.array_equal(exit_rewards(np.array([1.0, nan, 1.0])), [1, nan, 0.5], equal_nan=True)
    [[own, _]] = SCHEMES["s_grpo"].bonuses(group_of([1], [[0.0, nan, 0.0]]))
    assert own == pytest.approx([0.25, 0.25])  # exits 0 and 1, mean 1/2, over 2
    [unknown] = SCHEMES["s_grpo"].bonuses(group_of([nan], [[nan, nan]]))
    assert np.isnan(unknown[0]).all()


# -- values of the policy that goes on by itself ----------------------------------------------------------------------

TAGS = ThinkTags("<think>", CLOSE)
PROBLEM = Problem("p", "What is 1 + 1?", "2")
SCRIPT = {"p": [0.9, 0.1, 0.6, 0.3]}  # forced answers; the policy itself is correct at 0.3


def continued(n, *, longest=1000, traces=2):
    engine = ScriptedEngine([PROBLEM], SCRIPT)
    sampling = Sampling(traces, 1000, answer_tokens=40)
    [sampled] = sample(engine, [PROBLEM], InPlace(exact), TAGS, sampling)
    prover = Prover(
        engine, meta_prover(TAGS, branches=1, max_tokens=16), {"p": PROBLEM}, grader=InPlace(exact),
        segmenter=lambda t: to_tokens(by_markers(t.thought), t.offsets[: t.thinking]),
    )  # fmt: skip
    return sampled, *continued_curves(prover, sampled, TAGS, SamplingParams(longest, n), seed=1)


def test_the_policy_goes_on_by_itself():
    traces, curves, branches = continued(400)
    for trace, curve in zip(traces, curves, strict=True):
        assert curve.values.n.tolist() == [400, 400, 400, 1]
        assert curve.values.values[:3] == pytest.approx([0.3] * 3, abs=0.1)  # four standard errors
        assert curve.values.values[3] == trace.reward
    assert {b.sampled for b in branches if b.boundary == 3} == {0}
    lengths = [np.mean([b.sampled for b in branches if b.boundary == j]) for j in range(3)]
    assert lengths[0] > lengths[1] > lengths[2] > 0


def test_what_is_beyond_the_room_of_a_trace_is_no_answer():
    traces, _, _ = continued(1)
    longest = traces[0].thinking
    _, curves, branches = continued(30, longest=longest)
    assert all((curve.values.values[:3] == 0).all() for curve in curves)
    positions = curves[0].boundaries
    assert all(b.sampled <= longest - positions[b.boundary] + ROOM for b in branches)


def test_episodes_through_their_openers():
    assert through_openers([], 0) == []
    assert through_openers([], 2) == [Episode(0, 2)]  # stopped at once: the answer is all
    assert through_openers([Episode(0, 3), Episode(3, 5)], 7) == [Episode(0, 4), Episode(4, 7)]
    assert through_openers([Episode(0, 3), Episode(3, 4)], 4) == [Episode(0, 4)]  # cut right after an opener
    assert through_openers([Episode(0, 3), Episode(3, 4)], 5) == [Episode(0, 4), Episode(4, 5)]


def test_vineppo_takes_sampled_values_alone(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="values: branches"):
        MRTConfig(output_dir=str(tmp_path), credit="vineppo", values="likelihood", use_cpu=True)
