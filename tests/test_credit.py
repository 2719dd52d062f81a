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
    return Group(rewards, list(values), episodes, [stopped] * G, costs, [2 * len(v) + 2 for v in values], 4.0, 0.5)


def alone(credit, values, *, stopped):
    """The bonuses of a trace without others, whose baseline is 0: within each episode, and at its end."""
    [bonuses] = SCHEMES[credit].bonuses(group_of(values, stopped=stopped))
    return bonuses


def stale(reward, value):
    [[[within], [end]]] = SCHEMES["stale_prefix"].bonuses(group_of(a(value), rewards=[reward]))
    assert within == end
    return within


def normalized(rewards, eps=1e-4):
    """The outcome advantages of a group as TRL has them by default."""
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + eps)


def test_bonuses_by_hand():
    values = a(0.25, 0.5, 0.25, 1.0)  # progress 0.25, -0.25, 0.75; costs 0, 1, 2, 3 of 4
    for stopped in (True, False):
        # the token that opens the next episode has its progress too; a stop opens none
        assert alone("episode", values, stopped=stopped).tolist() == [[0.25, -0.25, 0.75], [0.0, 0.5, 0.75]]
        assert alone("mig", values, stopped=stopped).tolist() == [[0.25, 0.0, 0.5], [0.25, 0.5, 0.5]]
        assert alone("to_go", values, stopped=stopped).tolist() == [[0.75, 0.5, 0.75]] * 2
        # lambda = 1/2: 0.75; -0.25 + 0.375; 0.25 + 0.0625. At the end half of the next one's more
        assert alone("lambda", values, stopped=stopped).tolist() == [[0.3125, 0.125, 0.75], [0.375, 0.5, 0.75]]
        # a quarter of the budget is left after the third, a half after the second, three quarters after the first
        assert alone("regret", values, stopped=stopped).tolist() == [[0.25, 0.0625, 0.1875]] * 2
        assert alone("grpo", values, stopped=stopped).tolist() == [[0.0] * 3] * 2
    assert stale(1.0, 0.25) == 0.75


def test_a_thought_that_stops_at_once_makes_one_choice():
    for credit in ("episode", "to_go", "mig", "brpo", "grpo", "lambda", "regret"):
        assert alone(credit, a(0.5), stopped=True).tolist() == [[0.0], [0.0]]
        assert alone(credit, a(0.5), stopped=False).tolist() == [[], []]


def test_the_group_baseline_is_for_the_episode_under_way():
    group = group_of(a(0.1, 0.5, 0.3, 0.9), a(0.2, 0.1))
    ours, theirs = SCHEMES["episode"].bonuses(group)
    # progress 0.4, -0.2, 0.6 against -0.1: the other's where there is one, else the mean of all of its bonuses
    assert ours == pytest.approx(np.array([[0.5, -0.1, 0.7], [0.3, 0.5, 0.7]]))
    assert theirs == pytest.approx(np.array([[-0.5], [-0.5]]))
    ours, theirs = SCHEMES["to_go"].bonuses(group)
    assert ours == pytest.approx(np.array([[0.9, 0.5, 0.7]] * 2))
    assert theirs == pytest.approx(np.array([[-0.9]] * 2))
    for within, end in SCHEMES["brpo"].bonuses(group):
        assert end[-1] == within[-1]


def test_regret_passes_over_what_is_unknown():
    nan = np.nan
    known = alone("regret", a(0.25, 0.5, 1.0), stopped=True)
    assert known[0].tolist() == [0.25 * 0.75 + 0.5 * 0.5, 0.5 * 0.5]
    group = group_of(a(0.25, nan, 1.0))
    [bonuses] = SCHEMES["regret"].bonuses(group)
    assert bonuses[0][0] == 0.75 * 0.5 and np.isnan(bonuses[0][1])
    [bonuses] = SCHEMES["regret"].bonuses(group._replace(values=[a(nan, nan, nan)]))
    assert np.isnan(bonuses).all()


@pytest.mark.parametrize("budget", [0.0, -1.0, np.nan])
def test_regret_needs_a_budget(budget):
    with pytest.raises(ValueError, match="budget above 0 tokens"):
        SCHEMES["regret"].bonuses(group_of(a(0.1, 0.2))._replace(budget=budget))


@pytest.mark.parametrize("decay", [-0.1, 1.1, np.nan])
def test_lambda_is_a_share(decay):
    with pytest.raises(ValueError, match="from 0 to 1"):
        SCHEMES["lambda"].bonuses(group_of(a(0.1, 0.2))._replace(decay=decay))


EACH_SCHEME = pytest.mark.parametrize("credit", SCHEMES)
VALUES = st.lists(st.floats(0, 1) | st.just(np.nan), min_size=1, max_size=5).map(lambda v: a(*v))


@EACH_SCHEME
@given(values=st.lists(VALUES, min_size=1, max_size=4), stopped=st.booleans())
def test_every_scheme_pays_every_episode(credit, values, stopped):
    group = group_of(*values, rewards=np.linspace(0, 1, len(values)), stopped=stopped)
    choices = [max(len(v) - 1, int(stopped)) for v in values]
    bonuses = SCHEMES[credit].bonuses(group)
    expected = [1] * len(values) if SCHEMES[credit].pays == "completion" else choices
    assert [b.shape for b in bonuses] == [(2, n) for n in expected]
    if not any(np.isnan(v).any() for v in values):
        assert not any(np.isnan(b).any() for b in bonuses)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.booleans())
def test_to_go_is_the_sum_of_the_progress_to_come(values, stopped):
    made = progress(a(*values))
    expected = [made[j:].sum() for j in range(len(made))] or [0.0] * stopped
    assert alone("to_go", a(*values), stopped=stopped) == pytest.approx(np.array([expected] * 2))


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.data())
def test_finer_cuts_keep_the_total(values, data):
    kept = data.draw(st.lists(st.sampled_from(range(1, len(values) - 1)), unique=True).map(sorted))
    coarse = a(*values)[[0, *kept, len(values) - 1]]
    fine_total = alone("episode", a(*values), stopped=True)[0].sum()
    assert alone("episode", coarse, stopped=True)[0].sum() == pytest.approx(fine_total)
    assert alone("to_go", coarse, stopped=True)[0, 0] == pytest.approx(fine_total)


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
        token_advantages(o, both(stale(r, value)), [Episode(0, 2)], 2, weight=weight)[0]
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


def both(*bonuses):
    """The same bonuses within each episode and at its end."""
    return np.stack([a(*bonuses), a(*bonuses)])


def test_tokens_are_paid_for_the_episode_under_way():
    # two episodes, the token that closes the thinking, and two tokens of answer
    within, end = a(0.5, -0.25), a(0.75, -1.0)
    got = token_advantages(1.0, np.stack([within, end]), EPISODES, 8, weight=2.0)
    assert got.tolist() == [2.0, 2.0, 2.0, 2.5, 0.5, -1.0, 1.0, 1.0]


def test_a_thought_that_did_not_stop_has_no_token_that_ends_it():
    got = token_advantages(1.0, both(0.5, -0.25), EPISODES, 5, weight=2.0)
    assert got.tolist() == [2.0, 2.0, 2.0, 2.0, 0.5]


def test_a_trace_that_stops_at_once_pays_with_its_first_token():
    assert token_advantages(0.5, both(-1.0), [], 3, weight=1.0).tolist() == [-0.5, 0.5, 0.5]
    assert token_advantages(0.5, both(), [], 2, weight=1.0).tolist() == [0.5, 0.5]


def test_one_bonus_for_a_whole_completion_is_one_episode():
    assert token_advantages(1.0, both(0.5), [Episode(0, 4)], 4, weight=2.0).tolist() == [2.0] * 4


@given(st.floats(-5, 5), st.lists(st.floats(-1, 1) | st.just(np.nan), min_size=2, max_size=2))
def test_no_weight_is_the_outcome_bit_for_bit(outcome, bonuses):
    got = token_advantages(outcome, both(*bonuses), EPISODES, 8, weight=0.0)
    assert got.tobytes() == np.full(8, outcome).tobytes()


def test_an_unknown_bonus_adds_nothing():
    got = token_advantages(1.0, both(np.nan, 0.5), EPISODES, 7, weight=1.0)
    assert got.tolist() == [1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 1.0]


@pytest.mark.parametrize("length", [1, 4, 8])
def test_every_token_of_an_episode_has_its_whole_bonus(length):
    got = token_advantages(0.0, both(0.5), [Episode(0, length)], 9, weight=1.0)
    assert got.tolist() == [0.5] * (length + 1) + [0.0] * (8 - length)


@pytest.mark.parametrize(
    ("bonuses", "episodes", "n_tokens"),
    [([0.1], EPISODES, 8), ([0.1] * 3, EPISODES, 8), ([0.1] * 2, EPISODES, 4), ([0.1] * 2, [], 5), ([0.1], [], 0)],
)
def test_missing_bonuses_and_missing_tokens_are_errors(bonuses, episodes, n_tokens):
    with pytest.raises(ValueError, match="expected one an episode, or one for a thought that stopped at once"):
        token_advantages(0.0, both(*bonuses), episodes, n_tokens, weight=1.0)


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
