"""What a run does with its tokens, and whether its errors are calibrated: progress, overthinking, waste."""

from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress
from headway.core.resampling import bootstrap_estimate
from headway.core.split_half import Overthinking, disagreement, overthinking
from headway.core.stats import SIGNED, UNIT, Estimate, ProblemSums, Within, sums_by_problem
from headway.core.votes import settled_at
from headway.report.numbers.evaluation import Record, grid
from headway.report.numbers.table import RunTable, entry

BINS = 17  # of progress from -1 to 1, centred on multiples of 1/8: what 4 or 8 branches can tell lies in their middles
SHARE = 0.9
Tokens = Float[np.ndarray, " traces"]

# the uses of tokens in the order of a trace; forced answers come on top of it
USES = {
    "thinking_before": "thinking until the answer last changed",
    "thinking_after": "thinking after that",
    "answer": "answer",
    "forced_answers": "forced answers",
}


def diagnose(run: RunTable, *, budget: int) -> dict[str, Any]:
    """The entries of report.json about waste and noise; budgets go up to `budget` tokens."""

    def mean(numbers: Float[np.ndarray, " traces"], within: Within = (0.0, float(budget))) -> Record:
        return entry(stats.mean(numbers, run.problems, within=within))

    idle = tokens_after(run)
    uses = token_use(run.tokens, run.thinking, idle, run.forced)
    seen = np.array([overthinking(t.rewards) for t in run.tallies]).reshape(-1, 3)
    return {
        "token_use": [{"use": use, **mean(tokens)} for use, tokens in uses.items()],
        "progress_histogram": progress_histogram(run),
        "overthinking": {
            name: mean(column, SIGNED) for name, column in zip(Overthinking._fields, seen.T, strict=True)
        },
        "budget_to_90": entry(budget_to(run, SHARE, budget=budget)),
        "settled": {"tokens_after": mean(idle), "share_after": mean(idle / np.maximum(run.thinking, 1), UNIT)},
        "calibration": entry(calibration(run)),
    }


def token_use(tokens: Tokens, thinking: Tokens, after: Tokens, forced: Tokens) -> dict[str, Tokens]:
    """The tokens of each trace by use; the first three of `USES` add up to the trace's tokens.

    Where it is not known how much thinking came `after` the answer last changed, all of it counts as before.
    """
    idle = np.nan_to_num(after)
    return dict(zip(USES, (thinking - idle, idle, tokens - thinking, forced), strict=True))


def progress_histogram(run: RunTable) -> list[Record]:
    """The fraction of episodes whose progress lies in each bin.

    Noise widens it: the progress that B branches estimate has a standard deviation of up to 0.71 / sqrt(B).
    """
    edges = (np.arange(BINS + 1) - BINS / 2) / (BINS // 2)
    steps = [progress(c.values.values) for c in run.curves]
    names = [problem for problem, own in zip(run.problems, steps, strict=True) for r in own if not np.isnan(r)]
    every = np.concatenate([*steps, np.empty(0)])
    bins = np.digitize(every[~np.isnan(every)], edges)
    return [
        {"low": low, "high": high, **entry(stats.mean((bins == b + 1).astype(float), names, within=UNIT))}
        for b, (low, high) in enumerate(pairwise(edges.tolist()))
    ]


def budget_to(run: RunTable, share: float, *, budget: int) -> Estimate:
    """The budget, on a grid of 256, at which the mean budget curve first reaches a fraction of its final accuracy.

    No interval where fewer than twelve problems have an accuracy above 0 there.
    """
    edges = np.append(grid(budget)[1:] - budget / (2 * len(grid(budget))), float(budget))
    accuracy = run.accuracy(edges)
    n = int((~np.isnan(accuracy)).any(axis=1).sum())
    return budget_reaching(sums_by_problem(accuracy, run.problems), edges, share, n=n)


def budget_reaching(curves: ProblemSums, edges: Float[np.ndarray, " C"], share: float, *, n: int) -> Estimate:
    """The first of the budgets `edges` at which the mean of n curves reaches a share of what it has at the last."""

    def first(weights: Float[np.ndarray, "rows P"]) -> Float[np.ndarray, " rows"]:
        curve = _ratio(weights @ curves.totals, weights @ curves.counts)
        final = curve[:, -1]
        reached = curve >= share * final[:, None] - 1e-12
        return np.where(final > 0, edges[reached.argmax(axis=1)], np.nan)

    telling = int((curves.totals[:, -1] > 0).sum())
    return bootstrap_estimate(first, len(curves.problems), n=n, telling=telling)


def tokens_after(run: RunTable) -> Float[np.ndarray, " traces"]:
    """The tokens of each trace's thinking after its majority answer settled (`headway.core.votes.settled_at`).

    NaN for a trace whose last boundary has no answer, or that did not think.
    """
    found = [(t.positions, settled_at(t.classes)) for t in run.tallies]
    after = [at[-1] - at[j] if j is not None and at[-1] > 0 else np.nan for at, j in found]
    return np.array(after, dtype=float)


def calibration(run: RunTable) -> Estimate:
    """The variance of split-half z-scores of values: 1 where errors are calibrated (`split_half.disagreement`).

    Below 1 the branches of a boundary repeat each other across the halves, above it within them. NaN with fewer than
    four branches.
    """
    pairs = [disagreement(t.rewards) for t in run.tallies]
    rows = np.array([[np.nansum(p.squared), np.nansum(p.expected)] for p in pairs])
    squared, expected = sums_by_problem(rows, run.problems).totals.T
    return ratio_of_sums(squared, expected, n=int(sum((~np.isnan(p.expected)).sum() for p in pairs)))


def ratio_of_sums(a: Float[np.ndarray, " P"], b: Float[np.ndarray, " P"], *, n: int) -> Estimate:
    """The ratio of two sums over problems, of n observations."""
    telling = int((b > 0).sum())
    return bootstrap_estimate(lambda w: _ratio(w @ a, w @ b), len(a), n=n, telling=telling)


def _ratio(a: Float[np.ndarray, "*rows"], b: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)
