"""The expected update of each scheme is the gradient of its objective, by enumeration of a policy over tokens.

A thought is a string over x and f (content) and W (which opens an episode, unless it is the first token); S ends it.
At the greatest depth the policy can only stop, or its budget cuts it before it could (`cut`). Values are arbitrary
numbers, one for each prefix, and the outcome of a trace is correct with the value of its thought. The policy is a
table of logits, so its gradient is exact.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from headway.core.regret import normalized_regret
from headway.core.segment import boundaries, spaced
from headway.credit import SCHEMES, Group, centred, token_advantages
from headway.credit.brpo import centred_by_past
from headway.credit.common import throughout
from headway.credit.mig import watermark
from headway.types import Episode

LAMBDA, BUDGET = 0.6, 5.5
SUFFIX = 1.0  # tokens that force an answer


class Policy:
    """A policy over the tokens of `content`, `openers` and S, with a value for each prefix."""

    def __init__(self, depth=3, *, content="xf", openers="W", cut=False, least=0.0, seed=0):
        rng = np.random.default_rng(seed)
        self.depth, self.cut, self.openers, self.least = depth, cut, openers, least
        self.tokens = content + openers
        self.prefixes = ["".join(p) for n in range(depth + 1) for p in itertools.product(self.tokens, repeat=n)]
        self.V = dict(zip(self.prefixes, rng.random(len(self.prefixes)), strict=True))
        logits = torch.tensor(rng.normal(size=(len(self.prefixes), len(self.tokens) + 1)))
        deepest = torch.tensor([len(p) == depth for p in self.prefixes])
        logits[deepest, :-1] = -torch.inf
        self.logits = logits.requires_grad_()
        self.log_pi = dict(zip(self.prefixes, torch.log_softmax(self.logits, dim=1), strict=True))

    def traces(self, start=""):
        return [p for p in self.prefixes if p.startswith(start)]

    def stopped(self, trace):
        return not (self.cut and len(trace) == self.depth)

    def log_choices(self, trace, start=""):
        """The log-probability of each token of a trace after a prefix, S last."""
        log = [self.log_pi[trace[:t]][self.tokens.index(trace[t])] for t in range(len(start), len(trace))]
        return torch.stack([*log, self.log_pi[trace][-1]])[: len(log) + self.stopped(trace)]

    def probability(self, trace, start=""):
        return self.log_choices(trace, start).sum().exp()

    def reach(self, prefix):
        """The probability that a trace begins with this prefix, a number."""
        steps = (self.log_pi[prefix[:t]][self.tokens.index(prefix[t])].item() for t in range(len(prefix)))
        return math.exp(sum(steps))

    def episodes(self, trace):
        opened = [t for t, token in enumerate(trace) if t and token in self.openers]
        edges = [0, *opened, len(trace)] if trace else []
        return spaced([Episode(a, b) for a, b in itertools.pairwise(edges)], least=self.least)

    def values(self, trace):
        return np.array([self.V[trace[:b]] for b in boundaries(self.episodes(trace))])

    def costs(self, trace):
        return np.array([b + SUFFIX for b in boundaries(self.episodes(trace))])

    def gradient(self, objective):
        (gradient,) = torch.autograd.grad(objective, self.logits, retain_graph=True)
        return gradient[torch.tensor([len(p) < self.depth for p in self.prefixes])].numpy()

    def expected_update(self, credits, start=""):
        """The sum over (probability, trace, advantage of each token) of probability * sum_t A_t grad log pi(token)."""
        total = {}
        for probability, trace, credit in credits:
            total[trace] = total.get(trace, 0.0) + probability * credit
        return self.gradient(
            sum((torch.tensor(a) * self.log_choices(t, start)).sum() for t, a in total.items() if len(a))
        )

    def groups(self, size, start=""):
        """All ordered groups of traces, each with its probability."""
        chances = {trace: self.probability(trace, start).item() for trace in self.traces(start)}
        for group in itertools.product(chances, repeat=size):
            yield math.prod(chances[t] for t in group), group

    def group_of(self, traces, values=None, rewards=None):
        return Group(
            np.zeros(len(traces)) if rewards is None else np.array(rewards, dtype=float),
            [self.values(t) for t in traces] if values is None else values,
            [self.episodes(t) for t in traces],
            [self.stopped(t) for t in traces],
            [self.costs(t) for t in traces],
            [len(t) + self.stopped(t) for t in traces],
            BUDGET,
            LAMBDA,
        )

    def advantages(self, trace, bonuses, outcome=0.0, weight=1.0):
        n = len(trace) + self.stopped(trace)
        return token_advantages(outcome, bonuses, self.episodes(trace), n, weight=weight)

    def credits(self, credit, size):
        """Each trace of each group with its advantages; a trace weighs 1 / size."""
        for probability, group in self.groups(size):
            bonuses = SCHEMES[credit].bonuses(self.group_of(group))
            for trace, b in zip(group, bonuses, strict=True):
                yield probability / size, trace, self.advantages(trace, b)

    # -- objectives ---------------------------------------------------------------------------------------------------

    def expected(self, worth, start=""):
        return sum(self.probability(t, start) * worth(t) for t in self.traces(start))

    def one_token(self, worth):
        """The sum over prefixes of the old policy of the expected worth of the new policy's next token.

        worth(trace, t) is a number; what follows token t is from the old policy.
        """
        total = torch.tensor(0.0, dtype=torch.float64)
        for trace in self.traces():
            chance = self.probability(trace).item()
            for t, log in enumerate(self.log_choices(trace)):
                # pi_old(rest) * pi(token) / pi_old(token): its gradient is that of the token alone
                total = total + chance * (log - log.detach()).exp() * worth(trace, t)
        return total

    def discounted(self, trace, t, decay, value=None):
        """What token t is paid for: the episode under way before it, and discounted progress from its own on."""
        cuts = boundaries(self.episodes(trace))[1:-1]
        values = self.values(trace) if value is None else value(trace)
        before = sum(cut < t for cut in cuts)
        own = before + (t in cuts)
        return sum(decay ** max(i - own, 0) * (values[i + 1] - values[i]) for i in range(before, len(values) - 1))

    def objective(self, credit):
        return {
            "episode": lambda: self.one_token(lambda z, t: self.discounted(z, t, 0.0)),
            "brpo": lambda: self.one_token(lambda z, t: self.discounted(z, t, 0.0)),
            "mig": lambda: self.one_token(
                lambda z, t: self.discounted(z, t, 0.0, lambda trace: watermark(self.values(trace)))
            ),
            "lambda": lambda: self.one_token(lambda z, t: self.discounted(z, t, LAMBDA)),
            "to_go": lambda: self.expected(lambda z: self.V[z]),
            "regret": lambda: (
                -self.expected(lambda z: normalized_regret(self.costs(z), self.values(z), np.array([BUDGET]))[0])
            ),
        }[credit]()


SCHEMES_OF_EPISODES = ["episode", "brpo", "mig", "lambda", "to_go", "regret"]
EACH = pytest.mark.parametrize("credit", SCHEMES_OF_EPISODES)
POLICIES = pytest.mark.parametrize(
    "options",
    [{}, {"cut": True}, {"least": 2.0}, {"cut": True, "least": 2.0}],
    ids=["all stop", "cut at the budget", "spaced cuts", "spaced cuts, cut at the budget"],
)


def error(update, exact):
    """The relative error of an update."""
    return float(np.linalg.norm(update - exact) / np.linalg.norm(exact))


def test_every_scheme_that_pays_episodes_has_its_theorem():
    assert set(SCHEMES_OF_EPISODES) == {name for name, scheme in SCHEMES.items() if scheme.pays == "episodes"}


@POLICIES
def test_the_traces_are_all_there_are(options):
    policy = Policy(**options)
    assert sum(policy.probability(t).item() for t in policy.traces()) == pytest.approx(1, abs=1e-12)
    assert sum(policy.probability(t, "W").item() for t in policy.traces("W")) == pytest.approx(1, abs=1e-12)


@POLICIES
@EACH
@pytest.mark.parametrize(
    ("depth", "content", "size"),
    [(4, "xf", 1), (2, "xf", 2), (4, "x", 2), (2, "x", 3)],
    ids=["no baseline", "pairs", "long pairs", "triples"],
)
def test_the_expected_update_is_the_gradient_of_the_objective(credit, options, depth, content, size):
    """Without a baseline (a trace alone in its group) and with the one of its group, `dr_grpo` with weight 1."""
    policy = Policy(depth, content=content, **options)
    exact = policy.gradient(policy.objective(credit))
    assert np.abs(exact).max() > 1e-3
    assert policy.expected_update(policy.credits(credit, size)) == pytest.approx(exact, abs=1e-12)


def test_lambda_goes_from_the_greedy_bonus_to_the_value_at_the_end():
    policy = Policy()
    group = policy.group_of(["xWf", "Wf", ""])
    for decay, other in ((0.0, "episode"), (1.0, "to_go")):
        got = SCHEMES["lambda"].bonuses(group._replace(decay=decay))
        for a, b in zip(got, SCHEMES[other].bonuses(group), strict=True):
            assert a == pytest.approx(b, abs=1e-12)


def test_regret_of_an_endless_budget_is_the_progress_to_go():
    policy = Policy()
    group = policy.group_of(["xWf", "Wf", ""])
    endless = SCHEMES["regret"].bonuses(group._replace(budget=1e9))
    for a, b in zip(endless, SCHEMES["to_go"].bonuses(group), strict=True):
        assert a == pytest.approx(b, abs=1e-7)


@pytest.mark.parametrize("cut", [False, True])
def test_where_whole_episodes_are_chosen_the_bonus_is_the_papers(cut):
    """l_MRT's bonus: the sum over contexts of the old policy of the expected progress of the new policy's episode."""
    policy = Policy(content="", openers="ab", cut=cut)
    exact = policy.gradient(
        policy.one_token(lambda z, t: policy.V[z[: t + 1]] - policy.V[z[:t]] if t < len(z) else 0.0)
    )
    assert policy.expected_update(policy.credits("episode", 2)) == pytest.approx(exact, abs=1e-12)


def test_the_objectives_differ():
    policy = Policy()
    gradients = [
        policy.gradient(policy.objective(credit)) for credit in ("episode", "lambda", "to_go", "regret", "mig")
    ]
    for a, b in itertools.combinations(gradients, 2):
        assert error(a, b) > 1e-2


# -- what would break it ----------------------------------------------------------------------------------------------


def by_own_episode(policy, trace, bonuses):
    """Each token paid for the episode that it belongs to, a stop for none."""
    credit = np.zeros(len(trace) + policy.stopped(trace))
    for (start, stop), bonus in zip(policy.episodes(trace), bonuses, strict=False):
        credit[start:stop] = bonus
    credit[len(trace) :] = bonuses[len(policy.episodes(trace)) :]
    return credit


def test_a_token_that_ends_an_episode_belongs_to_it():
    """Whether an episode ends is the choice of the token after it: paid for the next one, it learns something else."""
    policy = Policy()

    def credits():
        for probability, group in policy.groups(2):
            bonuses = centred([np.append(policy.values(t)[-1] - policy.values(t)[:-1], 0.0) for t in group])
            for trace, b in zip(group, bonuses, strict=True):
                yield probability / 2, trace, by_own_episode(policy, trace, b)

    assert error(policy.expected_update(credits()), policy.gradient(policy.objective("to_go"))) > 0.2


def test_after_the_answer_is_found_nothing_is_left_to_choose():
    """V is 0.1 before an f is written and 1 after: then all tokens are equally good, and get no update."""
    policy = Policy()
    policy.V = {p: 1.0 if "f" in p else 0.1 for p in policy.prefixes}
    found = [p for p in policy.prefixes if "f" in p and len(p) < policy.depth]
    rows = [i for i, p in enumerate(q for q in policy.prefixes if len(q) < policy.depth) if p in found]
    update = policy.expected_update(policy.credits("to_go", 2))
    assert update[rows] == pytest.approx(np.zeros_like(update[rows]), abs=1e-12)
    assert np.abs(np.delete(update, rows, axis=0)).max() > 1e-3


def test_cuts_that_later_episodes_move_change_the_gradient():
    """Merging down to two episodes by their number moves the boundary of early tokens when the trace goes on."""
    policy = Policy(content="", openers="ab")

    def merged(trace):
        run = max(1, math.ceil(len(trace) / 2))
        return [Episode(a, min(a + run, len(trace))) for a in range(0, len(trace), run)]

    exact = policy.gradient(policy.objective("to_go"))
    assert error(policy.expected_update(policy.credits("to_go", 2)), exact) < 1e-12
    policy.episodes = merged
    assert error(policy.expected_update(policy.credits("to_go", 2)), exact) > 0.1


def test_a_stop_that_pays_no_baseline_is_a_price_on_length():
    """Leaving the token that ends a thought out of the centring changes the gradient."""
    policy = Policy()

    def credits():
        for probability, group in policy.groups(2):
            own = SCHEMES["to_go"].bonuses(policy.group_of(group))
            for trace, b in zip(group, own, strict=True):
                credit = policy.advantages(trace, b)
                yield probability / 2, trace, np.append(credit[: len(trace)], np.zeros(len(credit) - len(trace)))

    assert error(policy.expected_update(credits()), policy.gradient(policy.objective("to_go"))) > 0.1


def test_a_fee_for_all_tokens_of_an_episode_changes_nothing():
    policy = Policy()

    def paid(trace):
        return policy.advantages(trace, np.full((2, max(1, len(policy.episodes(trace)))), -0.3))

    update = policy.expected_update((policy.probability(t).item(), t, paid(t)) for t in policy.traces())
    assert update == pytest.approx(np.zeros_like(update), abs=1e-12)


def test_a_past_that_tells_of_the_end_would_change_the_gradient():
    """Why BRPO's baseline is for the progress of episodes alone."""
    policy = Policy(4, content="x")

    def credits():
        for probability, group in policy.groups(2):
            own = [(v[-1] - v)[: max(1, len(v) - 1)] for v in map(policy.values, group)]
            for trace, b in zip(group, throughout(centred_by_past(own)), strict=True):
                yield probability / 2, trace, policy.advantages(trace, b)

    assert error(policy.expected_update(credits()), policy.gradient(policy.objective("to_go"))) > 1e-3


# -- outcome, noise, normalization ------------------------------------------------------------------------------------


def outcomes(policy, group):
    """All outcomes of a group's traces, each with its probability."""
    for rewards in itertools.product([0.0, 1.0], repeat=len(group)):
        chances = [policy.V[t] if r else 1 - policy.V[t] for t, r in zip(group, rewards, strict=True)]
        yield math.prod(chances), np.array(rewards)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("start", ["", "W"])
def test_a_stale_prefix_has_the_gradient_of_the_outcome_from_it(start, cut):
    policy = Policy(cut=cut)
    exact = policy.gradient(policy.expected(lambda t: policy.V[t], start))

    def credits():
        for probability, group in policy.groups(1, start):
            for p, rewards in outcomes(policy, group):
                prefix = policy.group_of(group, [np.array([policy.V[start]])], rewards)
                [bonuses] = SCHEMES["stale_prefix"].bonuses(prefix)
                n = len(group[0]) - len(start) + policy.stopped(group[0])
                yield (
                    probability * p,
                    group[0],
                    token_advantages(0.0, bonuses, [Episode(0, n)] * (n > 0), n, weight=1.0),
                )

    assert policy.expected_update(credits(), start) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_a_mixed_group_has_the_gradient_of_both_ways_to_go_on(size):
    """A group whose first half continues the prefix x, and whose second half goes on from xW, here the forced answer.

    Outcome and bonus: r' = r + weight (r - mean(direct r)) for the first half, minus its mean over the group.
    """
    policy, weight = Policy(2, content="x", seed=3), 0.7
    free, forced = "x", "xW"
    half, G = size // 2, size
    kept = {start: policy.expected(lambda t: policy.V[t], start) for start in (free, forced)}
    exact = policy.gradient(((1 + weight) * (1 - 1 / G) * kept[free] + (1 - (1 - weight) / G) * kept[forced]) / 2)

    def credits(start):
        for p_free, some in policy.groups(half, free):
            for p_forced, others in policy.groups(half, forced):
                group = (*some, *others)
                for p, rewards in outcomes(policy, group):
                    bonuses = SCHEMES["mixed_prefix"].bonuses(policy.group_of(group, rewards=rewards))
                    advantages = rewards - rewards.mean()
                    mine = slice(0, half) if start == free else slice(half, G)
                    for trace, a, b in zip(group[mine], advantages[mine], bonuses[mine], strict=True):
                        n = len(trace) - len(start) + policy.stopped(trace)
                        credit = token_advantages(float(a), b, [Episode(0, n)], n, weight=weight)
                        yield p_free * p_forced * p / G, trace, credit

    update = policy.expected_update(credits(free), free) + policy.expected_update(credits(forced), forced)
    assert update == pytest.approx(exact, abs=1e-12)


@EACH
def test_outcome_and_bonus_together_have_the_gradient_of_their_sum(credit):
    """The outcome's group mean holds the trace itself, which leaves (G - 1) / G of its gradient."""
    policy, G, weight = Policy(2), 2, 0.7

    def credits():
        for probability, group in policy.groups(G):
            bonuses = SCHEMES[credit].bonuses(policy.group_of(group))
            for p, rewards in outcomes(policy, group):
                for trace, outcome, b in zip(group, rewards - rewards.mean(), bonuses, strict=True):
                    yield probability * p / G, trace, policy.advantages(trace, b, float(outcome), weight)

    exact = (G - 1) / G * policy.gradient(policy.objective("to_go")) + weight * policy.gradient(
        policy.objective(credit)
    )
    assert policy.expected_update(credits()) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("credit", ["episode", "brpo", "lambda", "to_go", "regret"])
def test_noise_in_the_values_leaves_the_gradient_as_it_is(credit):
    policy = Policy(2, content="x")

    def credits():
        for probability, group in policy.groups(2):
            noisy = [
                [policy.values(t) + np.array(s) for s in itertools.product([-0.2, 0.2], repeat=len(policy.values(t)))]
                for t in group
            ]
            pairs = list(itertools.product(*noisy))
            for values in pairs:
                bonuses = SCHEMES[credit].bonuses(policy.group_of(group, list(values)))
                for trace, b in zip(group, bonuses, strict=True):
                    yield probability / 2 / len(pairs), trace, policy.advantages(trace, b)

    assert policy.expected_update(credits()) == pytest.approx(policy.gradient(policy.objective(credit)), abs=1e-12)


def test_dapo_divides_by_a_random_number_of_tokens():
    """One group of two a batch, the worst case: the update is off by a tenth, and its direction by less than 0.99."""
    policy = Policy()
    exact = policy.gradient(policy.objective("to_go"))

    def divided(by):
        for probability, group in policy.groups(2):
            bonuses = SCHEMES["to_go"].bonuses(policy.group_of(group))
            for trace, b in zip(group, bonuses, strict=True):
                yield probability / by(group, trace), trace, policy.advantages(trace, b)

    def cosine(by):
        update = policy.expected_update(divided(by))
        return float((update * exact).sum() / np.linalg.norm(update) / np.linalg.norm(exact))

    def length(trace):
        return len(trace) + policy.stopped(trace)

    dapo, grpo = cosine(lambda group, _: sum(map(length, group))), cosine(lambda _, trace: 2 * length(trace))
    assert 0.97 < dapo < 1 - 1e-6
    assert grpo < dapo
    assert (dapo, grpo) == pytest.approx((0.988, 0.940), abs=1e-3)  # docs/concepts.md
