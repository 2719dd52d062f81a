"""What a run does with its tokens, and whether its errors are honest: progress, overthinking, waste, calibration."""

from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress
from headway.core.split_half import disagreement, overthinking
from headway.core.stats import Estimate, bootstrap_estimate, sums_by_problem
from headway.core.votes import settled_at
from headway.report.numbers.evaluation import Record, grid
from headway.report.numbers.table import RunTable, entry

BINS = 17  # of progress from -1 to 1, centred on multiples of 1/8: what 4 or 8 branches can tell lies in their middles
SHARE = 0.9

# the uses of tokens in the order of a trace, and how people call them
USES = {
    "thinking_before": "thinking until the answer last changed",
    "thinking_after": "thinking after that",
    "answer": "answer",
    "forced_answers": "forced answers",
}


def diagnose(run: RunTable, *, budget: int) -> dict[str, Any]:
    """The entries of report.json about waste and noise; budgets go up to `budget` tokens."""
    idle = tokens_after(run)
    uses = token_use(run.tokens, run.thinking, idle, run.forced)
    shares = idle / np.maximum(run.thinking, 1)
    return {
        "token_use": [{"use": use, **entry(stats.mean(tokens, run.problems))} for use, tokens in uses.items()],
        "progress_histogram": progress_histogram(run),
        "overthinking": overthinking_rates(run),
        "budget_to_90": entry(budget_to(run, SHARE, budget=budget)),
        "settled": {
            "tokens_after": entry(stats.mean(idle, run.problems)),
            "share_after": entry(stats.mean(shares, run.problems)),
        },
        "calibration": entry(calibration(run)),
    }


def token_use(
    tokens: Float[np.ndarray, " traces"],
    thinking: Float[np.ndarray, " traces"],
    after: Float[np.ndarray, " traces"],
    forced: Float[np.ndarray, " traces"],
) -> dict[str, Float[np.ndarray, " traces"]]:
    """The tokens of each trace by use, in the order of `USES`.

    The first three add up to the trace's tokens; forced answers come on top of them. Where it is not known how much
    thinking came `after` the answer last changed, all of it counts as before.
    """
    idle = np.nan_to_num(after)
    return dict(zip(USES, (thinking - idle, idle, tokens - thinking, forced), strict=True))


def progress_histogram(run: RunTable) -> list[Record]:
    """The share of episodes whose progress lies in each bin, with its error by resampling problems.

    Noise of the values widens it: what B branches say of one progress has a deviation of up to 0.71 / sqrt(B).
    """
    edges = (np.arange(BINS + 1) - BINS / 2) / (BINS // 2)
    made = [progress(c.values.values) for c in run.curves]
    rows = [np.histogram(r[~np.isnan(r)], bins=edges)[0] for r in made]
    problems, counts, _ = sums_by_problem(np.array(rows, dtype=float), run.problems)
    n = int(counts.sum())
    records = []
    for i in range(BINS):
        pair = np.column_stack([counts[:, i], counts.sum(axis=1)])
        share = bootstrap_estimate(lambda w, pair=pair: _ratio(*(w @ pair).T), len(problems), n=n)  # type: ignore[misc]
        records.append({"low": float(edges[i]), "high": float(edges[i + 1]), **entry(share)})
    return records


def overthinking_rates(run: RunTable) -> dict[str, Record]:
    """How often and by how much the value was higher earlier; see `headway.core.split_half.overthinking`."""
    seen = np.array([overthinking(t.rewards) for t in run.tallies]).reshape(-1, 3)
    names = ("raw", "corrected", "gain")
    return {name: entry(stats.mean(column, run.problems)) for name, column in zip(names, seen.T, strict=True)}


def budget_to(run: RunTable, share: float, *, budget: int) -> Estimate:
    """The budget at which the mean budget curve first reaches a share of its final accuracy.

    On a grid of 256 budgets; a resample whose final accuracy is 0 says nothing.
    """
    edges = np.append(grid(budget)[1:] - budget / (2 * len(grid(budget))), float(budget))
    accuracy = run.accuracy(edges)
    problems, totals, counts = sums_by_problem(accuracy, run.problems)

    def first(weights: Float[np.ndarray, "rows P"]) -> Float[np.ndarray, " rows"]:
        curve = _ratio(weights @ totals, weights @ counts)
        final = curve[:, -1]
        reached = curve >= share * final[:, None] - 1e-12
        return np.where(final > 0, edges[reached.argmax(axis=1)], np.nan)

    return bootstrap_estimate(first, len(problems), n=int((~np.isnan(accuracy)).any(axis=1).sum()))


def tokens_after(run: RunTable) -> Float[np.ndarray, " traces"]:
    """Each trace's thinking after its majority answer stopped changing (`headway.core.votes.settled_at`), in tokens.

    NaN for a trace whose last boundary has no answer, or that did not think.
    """
    tokens = np.full(len(run.tallies), np.nan)
    for i, tally in enumerate(run.tallies):
        at = settled_at(tally.classes)
        if at is not None and tally.positions[-1] > 0:
            tokens[i] = tally.positions[-1] - tally.positions[at]
    return tokens


def calibration(run: RunTable) -> Estimate:
    """The variance of split-half z-scores of values: 1 where their errors are right.

    Below 1 the branches of a boundary repeat each other across the halves, above it within them; see
    `headway.core.split_half.disagreement`. NaN with fewer than four branches.
    """
    pairs = [disagreement(t.rewards) for t in run.tallies]
    rows = np.array([[np.nansum(p.squared), np.nansum(p.expected)] for p in pairs])
    problems, both, _ = sums_by_problem(rows, run.problems)
    n = int(sum((~np.isnan(p.expected)).sum() for p in pairs))
    return bootstrap_estimate(lambda w: _ratio(w @ both[:, 0], w @ both[:, 1]), len(problems), n=n)


def _ratio(a: Float[np.ndarray, "*rows"], b: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)
