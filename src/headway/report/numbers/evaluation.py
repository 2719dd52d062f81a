"""The paper's evaluation of a run: votes against tokens and episodes, regret against named comparators."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headway.core import stats
from headway.core.regret import best_so_far, budget_curve, mean_gap
from headway.core.segment import block_boundaries
from headway.core.stats import SIGNED, UNIT
from headway.core.votes import maj_at_k
from headway.report.numbers.table import PERFECT, POINTS, RunTable, budget_points, by_budget, entry

MOST_K = 64  # samples that vote or pass together
VOTERS = (1, 2, 4, 8)  # branches that vote at a boundary
BLOCK = 5  # episodes a block of the binned curves has, as in the authors' figure
CELLS = 16  # of the grid on which comparators are integrated, for each budget of the report

BEST_STOP = "per-problem best (the best budget so far of each problem's mean curve)"
VOTING = "maj@k envelope (a vote over whole traces for the same tokens)"

Record = dict[str, Any]
Samples = Float[np.ndarray, " n"]  # a number for each sample
Majorities = Float[np.ndarray, "_ p"]  # maj@p at each boundary of a trace
Cells = list[tuple[int, int, float]]  # trace, boundary, and the accuracy of a vote there


class Votes(NamedTuple):
    """A row for each problem: its samples, and tokens, pass@k and maj@k of k of them, k = 1.. (NaN: too few)."""

    problems: list[str]
    n: Int[np.ndarray, " P"]
    tokens: Float[np.ndarray, "P k"]
    pass_at: Float[np.ndarray, "P k"]
    maj_at: Float[np.ndarray, "P k"]


def evaluate(run: RunTable, *, budget: int) -> dict[str, Any]:
    """The entries of report.json about votes and comparators; budgets go up to `budget` tokens."""
    traces, direct, at_boundaries = trace_votes(run), direct_votes(run), boundary_votes(run)
    return {
        "pass_at_k": by_k(traces, traces.pass_at), "maj_at_k": by_k(traces, traces.maj_at),
        "direct_pass_at_k": by_k(direct, direct.pass_at), "direct_maj_at_k": by_k(direct, direct.maj_at),
        "maj_by_episode": maj_by_episode(run, at_boundaries),
        "maj_by_episode_binned": maj_by_episode_binned(run, at_boundaries),
        "regret_by_comparator": regret_by_comparator(run, traces, budget=budget),
    }  # fmt: skip


def trace_votes(run: RunTable) -> Votes:
    """pass@k and maj@k of whole traces by their own answers."""
    return _votes(run.problems, run.rewards, run.classes, run.tokens)


def direct_votes(run: RunTable) -> Votes:
    """pass@k and maj@k of answers without thinking: the branches at boundary 0 of all of a problem's traces."""
    problems: list[str] = []
    rewards, classes, tokens = [np.empty(0)], [np.empty(0, dtype=int)], [np.empty(0)]
    for problem, tally, curve in zip(run.problems, run.tallies, run.curves, strict=True):
        graded, sampled = tally.graded(0), tally.sampled[0][tally.drawn[0]]
        problems += [problem] * int(graded.sum())
        rewards.append(tally.rewards[0, graded])
        classes.append(tally.classes[0, graded])
        # what an answer costs besides its own tokens is the forced suffix
        tokens.append(tally.sampled[0, graded] + (curve.tokens[0] - sampled.mean() if len(sampled) else 0.0))
    return _votes(problems, np.concatenate(rewards), np.concatenate(classes), np.concatenate(tokens))


def _votes(problems: Sequence[str], rewards: Samples, classes: Int[np.ndarray, " n"], tokens: Samples) -> Votes:
    """Votes over the graded samples of each problem."""
    of_problem: dict[str, list[int]] = defaultdict(list)
    for i, problem in enumerate(problems):
        if not np.isnan(rewards[i]):
            of_problem[problem].append(i)
    most = min(max(map(len, of_problem.values()), default=0), MOST_K)
    spent, passed, won = (np.full((len(of_problem), most), np.nan) for _ in range(3))
    for row, own in enumerate(of_problem.values()):
        right, n = rewards[own] > 0, len(own)
        ks = np.arange(1, min(n, most) + 1)
        spent[row, : len(ks)] = ks * tokens[own].mean()
        passed[row, : len(ks)] = [stats.pass_at_k(n, int(right.sum()), int(k)) for k in ks]
        won[row, : len(ks)] = maj_at_k(classes[own], right, most)
    sizes = np.array([len(own) for own in of_problem.values()], dtype=int)
    return Votes(list(of_problem), sizes, spent, passed, won)


def by_k(votes: Votes, accuracy: Float[np.ndarray, "P k"]) -> list[Record]:
    """A record for k = 1 to 16 and each power of two beyond, over the problems that have so many samples."""
    records = []
    for k in (k for k in range(1, accuracy.shape[1] + 1) if k <= 16 or k & (k - 1) == 0):
        estimate = stats.mean(accuracy[:, k - 1], votes.problems, within=UNIT)
        estimate = estimate._replace(n=int(votes.n[votes.n >= k].sum()))
        records.append({"k": k, "tokens": float(np.nanmean(votes.tokens[:, k - 1])), **entry(estimate)})
    return records


def boundary_votes(run: RunTable) -> list[Majorities]:
    """maj@p of the branches at each boundary of each trace, p = 1.. (NaN: too few)."""
    tables = [np.full((len(tally.positions), VOTERS[-1]), np.nan) for tally in run.tallies]
    for tally, table in zip(run.tallies, tables, strict=True):
        for j, row in enumerate(table):
            graded = tally.graded(j)
            votes = maj_at_k(tally.classes[j, graded], tally.rewards[j, graded] > 0, VOTERS[-1])
            row[: len(votes)] = votes
    return tables


def maj_by_episode(run: RunTable, votes: Sequence[Majorities]) -> list[Record]:
    """[maj@p]_j: a vote over p branches at boundary j, over the traces that have it (`votes`: `boundary_votes`).

    `episodes` is what it costs in episodes: j and one for each further voter.
    """
    records = []
    for p in VOTERS:
        for j in range(max(map(len, votes), default=0)):
            cells = [(i, j, table[j, p - 1]) for i, table in enumerate(votes) if j < len(table)]
            records += vote_record(run, cells, p, {"branches": p, "boundary": j, "episodes": j + p - 1})
    return records


def maj_by_episode_binned(run: RunTable, votes: Sequence[Majorities]) -> list[Record]:
    """[maj@p]_j over traces of like length, as in the authors' figure: at the ends of blocks of `BLOCK` episodes.

    Traces with (b - 1) * BLOCK + 1 to b * BLOCK episodes have b blocks and are one bin. `boundary` counts episodes up
    to the end of a block, as if a trace's last block were full.
    """
    ends = [block_boundaries(len(table) - 1, BLOCK) for table in votes]
    at_ends = [table[at][:, np.array(VOTERS) - 1] for table, at in zip(votes, ends, strict=True)]
    records = []
    for blocks, p, block, cells in votes_by_length(ends, at_ends):
        span = {"episodes_from": (blocks - 1) * BLOCK + 1 if blocks else 0, "episodes_to": blocks * BLOCK}
        named = {**span, "branches": p, "boundary": block * BLOCK, "episodes": block * BLOCK + p - 1}
        records += vote_record(run, cells, p, named)
    return records


def votes_by_length(ends: Sequence[list[int]], votes: Sequence[Majorities]) -> Iterator[tuple[int, int, int, Cells]]:
    """Blocks, p, block, cells: for each number of blocks of a trace, each of `VOTERS` and each end of a block."""
    for size in sorted({len(at) for at in ends}):
        members = [i for i, at in enumerate(ends) if len(at) == size]
        for column, p in enumerate(VOTERS):
            for block in range(size):
                yield size - 1, p, block, [(i, ends[i][block], votes[i][block, column]) for i in members]


def vote_record(run: RunTable, cells: Cells, p: int, named: Record, *, prompt: bool = False) -> list[Record]:
    """The record of a vote over p branches at these places; none where no place has so many.

    Its tokens are the thinking once and p answers, and the prompt if asked for.
    """
    known = [(i, j, accuracy) for i, j, accuracy in cells if not np.isnan(accuracy)]
    if not known:
        return []
    before = run.prompt if prompt else np.zeros(len(run.prompt))
    tokens = [
        before[i] + run.curves[i].tokens[j] + (p - 1) * np.nanmean(run.tallies[i].sampled[j]) for i, j, _ in known
    ]
    accuracies, problems = np.array([accuracy for *_, accuracy in known]), [run.problems[i] for i, *_ in known]
    estimate = stats.mean(accuracies, problems, within=UNIT)
    return [{**named, "tokens": float(np.mean(tokens)), **entry(estimate)}]


def regret_by_comparator(run: RunTable, votes: Votes, *, budget: int) -> list[Record]:
    """Normalized regret against what the run itself could have done, at each budget of the report."""
    middle = grid(budget)
    accuracy = run.accuracy(middle)
    sums = stats.sums_by_problem(accuracy, run.problems)
    best = dict(zip(sums.problems, best_so_far(sums.means), strict=True))
    comparators = {
        PERFECT: np.ones_like(accuracy),
        BEST_STOP: np.array([best[problem] for problem in run.problems]),
        VOTING: np.broadcast_to(envelope(votes, middle), accuracy.shape),
    }
    return [
        {"comparator": name, **record}
        for name, comparator in comparators.items()
        for record in at_budgets(mean_gap(accuracy, comparator), run.problems, budget)
    ]


def grid(budget: int) -> Float[np.ndarray, " C"]:
    """The middles of the cells on which comparators are integrated."""
    cells = POINTS * CELLS
    return (np.arange(cells) + 0.5) * budget / cells


def at_budgets(regret: Float[np.ndarray, "traces C"], problems: Sequence[str], budget: int) -> list[Record]:
    """Records of the grid's columns that end at the report's budgets."""
    return by_budget(regret[:, CELLS - 1 :: CELLS], problems, budget_points(budget), within=SIGNED)


def envelope(votes: Votes, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """The best maj@k of whole traces within each budget, over the problems that have all k; 0 before the first."""
    whole = ~np.isnan(votes.maj_at).any(axis=1)
    if not whole.any():
        return np.zeros(len(budgets))
    tokens, accuracy = votes.tokens[whole].mean(axis=0), votes.maj_at[whole].mean(axis=0)
    return budget_curve(np.maximum(tokens, 1.0), best_so_far(accuracy), budgets)  # empty completions have no token
