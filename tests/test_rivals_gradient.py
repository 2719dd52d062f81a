"""The expected update of each rival is the gradient of its objective, by enumeration over tokens."""

import itertools

import numpy as np
import pytest

from headway.credit import SCHEMES, token_advantages
from headway.credit.s_grpo import exit_rewards
from headway.procedures.continued import through_openers
from headway.training.step import RANGES
from test_gradient_theorem import POLICIES, Policy, error, outcomes


def by_range(policy, credit, trace, bonuses):
    n = len(trace) + policy.stopped(trace)
    return token_advantages(0.0, bonuses, RANGES[SCHEMES[credit].pays](policy.episodes(trace), n), n, weight=1.0)


def credits(policy, credit, size, values=None):
    """Each trace of each group and each of its outcomes with its advantages; a trace weighs 1 / size."""
    for probability, group in policy.groups(size):
        for p, rewards in outcomes(policy, group):
            given = None if values is None else [values(t) for t in group]
            bonuses = SCHEMES[credit].bonuses(policy.group_of(group, given, rewards))
            for trace, b in zip(group, bonuses, strict=True):
                yield probability * p / size, trace, by_range(policy, credit, trace, b)


def own_values(policy):
    """The policy's own probability of success at each boundary of a trace."""
    means = {p: policy.expected(lambda z: policy.V[z], p).item() for p in policy.prefixes}

    def values(trace):
        cuts = list(itertools.accumulate((len(range(*e)) for e in policy.episodes(trace)), initial=0))
        return np.array([means[trace[:c]] for c in cuts])

    return values


def by_opener(policy):
    """The policy, its episodes cut after the token that opens the next."""
    cut = policy.episodes
    policy.episodes = lambda trace: through_openers(cut(trace), len(trace) + policy.stopped(trace))
    return policy


@POLICIES
@pytest.mark.parametrize("content", ["xf", "x"])
def test_vineppo_has_the_gradient_of_the_outcome(options, content):
    policy = by_opener(Policy(3, content=content, **options))
    exact = policy.gradient(policy.expected(lambda z: policy.V[z]))
    update = policy.expected_update(credits(policy, "vineppo", 1, own_values(policy)))
    assert update == pytest.approx(exact, abs=1e-12)


def test_a_cut_before_the_token_that_decides_it_biases_the_gradient():
    policy = Policy(3)
    exact = policy.gradient(policy.expected(lambda z: policy.V[z]))
    assert error(policy.expected_update(credits(policy, "vineppo", 1, own_values(policy))), exact) > 0.05


def test_forced_answers_are_not_the_policys_own_values():
    """The same episodes with a meta-prover's values have another gradient."""
    policy = by_opener(Policy(3))
    exact = policy.gradient(policy.expected(lambda z: policy.V[z]))
    assert error(policy.expected_update(credits(policy, "vineppo", 1, policy.values)), exact) > 0.05


def in_a_group(policy, worth):
    """The expected worth of a trace of the new policy in a pair with one of the old."""
    return sum(
        policy.probability(z) * policy.probability(other).item() * p * worth([z, other], rewards)
        for z, other in itertools.product(policy.traces(), repeat=2)
        for p, rewards in outcomes(policy, [z, other])
    )


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("credit", ["length_penalty", "dler"])
def test_a_bonus_of_the_completion_has_the_gradient_of_a_new_trace_among_old_ones(credit, cut):
    policy = Policy(2, content="x", cut=cut)

    def worth(group, rewards):
        return SCHEMES[credit].bonuses(policy.group_of(group, rewards=rewards))[0][0, 0]

    exact = policy.gradient(in_a_group(policy, worth))
    assert np.abs(exact).max() > 1e-3
    assert policy.expected_update(credits(policy, credit, 2)) == pytest.approx(exact, abs=1e-12)


def test_a_serial_group_is_a_mean_over_its_answers():
    """With the values as probabilities of a correct answer, each exit's reward is that of the paper on average."""
    values = np.array([0.2, 0.7, 0.0, 0.5, 1.0])
    mean = np.zeros(5)
    for correct in itertools.product([0, 1], repeat=5):
        c = np.array(correct, dtype=float)
        before = np.cumsum(c) - c
        mean += np.prod(np.where(c > 0, values, 1 - values)) * c / 2**before
    assert exit_rewards(values) == pytest.approx(mean)
