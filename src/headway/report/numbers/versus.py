"""What a comparison of runs adds: tokens for equal accuracy, and regret against the best of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.regret import best_of, mean_gap, tokens_to_reach
from headway.report.numbers.evaluation import Record, Votes, at_budgets, grid, trace_votes
from headway.report.numbers.table import RunTable, entry

BEST_RUN = "best of runs (the highest mean curve at each budget)"
LEVELS = 5  # accuracies at which two runs are held against each other, besides the highest that both reach


def token_efficiency(runs: Sequence[tuple[str, RunTable]]) -> list[Record]:
    """How many times the tokens of each run the first one needs for the same accuracy by maj@k (paper, Fig. 7).

    The horizontal gap between the two curves of maj@k against tokens, on the problems that both have. `accuracy` is
    the level; the record whose `highest` is true is taken anew in each resample at the highest level both reach there.
    `reached` is the share of resamples in which both reach the level: where it is below 1, the interval leaves out
    those that do not.
    """
    (against, first), *others = runs
    records = []
    for label, run in others:
        a, b = _shared(trace_votes(first), trace_votes(run))
        if len(a.problems) == 0:
            continue
        ceiling = _common(np.ones((1, len(a.problems))), a, b)[1][0]
        floor = max(a.maj_at[:, 0].mean(), b.maj_at[:, 0].mean())
        levels = np.linspace(floor, ceiling, LEVELS, endpoint=False).tolist() if floor < ceiling else []
        for level in (None, *levels):
            records.append({"label": label, "against": against, **_efficiency(a, b, level, float(ceiling))})
    return records


def _efficiency(a: Votes, b: Votes, level: float | None, ceiling: float) -> Record:
    def ratio(weights: Float[np.ndarray, "rows P"]) -> Float[np.ndarray, " rows"]:
        curves, common = _common(weights, a, b)
        wanted = common if level is None else np.full(len(weights), level)
        ours, theirs = (tokens_to_reach(tokens, accuracy, wanted) for tokens, accuracy in curves)
        return ours / theirs

    P = len(a.problems)
    estimate = stats.bootstrap_estimate(ratio, P, n=int(a.n.sum() + b.n.sum()))
    reached = float((~np.isnan(ratio(stats.resampled(P)))).mean()) if P > 1 else np.nan
    return {
        "accuracy": ceiling if level is None else level,
        "highest": level is None,
        "reached": reached,
        **entry(estimate),
    }


def _common(
    weights: Float[np.ndarray, "rows P"], a: Votes, b: Votes
) -> tuple[list[tuple[Float[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]], Float[np.ndarray, " rows"]]:
    """Both runs' mean tokens and maj@k for each row of weights, and the highest accuracy that both reach."""
    share = weights / weights.sum(axis=1, keepdims=True)
    curves = [(share @ votes.tokens, share @ votes.maj_at) for votes in (a, b)]
    # a hair below the top, so that the sum's last bit does not decide whether it is reached
    return curves, np.minimum(*(accuracy.max(axis=1) for _, accuracy in curves)) - 1e-12


def _shared(a: Votes, b: Votes) -> tuple[Votes, Votes]:
    """Both on the problems they share and the k that all of those have."""
    both = [p for p in a.problems if p in set(b.problems)]

    def kept(votes: Votes) -> Votes:
        place = {p: row for row, p in enumerate(votes.problems)}
        rows = np.array([place[p] for p in both], dtype=int)
        whole = ~np.isnan(votes.tokens[rows]).any(axis=0)
        return Votes(both, votes.n[rows], *(t[rows][:, whole] for t in votes[2:]))

    return kept(a), kept(b)


def regret_against_best(runs: Sequence[tuple[str, RunTable]], *, budget: int) -> list[Record]:
    """Normalized regret of each run against the best of them at each budget, on the problems that all have."""
    shared = set.intersection(*(set(run.problems) for _, run in runs))
    middle = grid(budget)
    curves = []
    for _, run in runs:
        own = [i for i, p in enumerate(run.problems) if p in shared]
        curves.append((run.accuracy(middle)[own], [run.problems[i] for i in own]))
    if not shared:
        return []
    means = [np.ma.masked_invalid(stats.sums_by_problem(*c).means).mean(axis=0).filled(np.nan) for c in curves]
    best = best_of(np.array(means))
    return [
        {"label": label, "comparator": BEST_RUN, **record}
        for (label, _), (accuracy, problems) in zip(runs, curves, strict=True)
        for record in at_budgets(mean_gap(accuracy, best), problems, budget)
    ]
