"""Parity: the numbers of a run by the authors' own definitions, where those differ from ours (docs/deviations.md)."""

from typing import Any

import numpy as np

from headway.core import stats
from headway.core.regret import authors_budget, episode_regret, normalized_regret
from headway.core.segment import every
from headway.core.votes import logprob_weights, weighted_maj
from headway.report.numbers.evaluation import BLOCK, VOTERS, Ballots, Record, Voted
from headway.report.numbers.table import default_budgets, entry

SHOWN = 6  # blocks that the authors' figure of the episode-based regret shows


def as_authors(run: Voted, *, budget: int) -> dict[str, Any]:
    """Regret and votes as the authors' released analysis has them; budgets go up to `budget` tokens.

    Votes are weighed by log-probability and need an engine that knows it; without, their lists are empty.
    """
    votes = [_votes(b, every(len(b.rewards) - 1, BLOCK)) for b in run.ballots]
    return {
        "normalized_regret": regret(run, budget=budget),
        "episode_regret": episodes(run, votes),
        "maj_by_episode": maj(run, votes),
    }


def regret(run: Voted, *, budget: int) -> list[Record]:
    """Lines from (0, 0), prompt and half the answer counted, perfect comparator (regret.ipynb)."""
    budgets = default_budgets(budget)
    rows = []
    for fact, curve, ballots in zip(run.run.facts, run.run.curves, run.ballots, strict=True):
        drawn = ~np.isnan(ballots.sampled)
        with np.errstate(invalid="ignore", divide="ignore"):
            answer = np.where(drawn, ballots.sampled, 0.0).sum(axis=1) / drawn.sum(axis=1)
        x = authors_budget(np.full(len(answer), float(fact.prompt)), curve.tokens, answer)
        # scored values have no answers whose tokens could be counted
        values = np.where(np.isnan(x), np.nan, curve.values.values)
        rows.append(normalized_regret(x, values, budgets, kind="linear"))
    columns = np.array(rows).reshape(len(rows), len(budgets)).T
    return [
        {"budget": int(b), **entry(stats.mean(column, run.run.problems))}
        for b, column in zip(budgets, columns, strict=True)
    ]


def episodes(run: Voted, votes: list[np.ndarray]) -> list[Record]:
    """Regret over the first b blocks, against the better of thinking on and voting (ICML version, appendix E).

    A trace with fewer than b blocks counts with those it has; one where nothing is ever right is left out.
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
        {"blocks": b + 1, "episodes": 1 + BLOCK * (b + 1), **entry(stats.mean(column, run.run.problems))}
        for b, column in enumerate(table.T)
    ]


def maj(run: Voted, votes: list[np.ndarray]) -> list[Record]:
    """[maj@p]_j with weighed votes, by number of blocks; l blocks are 5 l + {0, 1, 3, 7} episodes."""
    records = []
    sizes = [len(v) - 1 for v in votes]
    for blocks in sorted(set(sizes)):
        members = [i for i, size in enumerate(sizes) if size == blocks]
        for column, p in enumerate(VOTERS):
            for block in range(blocks + 1):
                known = [i for i in members if not np.isnan(votes[i][block, column])]
                if not known:
                    continue
                at = [(i, every(len(run.ballots[i].rewards) - 1, BLOCK)[block]) for i in known]
                tokens = [
                    run.run.facts[i].prompt
                    + run.run.curves[i].tokens[j]
                    + (p - 1) * np.nanmean(run.ballots[i].sampled[j])
                    for i, j in at
                ]
                values = np.array([votes[i][block, column] for i in known])
                records.append(
                    {
                        "blocks": blocks,
                        "branches": p,
                        "block": block,
                        "episodes": BLOCK * block + p - 1,
                        "tokens": float(np.mean(tokens)),
                        **entry(stats.mean(values, [run.run.problems[i] for i in known])),
                    }
                )
    return records


def _votes(ballots: Ballots, ends: list[int]) -> np.ndarray:
    """maj@1, 2, 4, 8 at the ends of blocks, weighed as the authors weigh them; NaN where a weight is unknown."""
    table = np.full((len(ends), len(VOTERS)), np.nan)
    for row, j in zip(table, ends, strict=True):
        at = ballots.at(j)
        weights = logprob_weights(at.logprobs[0], at.sampled[0])
        if not np.isnan(weights).any():
            row[:] = [weighted_maj(at.classes[0], at.rewards[0] > 0, weights, p, ties="half") for p in VOTERS]
    return table
