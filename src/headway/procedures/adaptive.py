"""Adaptive proving: a round of branches everywhere, then more where they reduce the error most.

There are two decisions, so that a run can stop anywhere and resume: the first depends on the positions of the
boundaries, the second on the branches of round 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headway.core.allocation import Locations, equal_precision, group_prior, negligible, neighbour_counts, neyman
from headway.core.regret import step_weights
from headway.core.tally import ESTIMATORS, ValueCurve
from headway.procedures.forced import Forced
from headway.procedures.prove import Rounds
from headway.procedures.sample import TraceKey
from headway.types import BranchHead, HeadwayError, Trace

Of = Literal["regret", "values"]
Costs = Mapping[TraceKey, Float[np.ndarray, " _"]]  # of each trace, its boundaries
TOLERATED = 0.1  # of the precision: how much the boundaries that are left out may change the regret


class Target(NamedTuple):
    """What adaptive proving aims at."""

    precision: float | None  # the standard error that branches may add to the mean normalized regret, or to each value
    most: int | None  # branches in all
    of: Of
    budget: int  # the whole one, in completion tokens, at which the regret is taken
    unit: int  # branches of a round


class Precision(NamedTuple):
    """What branches add to the standard errors: of the mean normalized regret, and of one value (root mean square)."""

    regret: float
    value: float
    boundaries: int
    left_out: int


def answer_costs(traces: Iterable[Trace], forced: Callable[[Trace], list[Forced]]) -> Costs:
    """The budget of an answer at each boundary of each trace without the answer's own tokens (`Prover.forced`)."""
    return {t.key: np.array([f.tokens for f in forced(t)], dtype=float) for t in traces}


def first_rounds(costs: Costs, target: Target) -> Rounds:
    """Round 0 at each boundary but the negligible ones (`allocation.negligible`).

    Raises:
        HeadwayError: the target has fewer branches than that takes.
    """
    tolerance = TOLERATED * (target.precision or 0.0)
    left_out = {key: negligible(step_weights(c, float(target.budget)), tolerance) for key, c in costs.items()}
    rounds = {key: [range(0 if target.of == "regret" and o else 1) for o in out] for key, out in left_out.items()}
    least = target.unit * sum(len(r) for of_trace in rounds.values() for r in of_trace)
    if target.most is not None and target.most < least:
        raise HeadwayError(
            f"--max-branches {target.most} is less than one round of {target.unit} branches at each boundary takes "
            f"({least}); allow more, or give fewer --branches or --traces"
        )
    return rounds


def more_rounds(costs: Costs, drawn: Iterable[BranchHead], target: Target) -> Rounds:
    """The rounds after round 0, by its branches."""
    first = first_rounds(costs, target)
    rows = {key: row for row, key in enumerate(costs)}
    width = max(map(len, costs.values()))
    right, n, tokens, answers = np.zeros((4, len(rows), width))
    for d in drawn:
        if d.branch < target.unit:
            at = rows[d.key], d.boundary
            answers[at] += 1
            tokens[at] += d.sampled
            if d.reward is not None:
                n[at] += 1
                right[at] += d.reward
    answer = tokens.sum() / answers.sum()
    asked = {key: np.array([len(r) for r in of_trace], dtype=bool) for key, of_trace in first.items()}
    flat = np.concatenate([np.flatnonzero(a) + rows[key] * width for key, a in asked.items()])
    locations = _locations([problem for problem, _ in costs], [np.flatnonzero(a) for a in asked.values()])
    right, n = right.reshape(-1)[flat], n.reshape(-1)[flat]
    variance = group_prior(right, n, neighbour_counts(right, n, locations)).variance
    tokens_of = {key: np.where(a, costs[key] + answer, np.nan) for key, a in asked.items()}
    weights = [step_weights(tokens_of[key], float(target.budget))[a] / len(rows) for key, a in asked.items()]
    allocate = equal_precision if target.of == "values" else partial(neyman, np.concatenate(weights))
    each = iter(allocate(variance, unit=target.unit, precision=target.precision, most=target.most).tolist())
    return {key: [range(1, next(each)) if a else range(0) for a in asked[key]] for key in costs}


def realized(problems: Sequence[str], curves: Sequence[ValueCurve], budget: int) -> Precision:
    """What the branches add to the standard errors.

        se^2 = sum_i w_i^2 Var V_i,        Var V_i estimated by V_i (1 - V_i) / (n_i - 1)

    Each term is unbiased and so is their sum, though a term is 0 where all branches agree. At a boundary with a single
    branch, or if branches agree at all boundaries, it is E[V_i (1 - V_i)] / n_i under the posterior of `group_prior`.
    A boundary without a graded branch is left out. Values that are no proportions keep their own standard errors.
    """
    asked = [np.flatnonzero(~np.isnan(c.values.values)) for c in curves]
    left_out = sum(len(c.boundaries) for c in curves) - sum(map(len, asked))
    if not any(map(len, asked)):
        return Precision(np.nan, np.nan, 0, left_out)

    def together(of: Callable[[ValueCurve], np.ndarray]) -> np.ndarray:
        return np.concatenate([of(c)[a] for c, a in zip(curves, asked, strict=True)])

    values, stderr = together(lambda c: c.values.values), together(lambda c: c.values.stderr)
    n = together(lambda c: c.values.n.astype(float))
    weights = together(lambda c: step_weights(np.where(np.isnan(c.values.values), np.nan, c.tokens), float(budget)))
    squared = stderr**2
    if ESTIMATORS[curves[0].kind].proportion:
        prior = group_prior(n * values, n, neighbour_counts(n * values, n, _locations(problems, asked)))
        believed = prior.after(n * values, n).variance / n
        squared = np.where(n > 1, squared, believed) if np.nansum(stderr) > 0 else believed
    of_regret = np.sqrt(np.sum(weights**2 * squared)) / sum(len(a) > 0 for a in asked)
    return Precision(float(of_regret), float(np.sqrt(squared.mean())), len(n), left_out)


def _locations(problems: Sequence[str], indices: Sequence[Int[np.ndarray, " _"]]) -> Locations:
    """Where these boundaries of each trace are; `problems` holds the problem of each trace."""
    codes = {problem: code for code, problem in enumerate(dict.fromkeys(problems))}
    traces, counts = np.arange(len(problems)), [len(i) for i in indices]
    of_problems = np.repeat([codes[problem] for problem in problems], counts)
    return Locations(np.repeat(traces, counts), of_problems, np.concatenate(indices))
