"""The expected gradient of each form of credit is the gradient of its objective, by enumeration of a small policy.

A prefix is the string of episodes chosen so far, each a or b. At a prefix the policy chooses a, b or to stop; at the
greatest depth it can only stop, or its budget cuts it before it could (`cut`). Values are arbitrary numbers, and the
outcome of a trace is right with the value of its last prefix. The policy is a table of logits.
"""

import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch

from headway.credit import SCHEMES, Group, centred, token_advantages
from headway.credit.brpo import centred_by_past
from headway.credit.mig import watermark
from headway.types import Episode

A, B, STOP = range(3)
FORMS = ["episode", "to_go"]


def group_of(values, stopped, rewards):
    """The group of traces with these values; their episodes are a token long."""
    episodes = [[Episode(j, j + 1) for j in range(len(v) - 1)] for v in values]
    costs = [np.arange(len(v), dtype=float) for v in values]
    return Group(np.array(rewards, dtype=float), list(values), episodes, stopped, costs, [len(v) for v in values])


def alone(form, values, *, stopped):
    """The bonuses of a trace without others, whose baseline is 0."""
    [bonuses] = SCHEMES[form].bonuses(group_of([values], [stopped], [0.0]))
    return bonuses


def stale(reward, value):
    [[bonus]] = SCHEMES["stale_prefix"].bonuses(group_of([np.array([value])], [True], [reward]))
    return bonus


class Tree:
    """A policy over all prefixes to a depth, with a value for each."""

    def __init__(self, depth, *, cut=False, seed=0):
        rng = np.random.default_rng(seed)
        self.depth, self.cut = depth, cut
        self.prefixes = ["".join(p) for n in range(depth + 1) for p in itertools.product("ab", repeat=n)]
        self.V = dict(zip(self.prefixes, rng.random(len(self.prefixes)), strict=True))
        logits = torch.tensor(rng.normal(size=(len(self.prefixes), 3)))
        deepest = torch.tensor([len(p) == depth for p in self.prefixes])
        logits[deepest, :2] = -torch.inf
        self.logits = logits.requires_grad_()
        self.log_pi = dict(zip(self.prefixes, torch.log_softmax(self.logits, dim=1), strict=True))

    def stopped(self, trace):
        return not (self.cut and len(trace) == self.depth)

    def log_choices(self, trace, start=""):
        """The log probability of each choice of a trace from a prefix on, the stop last."""
        log = [self.log_pi[trace[:j]]["ab".index(trace[j])] for j in range(len(start), len(trace))]
        return torch.stack([*log, self.log_pi[trace][STOP]])[: len(log) + self.stopped(trace)]

    def log_chance(self, trace, start=""):
        return self.log_choices(trace, start).sum()

    def chance(self, trace, start=""):
        return self.log_chance(trace, start).exp().item()

    def traces(self, start=""):
        return [p for p in self.prefixes if p.startswith(start)]

    def values(self, trace):
        return np.array([self.V[trace[:j]] for j in range(len(trace) + 1)])

    def gradient(self, objective):
        (gradient,) = torch.autograd.grad(objective, self.logits, retain_graph=True)
        return gradient[torch.tensor([len(p) < self.depth for p in self.prefixes])].numpy()

    def expected_update(self, credits, start=""):
        """sum over (chance, trace, credit of each choice) of chance * sum_k credit_k grad log pi(choice k)."""
        total = defaultdict(float)
        for chance, trace, credit in credits:
            total[trace] = total[trace] + chance * credit
        return self.gradient(
            sum(
                (torch.tensor(credit) * self.log_choices(trace, start)).sum()
                for trace, credit in total.items()
                if len(credit)
            )
        )

    def groups(self, size, start=""):
        """All ordered groups of traces, each with its chance."""
        chances = {trace: self.chance(trace, start) for trace in self.traces(start)}
        for group in itertools.product(chances, repeat=size):
            yield float(np.prod([chances[t] for t in group])), group

    def greedy_objective(self, worth):
        """E over prefixes of the old policy of the expected worth of the new policy's next choice."""
        return sum(
            self.log_chance_of_prefix(c).exp().detach() * self.log_pi[c][choice].exp() * worth(c, z)
            for c in self.prefixes
            if len(c) < self.depth
            for choice, z in ((A, c + "a"), (B, c + "b"))
        )

    def log_chance_of_prefix(self, prefix):
        return sum((self.log_pi[prefix[:j]]["ab".index(prefix[j])] for j in range(len(prefix))), torch.tensor(0.0))

    def objective(self, form):
        if form == "episode":
            return self.greedy_objective(lambda c, z: self.V[z] - self.V[c])
        return sum(self.log_chance(t).exp() * self.V[t] for t in self.traces())

    def bonuses(self, form, trace):
        return alone(form, self.values(trace), stopped=self.stopped(trace))

    def group_bonuses(self, form, group):
        """The bonuses of a group as training has them."""
        values, stopped = [self.values(t) for t in group], [self.stopped(t) for t in group]
        return SCHEMES[form].bonuses(group_of(values, stopped, [0.0] * len(group)))


def centred_credits(tree, form, size, after=lambda trace, credit: credit):
    """The credits of all groups of a size: a trace's weigh 1 / size."""
    for chance, group in tree.groups(size):
        for trace, credit in zip(group, tree.group_bonuses(form, group), strict=True):
            yield chance / size, trace, after(trace, credit)


TREES = pytest.mark.parametrize("cut", [False, True], ids=["all stop", "cut at the budget"])
EACH_FORM = pytest.mark.parametrize("form", FORMS)


@TREES
def test_the_traces_are_all_there_are(cut):
    tree = Tree(3, cut=cut)
    assert sum(tree.chance(t) for t in tree.traces()) == pytest.approx(1, abs=1e-12)
    assert sum(tree.chance(t, "a") for t in tree.traces("a")) == pytest.approx(1, abs=1e-12)


@TREES
@EACH_FORM
def test_bonuses_have_the_gradient_of_their_objective(form, cut):
    tree = Tree(3, cut=cut)
    update = tree.expected_update((tree.chance(t), t, tree.bonuses(form, t)) for t in tree.traces())
    assert np.abs(update).max() > 1e-3
    assert update == pytest.approx(tree.gradient(tree.objective(form)), abs=1e-12)


@TREES
@EACH_FORM
@pytest.mark.parametrize(("depth", "size"), [(3, 2), (2, 3)])
def test_centring_leaves_the_gradient_as_it_is(form, cut, depth, size):
    tree = Tree(depth, cut=cut)
    update = tree.expected_update(centred_credits(tree, form, size))
    assert update == pytest.approx(tree.gradient(tree.objective(form)), abs=1e-12)


def test_the_two_forms_have_different_objectives():
    tree = Tree(3)
    episode, to_go = (tree.gradient(tree.objective(form)) for form in FORMS)
    assert np.abs(episode - to_go).max() > 1e-3
    # with one choice to make there is no later one to differ about
    one = Tree(1)
    assert one.gradient(one.objective("episode")) == pytest.approx(one.gradient(one.objective("to_go")), abs=1e-12)


@TREES
@EACH_FORM
def test_a_stop_that_does_not_pay_the_baseline_changes_the_gradient(form, cut):
    tree = Tree(2, cut=cut)
    exact = tree.gradient(tree.objective(form))

    def uncharged(trace, credit):
        return np.append(credit[: len(trace)], np.zeros(len(credit) - len(trace)))

    update = tree.expected_update(centred_credits(tree, form, 2, after=uncharged))
    assert np.abs(update - exact).max() > 1e-3


@EACH_FORM
def test_leaving_the_stops_out_of_the_group_changes_the_gradient(form):
    tree = Tree(2)
    credits = [
        (chance / 2, trace, np.append(credit, 0.0))
        for chance, group in tree.groups(2)
        for trace, credit in zip(
            group, centred([alone(form, tree.values(t), stopped=False) for t in group]), strict=True
        )
    ]
    assert np.abs(tree.expected_update(credits) - tree.gradient(tree.objective(form))).max() > 1e-3


def test_a_fee_that_the_stop_does_not_pay_is_a_price_on_length():
    tree, fee = Tree(3), 0.3
    length = tree.gradient(tree.greedy_objective(lambda c, z: 1.0))
    paid_by_all = ((tree.chance(t), t, np.full(len(t) + 1, -fee)) for t in tree.traces())
    assert tree.expected_update(paid_by_all) == pytest.approx(np.zeros_like(length), abs=1e-12)
    not_by_the_stop = ((tree.chance(t), t, np.append(np.full(len(t), -fee), 0.0)) for t in tree.traces())
    assert tree.expected_update(not_by_the_stop) == pytest.approx(-fee * length, abs=1e-12)


def test_where_all_episodes_make_progress_an_uncharged_stop_pulls_towards_short_thoughts():
    tree = Tree(2)
    tree.V = {p: 0.2 + 0.3 * len(p) for p in tree.prefixes}
    length = tree.gradient(tree.greedy_objective(lambda c, z: 1.0))
    charged = tree.expected_update(centred_credits(tree, "episode", 2))
    assert charged == pytest.approx(0.3 * length, abs=1e-12)
    uncharged = tree.expected_update(
        centred_credits(tree, "episode", 2, after=lambda trace, credit: np.append(credit[:-1], 0.0))
    )
    assert (uncharged * length).sum() < 0.5 * (charged * length).sum()


def outcomes(tree, group):
    """All outcomes of a group's traces, each with its chance."""
    for rewards in itertools.product([0.0, 1.0], repeat=len(group)):
        chances = [tree.V[t] if r else 1 - tree.V[t] for t, r in zip(group, rewards, strict=True)]
        yield float(np.prod(chances)), np.array(rewards)


@TREES
@pytest.mark.parametrize("start", ["", "b"])
def test_the_trace_bonus_has_the_gradient_of_the_outcome_from_its_prefix(start, cut):
    tree = Tree(3, cut=cut)
    exact = tree.gradient(sum(tree.log_chance(t, start).exp() * tree.V[t] for t in tree.traces(start)))
    credits = (
        (
            chance * p,
            trace,
            np.full(len(tree.log_choices(trace, start)), stale(float(rewards[0]), tree.V[start])),
        )
        for chance, (trace,) in tree.groups(1, start)
        for p, rewards in outcomes(tree, [trace])
    )
    assert tree.expected_update(credits, start) == pytest.approx(exact, abs=1e-12)


@TREES
def test_the_trace_bonus_may_be_centred(cut):
    tree = Tree(2, cut=cut)
    exact = tree.gradient(tree.objective("to_go"))
    credits = (
        (chance * p / 2, trace, credit)
        for chance, group in tree.groups(2)
        for p, rewards in outcomes(tree, group)
        for trace, credit in zip(
            group,
            centred(
                [
                    np.full(len(t) + tree.stopped(t), stale(r, tree.V[""]))
                    for t, r in zip(group, rewards.tolist(), strict=True)
                ]
            ),
            strict=True,
        )
    )
    assert tree.expected_update(credits) == pytest.approx(exact, abs=1e-12)


@EACH_FORM
def test_outcome_and_bonus_together_have_the_gradient_of_their_sum(form):
    """Through `token_advantages`, an episode two tokens long: the outcome's group mean holds the trace itself, which
    leaves (G - 1) / G of its gradient."""
    tree, G, weight = Tree(2), 2, 0.7

    def per_choice(trace, outcome, bonuses):
        episodes = [Episode(2 * j, 2 * j + 2) for j in range(len(trace))]
        tokens = token_advantages(float(outcome), bonuses, episodes, 2 * len(trace) + 3, weight=weight)
        assert (tokens[1 : 2 * len(trace) : 2] == tokens[0 : 2 * len(trace) : 2]).all()
        return tokens[0 : 2 * len(trace) + 1 : 2]

    credits = (
        (chance * p / G, trace, per_choice(trace, outcome, bonuses))
        for chance, group in tree.groups(G)
        for p, rewards in outcomes(tree, group)
        for trace, outcome, bonuses in zip(
            group,
            rewards - rewards.mean(),
            centred([tree.bonuses(form, t) for t in group]),
            strict=True,
        )
    )
    exact = (G - 1) / G * tree.gradient(tree.objective("to_go")) + weight * tree.gradient(tree.objective(form))
    assert tree.expected_update(credits) == pytest.approx(exact, abs=1e-12)


@EACH_FORM
def test_noise_in_the_values_leaves_the_gradient_as_it_is(form):
    tree = Tree(2)

    def noisy(trace):
        for signs in itertools.product([-0.2, 0.2], repeat=len(trace) + 1):
            yield alone(form, tree.values(trace) + np.array(signs), stopped=True)

    one_by_one = ((tree.chance(t) / 2 ** (len(t) + 1), t, credit) for t in tree.traces() for credit in noisy(t))
    exact = tree.gradient(tree.objective(form))
    assert tree.expected_update(one_by_one) == pytest.approx(exact, abs=1e-12)
    in_pairs = (
        (chance / 2 / 2 ** (len(first) + len(second) + 2), trace, credit)
        for chance, (first, second) in tree.groups(2)
        for pair in itertools.product(noisy(first), noisy(second))
        for trace, credit in zip((first, second), centred(pair), strict=True)
    )
    assert tree.expected_update(in_pairs) == pytest.approx(exact, abs=1e-12)


@TREES
@pytest.mark.parametrize(("depth", "size"), [(3, 2), (2, 3)])
def test_a_baseline_from_the_traces_own_past_leaves_the_gradient_as_it_is(cut, depth, size):
    tree = Tree(depth, cut=cut)
    credits = (
        (chance / size, trace, credit)
        for chance, group in tree.groups(size)
        for trace, credit in zip(group, tree.group_bonuses("brpo", group), strict=True)
    )
    assert tree.expected_update(credits) == pytest.approx(tree.gradient(tree.objective("episode")), abs=1e-12)


def test_a_past_that_tells_of_the_end_would_change_the_gradient():
    """Why BRPO's baseline is for the progress of episodes alone."""
    tree = Tree(3)
    credits = (
        (chance / 2, trace, credit)
        for chance, group in tree.groups(2)
        for trace, credit in zip(group, centred_by_past([tree.bonuses("to_go", t) for t in group]), strict=True)
    )
    assert np.abs(tree.expected_update(credits) - tree.gradient(tree.objective("to_go"))).max() > 1e-3


@TREES
def test_new_maxima_have_the_gradient_of_their_own_progress(cut):
    """Any function of the prefix may stand for its value: the stop pays the baseline all the same."""
    tree = Tree(3, cut=cut)
    worth = {c: watermark(tree.values(c))[-1] for c in tree.prefixes}
    exact = tree.gradient(tree.greedy_objective(lambda c, z: worth[z] - worth[c]))
    assert tree.expected_update(centred_credits(tree, "mig", 2)) == pytest.approx(exact, abs=1e-12)
