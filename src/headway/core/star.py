"""STaR and MRT as STaR: which sampled traces a round of fine-tuning learns from, and where they are cut.

STaR (Zelikman et al., arXiv:2203.14465) keeps the traces whose answer is correct. MRT (arXiv:2503.07572, Fig. 6) keeps
those that "maximize progress and are followed by correct solutions once thinking terminates"; the rules `best_prefix`
and `best_trace` are its two readings.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float

from headway.core.regret import normalized_regret
from headway.types import Outcome

Each = Float[np.ndarray, " J"]  # a number for each boundary
Why = Literal["no_value", "no_progress", "no_solution", "another_is_better", "not_finished", "too_long"]
Reason = Outcome | Why
REASONS: tuple[str, ...] = (*(outcome for outcome in get_args(Outcome) if outcome != "correct"), *get_args(Why))


class Sampled(NamedTuple):
    """One trace of a group, as the rules see it."""

    outcome: Outcome
    finished: bool  # it ended by itself, not at its maximum of tokens
    tokens: Each  # the budget of a forced answer at each boundary; NaN where unknown
    values: Each  # NaN where unknown


class Choice(NamedTuple):
    """What becomes of a trace: left out for a reason, cut at a boundary, or (neither) kept whole."""

    left_out: Reason | None = None
    boundary: int | None = None  # here the thinking ends and a correct solution follows


def outcome(group: Sequence[Sampled], budget: int) -> list[Choice]:
    """Every correct trace, whole: rejection sampling, STaR without its hints."""
    return [_whole(trace) for trace in group]


def best_prefix(group: Sequence[Sampled], budget: int) -> list[Choice]:
    """Every trace, correct or not, cut at the prefix with the most progress (first reading).

        j* = min argmax_j V_j,    kept if V_j* > V_0

    The progress of a prefix telescopes to V_j - V_0. The shortest prefix counts among equals; boundaries without a
    value are skipped. V is the estimate that is at hand, and the largest of noisy values is too high (as in
    `core.split_half`): what follows the prefix has to be sampled anew, not taken from the branches that chose it.
    """
    return [_cut(trace.values) for trace in group]


def best_trace(group: Sequence[Sampled], budget: int) -> list[Choice]:
    """The correct trace with the least normalized regret up to the budget, whole (second reading).

        argmin_g Reg_g(C0) over the correct traces g of a problem,    the first of equals

    Cumulative progress, V_K - V_0, sees only the end of a trace, and the traces of a problem share V_0. The regret up
    to C0 is 1 less the values weighted by the tokens for which they hold, so it is least where progress comes early.
    """
    choices = [_whole(trace) for trace in group]
    regrets = [
        float(normalized_regret(t.tokens, t.values, np.array([float(budget)]))[0]) if c.left_out is None else np.nan
        for t, c in zip(group, choices, strict=True)
    ]
    if np.isnan(regrets).all():
        return [c if c.left_out else Choice("no_value") for c in choices]
    best = int(np.nanargmin(regrets))
    others: list[Reason] = ["no_value" if np.isnan(r) else "another_is_better" for r in regrets]
    return [c if c.left_out or g == best else Choice(others[g]) for g, c in enumerate(choices)]


def solution(rewards: Float[np.ndarray, " B"], finished: Bool[np.ndarray, " B"]) -> int | None:
    """The first forced answer that is correct (reward 1) and ended by itself; None where there is none."""
    usable = np.flatnonzero((rewards == 1) & finished)
    return int(usable[0]) if len(usable) else None


def _whole(trace: Sampled) -> Choice:
    if trace.outcome != "correct":
        return Choice(trace.outcome)
    return Choice() if trace.finished else Choice("not_finished")


def _cut(values: Each) -> Choice:
    if np.isnan(values[0]):
        return Choice("no_value")
    best = int(np.flatnonzero(values == np.nanmax(values))[0])
    return Choice(boundary=best) if best else Choice("no_progress")


class Rule(NamedTuple):
    """A rule, and what it asks for: whether values, and whether solutions after the prefixes that it cuts."""

    choose: Callable[[Sequence[Sampled], int], list[Choice]]
    needs_values: bool = False
    cuts: bool = False


RULES: dict[str, Rule] = {
    "outcome": Rule(outcome),
    "best_prefix": Rule(best_prefix, needs_values=True, cuts=True),
    "best_trace": Rule(best_trace, needs_values=True),
}
if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[tuple(RULES)]
