"""What a run does with its tokens, and whether its errors are honest: progress, overthinking, waste, calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.progress import progress
from headway.core.split_half import disagreement, overthinking
from headway.core.stats import Estimate, bootstrapped
from headway.core.votes import settled_at
from headway.report.numbers.evaluation import Record, Voted, grid
from headway.report.numbers.table import entry
from headway.report.numbers.token_use import token_use

BINS = 17  # of progress from -1 to 1, centred on multiples of 1/8: what 4 or 8 branches can tell lies in their middles
SHARE = 0.9


def diagnose(run: Voted, *, budget: int) -> dict[str, Any]:
    """The entries of report.json about waste and noise; budgets go up to `budget` tokens."""
    idle, problems = tokens_after(run), run.run.problems
    uses = token_use(run.run.tokens(), run.run.thinking(), idle, run.run.forced)
    return {
        "token_use": [{"use": use, **entry(stats.mean(tokens, problems))} for use, tokens in uses.items()],
        "progress_histogram": progress_histogram(run),
        "overthinking": overthinking_rates(run),
        "budget_to_90": entry(budget_to(run, SHARE, budget=budget)),
        "settled": settled(run),
        "calibration": entry(calibration(run)),
    }


def progress_histogram(run: Voted) -> list[Record]:
    """The share of episodes whose progress lies in each bin, with its error by resampling problems.

    Noise of the values widens it: what B branches say of one progress has a deviation of up to 0.71 / sqrt(B).
    """
    edges = (np.arange(BINS + 1) - BINS / 2) / (BINS // 2)
    made = [progress(c.values.values) for c in run.run.curves]
    counts, names = _summed([np.histogram(r[~np.isnan(r)], bins=edges)[0].astype(float) for r in made], run)
    n = int(counts.sum())
    records = []
    for i in range(BINS):
        pair = np.column_stack([counts[:, i], counts.sum(axis=1)])
        share = bootstrapped(lambda w, pair=pair: _ratio(*(w @ pair).T), len(names), n=n)  # type: ignore[misc]
        records.append({"low": float(edges[i]), "high": float(edges[i + 1]), **entry(share)})
    return records


def overthinking_rates(run: Voted) -> dict[str, Record]:
    """How often and by how much the value was higher earlier; see `headway.core.split_half.overthinking`."""
    seen = np.array([overthinking(b.rewards) for b in run.ballots]).reshape(-1, 3)
    problems = run.run.problems
    names = ("raw", "corrected", "gain")
    return {name: entry(stats.mean(column, problems)) for name, column in zip(names, seen.T, strict=True)}


def budget_to(run: Voted, share: float, *, budget: int) -> Estimate:
    """The budget at which the mean budget curve first reaches a share of its final accuracy.

    On a grid of 256 budgets; a resample whose final accuracy is 0 says nothing.
    """
    edges = np.append(grid(budget)[1:] - budget / (2 * len(grid(budget))), float(budget))
    accuracy = run.run.accuracy(edges)
    known = ~np.isnan(accuracy)
    totals, names = _summed(list(np.where(known, accuracy, 0.0)), run)
    counts, _ = _summed(list(known.astype(float)), run)

    def first(weights: Float[np.ndarray, "rows P"]) -> Float[np.ndarray, " rows"]:
        curve = _ratio(weights @ totals, weights @ counts)
        final = curve[:, -1]
        reached = curve >= share * final[:, None] - 1e-12
        return np.where(final > 0, edges[reached.argmax(axis=1)], np.nan)

    return bootstrapped(first, len(names), n=int(known.any(axis=1).sum()))


def settled(run: Voted) -> dict[str, Record]:
    """Thinking after the majority answer stopped changing: tokens, and as a share of the trace's thinking."""
    tokens, problems = tokens_after(run), run.run.problems
    shares = tokens / np.maximum(run.run.thinking(), 1)
    return {"tokens_after": entry(stats.mean(tokens, problems)), "share_after": entry(stats.mean(shares, problems))}


def tokens_after(run: Voted) -> Float[np.ndarray, " traces"]:
    """Each trace's thinking after its majority answer stopped changing (`headway.core.votes.settled_at`), in tokens.

    NaN for a trace whose last boundary has no answer, or that did not think.
    """
    tokens = np.full(len(run.ballots), np.nan)
    for i, (ballots, curve) in enumerate(zip(run.ballots, run.run.curves, strict=True)):
        at = settled_at(ballots.classes)
        if at is not None and curve.boundaries[-1] > 0:
            tokens[i] = curve.boundaries[-1] - curve.boundaries[at]
    return tokens


def calibration(run: Voted) -> Estimate:
    """The variance of split-half z-scores of values: 1 where their errors are right.

    Below 1 the branches of a boundary repeat each other across the halves, above it within them; see
    `headway.core.split_half.disagreement`. NaN with fewer than four branches.
    """
    pairs = [disagreement(b.rewards) for b in run.ballots]
    both, names = _summed([np.array([np.nansum(p.squared), np.nansum(p.expected)]) for p in pairs], run)
    n = int(sum((~np.isnan(p.expected)).sum() for p in pairs))
    return bootstrapped(lambda w: _ratio(w @ both[:, 0], w @ both[:, 1]), len(names), n=n)


def _summed(rows: Sequence[Float[np.ndarray, " C"]], run: Voted) -> tuple[Float[np.ndarray, "P C"], list[str]]:
    """Rows of traces added up by problem, and the problems."""
    names = {p: i for i, p in enumerate(dict.fromkeys(run.run.problems))}
    total = np.zeros((len(names), len(rows[0]) if len(rows) else 1))
    for row, problem in zip(rows, run.run.problems, strict=True):
        total[names[problem]] += row
    return total, list(names)


def _ratio(a: Float[np.ndarray, "*rows"], b: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(b > 0, a / b, np.nan)
