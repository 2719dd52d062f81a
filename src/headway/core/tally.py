"""Tallies: the branches and scores of one trace as arrays, and the values that they give, of each kind."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from headway.choices import lookup
from headway.core.values import Values, from_branches, from_distinct, from_hybrid, from_likelihood
from headway.core.votes import NO_VOTE
from headway.types import Branch, HeadwayError, Score

Need = Literal["branches", "scores", "logprobs"]


class Tally(NamedTuple):
    """What was sampled and scored at each boundary of one trace; NaN where nothing is."""

    name: str  # the trace, in messages
    positions: list[int]  # the boundaries, in tokens of the completion
    rewards: Float[np.ndarray, "J B"]  # NaN where undecided, too
    sampled: Float[np.ndarray, "J B"]  # tokens of each branch
    logprobs: Float[np.ndarray, "J B"]
    completions: Int[np.ndarray, "J B"]  # equal for equal tokens, ended in the same way; -1 where they are missing
    known: Bool[np.ndarray, "J B"]  # whether the branch wrote a form of the answer that is scored
    classes: Int[np.ndarray, "J B"]  # of answers, for votes; `NO_VOTE` where there is none
    forced: Float[np.ndarray, " J"]  # the budget of a forced answer without the answer's own tokens
    scored: Float[np.ndarray, " J"]  # the probability of the known correct answers; NaN where none is known
    score_tokens: Float[np.ndarray, " J"]  # the budget of the likeliest of them; NaN where nothing was scored

    @property
    def drawn(self) -> Bool[np.ndarray, "J B"]:
        """Where there is a branch."""
        return ~np.isnan(self.sampled)

    @property
    def tokens(self) -> Float[np.ndarray, " J"]:
        """The budget of each boundary: its thinking, the forced text and the tokens of an answer.

        An answer's tokens are the mean over the boundaries of their branches' mean: one length for all, since correct
        and wrong answers differ in length, and a budget that depends on the luck of a value would bias the regret.
        """
        asked = self.drawn.any(axis=1)
        return self.forced + np.nanmean(self.sampled[asked], axis=1).mean() if asked.any() else self.forced

    def graded(self, boundary: int) -> Bool[np.ndarray, " B"]:
        """Which branches of a boundary have a reward."""
        return ~np.isnan(self.rewards[boundary])


class Estimator(NamedTuple):
    """How values of one kind come from a tally."""

    estimate: Callable[[Tally], Values]
    needs: frozenset[Need]  # what has to be sampled or scored first
    proportion: bool = False  # whether a value is the fraction of correct ones among n branches


def _hybrid(tally: Tally) -> Values:
    # without a known form the branches count alone; a branch that wrote a known form does not count twice
    known = np.where(np.isnan(tally.scored) & ~np.isnan(tally.score_tokens), 0.0, tally.scored)
    rewards = np.where(tally.known & ~np.isnan(tally.rewards), 0.0, tally.rewards)
    return from_hybrid(known, rewards, tally.logprobs, tally.completions)


ESTIMATORS: dict[str, Estimator] = {
    "branches": Estimator(lambda t: from_branches(t.rewards), frozenset({"branches"}), proportion=True),
    "distinct": Estimator(
        lambda t: from_distinct(t.rewards, t.logprobs, t.completions), frozenset({"branches", "logprobs"})
    ),
    "likelihood": Estimator(lambda t: from_likelihood(t.scored), frozenset({"scores"})),
    "hybrid": Estimator(_hybrid, frozenset({"branches", "scores", "logprobs"})),
}
if TYPE_CHECKING:
    ValueKind = str
else:
    ValueKind = Literal[tuple(ESTIMATORS)]


class ValueCurve(NamedTuple):
    """A trace's boundaries (token positions), the budget of an answer there, and the values with their errors."""

    boundaries: list[int]
    tokens: Float[np.ndarray, " J"]
    values: Values
    kind: ValueKind = "branches"


def value_curve(tally: Tally, kind: ValueKind = "branches") -> ValueCurve:
    """The value at each boundary of a trace; NaN where what it needs is not there.

    Raises:
        HeadwayError: there is no such kind, or it needs the probabilities of branches that have none.
    """
    estimate, needs, _ = lookup(ESTIMATORS, kind, "values")
    if "logprobs" in needs:
        without = np.argwhere(tally.drawn & (np.isnan(tally.logprobs) | (tally.completions < 0)))
        if len(without):
            raise HeadwayError(
                f"branch {without[0][1]} of {tally.name} at boundary {without[0][0]} has no probability, which {kind} "
                "values need; its engine does not report it, or an older version sampled it: use values 'branches', "
                "or prove again"
            )
    tokens = tally.tokens if "branches" in needs else tally.score_tokens
    return ValueCurve(tally.positions, tokens, estimate(tally), kind)


def lay_out(
    key: tuple[str, int], positions: list[int], branches: Sequence[Branch], scores: Sequence[Score] = (), *,
    classes: Sequence[int] | None = None,
) -> Tally:  # fmt: skip
    """The tally of a trace (problem and index) with these boundaries, from all of its branches and scores.

    `classes` are those of the branches' answers (`equivalence.answer_classes`); none votes by default.

    Raises:
        ValueError: a branch or a score belongs to another trace or to a boundary that it does not have.
    """
    name = f"{key[0]}/{key[1]}"
    records: list[Branch | Score] = [*branches, *scores]
    for record in records:
        if record.key != key or record.boundary >= len(positions):
            raise ValueError(
                f"{type(record).__name__.lower()} {record.name} at boundary {record.boundary} does not fit trace "
                f"{name} with {len(positions)} boundaries; after cutting traces another way, prove them again"
            )
    J, B = len(positions), max((b.branch for b in branches), default=0) + 1
    rewards, sampled, logprobs = np.full((3, J, B), np.nan)
    forced, scored, score_tokens = np.full((3, J), np.nan)
    completions, known, voting = np.full((J, B), -1), np.zeros((J, B), dtype=bool), np.full((J, B), NO_VOTE)
    numbers: dict[object, int] = {}
    for branch, answer in zip(branches, classes or [NO_VOTE] * len(branches), strict=True):
        at = branch.boundary, branch.branch
        rewards[at] = np.nan if branch.reward is None else branch.reward
        sampled[at], known[at], voting[at] = branch.sampled, branch.known, answer
        logprobs[at] = np.nan if branch.logprob is None else branch.logprob
        if branch.token_ids or not branch.sampled:
            completions[at] = numbers.setdefault(branch.token_ids, len(numbers))
        forced[branch.boundary] = branch.tokens - branch.sampled
    for score in scores:
        scored[score.boundary] = np.nan if score.probability is None else score.probability
        score_tokens[score.boundary] = score.tokens
    return Tally(name, positions, rewards, sampled, logprobs, completions, known, voting, forced, scored, score_tokens)


def known_share(curves: Sequence[ValueCurve], scores: Sequence[Score]) -> float:
    """The known correct answers' fraction of the value, summed over all boundaries; NaN where none were scored."""
    total = sum(float(np.nansum(c.values.values)) for c in curves)
    return sum(s.probability or 0.0 for s in scores) / total if scores and total > 0 else float("nan")
