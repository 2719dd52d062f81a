import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.progress import progress
from headway.credit import SCHEMES, Group, centred, token_advantages
from headway.credit.brpo import centred_by_past
from headway.credit.mig import watermark
from headway.types import Episode

EPISODES = [Episode(0, 3), Episode(3, 5)]


def a(*numbers):
    return np.array(numbers, dtype=float)


def group_of(*values, rewards=None, stopped=True):
    """A group of traces with these values and episodes of two tokens, all stopped or none."""
    G = len(values)
    episodes = [[Episode(2 * j, 2 * j + 2) for j in range(len(v) - 1)] for v in values]
    costs = [np.arange(len(v), dtype=float) for v in values]
    rewards = np.zeros(G) if rewards is None else np.array(rewards, dtype=float)
    return Group(rewards, list(values), episodes, [stopped] * G, costs, [2 * len(v) + 2 for v in values])


def alone(credit, values, *, stopped):
    """The bonuses of a trace without others, whose baseline is 0."""
    [bonuses] = SCHEMES[credit].bonuses(group_of(values, stopped=stopped))
    return bonuses


def stale(reward, value):
    [[bonus]] = SCHEMES["stale_prefix"].bonuses(group_of(a(value), rewards=[reward]))
    return bonus


def normalized(rewards, eps=1e-4):
    """The outcome advantages of a group as TRL has them by default."""
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + eps)


def test_bonuses_by_hand():
    values = a(0.25, 0.5, 0.25, 1.0)
    assert alone("episode", values, stopped=True).tolist() == [0.25, -0.25, 0.75, 0.0]
    assert alone("episode", values, stopped=False).tolist() == [0.25, -0.25, 0.75]
    assert alone("to_go", values, stopped=True).tolist() == [0.75, 0.5, 0.75, 0.0]
    assert alone("to_go", values, stopped=False).tolist() == [0.75, 0.5, 0.75]
    assert alone("mig", values, stopped=True).tolist() == [0.25, 0.0, 0.5, 0.0]
    assert alone("grpo", values, stopped=True).tolist() == [0.0] * 4
    assert stale(1.0, 0.25) == 0.75


def test_a_thought_that_stops_at_once_makes_one_choice():
    for credit in ("episode", "to_go", "mig", "brpo", "grpo"):
        assert alone(credit, a(0.5), stopped=True).tolist() == [0.0]
        assert alone(credit, a(0.5), stopped=False).tolist() == []


def test_episodes_and_progress_to_go_are_centred_and_new_maxima_too():
    group = group_of(a(0.1, 0.5, 0.3, 0.9), a(0.2, 0.1))
    plain = [alone("episode", v, stopped=True) for v in group.values]
    for credit, values in (("episode", group.values), ("mig", [watermark(v) for v in group.values])):
        expected = centred([alone("episode", v, stopped=True) for v in values])
        got = SCHEMES[credit].bonuses(group)
        assert [b.tolist() for b in got] == [b.tolist() for b in expected]
    expected = centred([alone("to_go", v, stopped=True) for v in group.values])
    assert [b.tolist() for b in SCHEMES["to_go"].bonuses(group)] == [b.tolist() for b in expected]
    assert [b.tolist() for b in SCHEMES["brpo"].bonuses(group)] == [b.tolist() for b in centred_by_past(plain)]


EACH_SCHEME = pytest.mark.parametrize("credit", SCHEMES)
VALUES = st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=5).map(lambda v: a(*v))


@EACH_SCHEME
@given(values=st.lists(VALUES, min_size=1, max_size=4), stopped=st.booleans())
def test_every_scheme_pays_every_choice(credit, values, stopped):
    group = group_of(*values, rewards=np.linspace(0, 1, len(values)), stopped=stopped)
    choices = [len(v) - 1 + stopped for v in values]
    bonuses = SCHEMES[credit].bonuses(group)
    assert [len(b) for b in bonuses] == ([1] * len(values) if SCHEMES[credit].pays == "completion" else choices)
    if not any(np.isnan(v).any() for v in values):
        assert not any(np.isnan(b).any() for b in bonuses)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.booleans())
def test_to_go_is_the_sum_of_the_progress_to_come(values, stopped):
    made = progress(a(*values))
    expected = [made[j:].sum() for j in range(len(made))] + [0.0] * stopped
    assert alone("to_go", a(*values), stopped=stopped) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.data())
def test_finer_cuts_keep_the_total(values, data):
    kept = data.draw(st.lists(st.sampled_from(range(1, len(values) - 1)), unique=True).map(sorted))
    coarse = a(*values)[[0, *kept, len(values) - 1]]
    fine_total = alone("episode", a(*values), stopped=True).sum()
    assert alone("episode", coarse, stopped=True).sum() == pytest.approx(fine_total)
    assert alone("to_go", coarse, stopped=True)[0] == pytest.approx(fine_total)


def test_a_bonus_a_group_shares_cancels_as_a_reward():
    rewards, value, weight = a(1, 0, 0, 1, 1), 0.3, 0.7
    as_reward = rewards + weight * (rewards - value)
    # centred it is (1 + weight)(r - mean), and its deviation has the same factor
    assert normalized(as_reward, eps=0.0) == pytest.approx(normalized(rewards, eps=0.0))
    assert normalized(as_reward) == pytest.approx(normalized(rewards), abs=3e-4)


def test_a_bonus_a_group_shares_does_not_cancel_as_credit():
    rewards, value, weight = a(1, 0, 0, 1, 1), 0.3, 0.7
    outcome = normalized(rewards)
    credited = [
        token_advantages(o, a(stale(r, value)), [Episode(0, 2)], 2, weight=weight)[0]
        for o, r in zip(outcome.tolist(), rewards.tolist(), strict=True)
    ]
    # a right trace gets 0.7 * 0.7 more, a wrong one 0.7 * 0.3 less
    assert credited - outcome == pytest.approx([0.49, -0.21, -0.21, 0.49, 0.49])


def test_centred_by_hand():
    got = centred([a(0.5, 0.25), a(0.25), a(0.0, 0.5, 1.0)])
    # column 0 without oneself: 0.125, 0.25, 0.375; column 1: 0.5, -, 0.25;
    # column 2 has nobody else: all choices of the others, (0.5 + 0.25 + 0.25) / 3
    assert got[0] == pytest.approx([0.375, -0.25])
    assert got[1] == pytest.approx([0.0])
    assert got[2] == pytest.approx([-0.375, 0.25, 1 - 1 / 3])


def test_the_stop_pays_the_baseline():
    stops, goes = (alone("episode", v, stopped=True) for v in (a(0.2), a(0.2, 0.6)))
    got = centred([stops, goes])
    assert got[0] == pytest.approx([-0.4])  # 0 less the other's progress
    assert got[1] == pytest.approx([0.4, 0.0])


def test_a_lone_trace_is_centred_on_nothing():
    assert centred([a(0.5, 0.25)])[0].tolist() == [0.5, 0.25]
    assert centred([a(0.5), a()])[0].tolist() == [0.5]
    assert centred([]) == []


def test_an_unknown_bonus_stays_unknown_and_out_of_the_means():
    first, second, third = centred([a(np.nan, 1.0), a(0.5, 0.0), a(1.0)])
    assert np.isnan(first[0])
    assert second == pytest.approx([-0.5, -1.0])  # less the third's 1, less the first's 1
    assert third == pytest.approx([0.5])  # less the second's alone
    assert first[1] == pytest.approx(1.0)


@given(st.lists(st.lists(st.floats(-1, 1), max_size=4).map(lambda b: a(*b)), max_size=5), st.randoms())
def test_the_order_of_the_group_changes_nothing(group, rng):
    order = rng.sample(range(len(group)), len(group))
    got, permuted = centred(group), centred([group[i] for i in order])
    for place, i in enumerate(order):
        assert permuted[place] == pytest.approx(got[i], abs=1e-12)


def test_tokens_carry_the_credit_of_their_choice():
    # two episodes, the token that closes the thinking, and two tokens of answer
    got = token_advantages(1.0, a(0.5, -0.25, -1.0), EPISODES, 8, weight=2.0)
    assert got.tolist() == [2.0, 2.0, 2.0, 0.5, 0.5, -1.0, 1.0, 1.0]


def test_a_thought_that_did_not_stop_has_no_stop_token():
    got = token_advantages(1.0, a(0.5, -0.25), EPISODES, 5, weight=2.0)
    assert got.tolist() == [2.0, 2.0, 2.0, 0.5, 0.5]


def test_a_trace_that_stops_at_once_pays_with_its_first_token():
    assert token_advantages(0.5, a(-1.0), [], 3, weight=1.0).tolist() == [-0.5, 0.5, 0.5]
    assert token_advantages(0.5, a(), [], 2, weight=1.0).tolist() == [0.5, 0.5]


def test_one_bonus_for_a_whole_completion_is_one_episode():
    assert token_advantages(1.0, a(0.5), [Episode(0, 4)], 4, weight=2.0).tolist() == [2.0] * 4


@given(st.floats(-5, 5), st.lists(st.floats(-1, 1) | st.just(np.nan), min_size=3, max_size=3))
def test_no_weight_is_the_outcome_bit_for_bit(outcome, bonuses):
    got = token_advantages(outcome, a(*bonuses), EPISODES, 8, weight=0.0)
    assert got.tobytes() == np.full(8, outcome).tobytes()


def test_an_unknown_bonus_adds_nothing():
    got = token_advantages(1.0, a(np.nan, 0.5, np.nan), EPISODES, 7, weight=1.0)
    assert got.tolist() == [1.0, 1.0, 1.0, 1.5, 1.5, 1.0, 1.0]


@pytest.mark.parametrize("length", [1, 4, 9])
def test_every_token_of_an_episode_carries_its_whole_bonus(length):
    got = token_advantages(0.0, a(0.5), [Episode(0, length)], 9, weight=1.0)
    assert got.tolist() == [0.5] * length + [0.0] * (9 - length)


@pytest.mark.parametrize(
    ("bonuses", "episodes", "n_tokens"),
    [
        ([0.1], EPISODES, 8),
        ([0.1] * 4, EPISODES, 8),
        ([0.1] * 2, EPISODES, 4),
        ([0.1] * 3, EPISODES, 5),
        ([0.1], [], 0),
    ],
)
def test_missing_bonuses_and_missing_tokens_are_errors(bonuses, episodes, n_tokens):
    with pytest.raises(ValueError, match="expected one an episode, and one more for a stop that has a token"):
        token_advantages(0.0, a(*bonuses), episodes, n_tokens, weight=1.0)


# -- a baseline from the trace's own past -----------------------------------------------------------------------------


def test_a_baseline_from_the_trace_itself_by_hand():
    first, second = np.array([0.4, 0.1, 0.0]), np.array([0.2, 0.0])
    ours, theirs = centred_by_past([first, second])
    # boundary 0: the other's 0.2. 1: w = 1/2, own 0.4, other 0.0. 2: w = 1, own (0.4 + 2 * 0.1) / 3
    assert ours == pytest.approx([0.4 - 0.2, 0.1 - 0.2, 0.0 - 0.2])
    # S = 3: boundary 1: w = 1/3, own 0.2, other 0.1
    assert theirs == pytest.approx([0.2 - 0.4, 0.0 - (0.2 / 3 + 0.2 / 3)])


def test_an_unknown_past_leaves_the_others():
    nan = np.nan
    ours, _ = centred_by_past([np.array([nan, 0.5, 0.0]), np.array([0.2, 0.1])])
    assert np.isnan(ours[0])
    assert ours[1] == pytest.approx(0.5 - 0.1)  # nothing of its own is known yet
    assert ours[2] == pytest.approx(0.0 - 0.5)
    assert centred_by_past([]) == []
    assert centred_by_past([np.array([0.3])])[0].tolist() == [0.3]


# -- the watermark ----------------------------------------------------------------------------------------------------


def test_only_new_maxima_rise_above_the_watermark():
    values = np.array([0.2, 0.5, 0.1, 0.5, np.nan, 0.75])
    assert np.array_equal(watermark(values), [0.2, 0.5, 0.5, 0.5, np.nan, 0.75], equal_nan=True)
    # going back and forth earns nothing, and what is earned is the best less the first
    assert progress(watermark(np.array([0.2, 0.5, 0.1, 0.5]))).tolist() == [0.3, 0.0, 0.0]
    assert watermark(np.empty(0)).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_a_watermark_pays_the_best_less_the_first_and_never_takes(values):
    gains = progress(watermark(np.array(values)))
    assert (gains >= 0).all()
    assert gains.sum() == pytest.approx(max(values) - values[0])
