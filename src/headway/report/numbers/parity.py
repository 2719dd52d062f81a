"""Parity: a run's numbers by the authors' own definitions, where those differ from ours (docs/deviations.md)."""

from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.regret import authors_budget, episode_regret, normalized_regret
from headway.core.segment import block_boundaries
from headway.core.stats import UNIT
from headway.core.tally import Tally
from headway.core.votes import logprob_weights, weighted_maj
from headway.report.numbers.evaluation import BLOCK, VOTERS, Record, vote_record, votes_by_length
from headway.report.numbers.table import RunTable, budget_points, by_budget, entry

SHOWN = 6  # blocks that the authors' figure of the episode-based regret shows


def as_authors(run: RunTable, *, budget: int) -> dict[str, Any]:
    """Regret and votes as in the authors' released analysis; budgets go up to `budget` tokens.

    Votes are weighted by log-probability: without an engine that reports it their lists are empty.
    """
    ends = [block_boundaries(len(t.positions) - 1, BLOCK) for t in run.tallies]
    votes = [_votes(t, at) for t, at in zip(run.tallies, ends, strict=True)]
    return {
        "normalized_regret": regret(run, budget=budget),
        "episode_regret": episodes(run, votes),
        "maj_by_episode": maj(run, ends, votes),
    }


def regret(run: RunTable, *, budget: int) -> list[Record]:
    """Lines from (0, 0), prompt and half the answer counted, perfect comparator (regret.ipynb)."""
    budgets = np.unique(budget_points(budget))
    rows = []
    for prompt, tally, curve in zip(run.prompt, run.tallies, run.curves, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            answer = np.where(tally.drawn, tally.sampled, 0.0).sum(axis=1) / tally.drawn.sum(axis=1)
        x = authors_budget(np.full(len(answer), prompt), curve.tokens, answer)
        # scored values have no answers whose tokens could be counted
        values = np.where(np.isnan(x), np.nan, curve.values.values)
        rows.append(normalized_regret(x, values, budgets, kind="linear"))
    return by_budget(np.array(rows).reshape(len(rows), len(budgets)), run.problems, budgets)


def episodes(run: RunTable, votes: list[Float[np.ndarray, "_ 4"]]) -> list[Record]:
    """Regret over the first b blocks, against the better of thinking on and voting (ICML version, appendix E).

    A trace with fewer than b blocks counts with those it has; one where nothing is ever correct is left out.
    """
    table = np.full((len(votes), SHOWN), np.nan)
    for row, maj_by_block in zip(table, votes, strict=True):
        found = episode_regret(maj_by_block)[:SHOWN]
        if len(found):
            row[: len(found)] = found
            row[len(found) :] = found[-1]
    if np.isnan(table).all():
        return []
    return [
        {"blocks": b + 1, "episodes": 1 + BLOCK * (b + 1), **entry(stats.mean(column, run.problems, within=UNIT))}
        for b, column in enumerate(table.T)
    ]


def maj(run: RunTable, ends: list[list[int]], votes: list[Float[np.ndarray, "_ 4"]]) -> list[Record]:
    """[maj@p]_j with weighted votes, by number of blocks; l blocks are 5 l + {0, 1, 3, 7} episodes."""
    records = []
    for blocks, p, block, cells in votes_by_length(ends, votes):
        named = {"blocks": blocks, "branches": p, "block": block, "episodes": BLOCK * block + p - 1}
        records += vote_record(run, cells, p, named, prompt=True)
    return records


def _votes(tally: Tally, ends: list[int]) -> Float[np.ndarray, "blocks 4"]:
    """maj@1, 2, 4, 8 at the ends of blocks, weighted as by the authors; NaN where a weight is unknown."""
    table = np.full((len(ends), len(VOTERS)), np.nan)
    for row, j in zip(table, ends, strict=True):
        graded = tally.graded(j)
        weights = logprob_weights(tally.logprobs[j, graded], tally.sampled[j, graded])
        if not np.isnan(weights).any():
            classes, right = tally.classes[j, graded], tally.rewards[j, graded] > 0
            row[:] = [weighted_maj(classes, right, weights, p, ties="half") for p in VOTERS]
    return table
