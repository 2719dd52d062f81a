"""The paper's evaluation of a run: votes against tokens and episodes, regret against named comparators.

Entries of report.json and compare.json as plain lists of records, each estimate with its error over problems.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headway.core import stats
from headway.core.regret import best_so_far, budget_curve, mean_gap
from headway.core.segment import every
from headway.core.votes import NO_VOTE, maj_at_k
from headway.report.numbers.table import Measured, default_budgets, entry
from headway.types import Branch

MOST_K = 64  # samples that vote or pass together
VOTERS = (1, 2, 4, 8)  # branches that vote at a boundary
BLOCK = 5  # episodes a block of the binned curves has, as in the authors' figure
CELLS = 16  # of the grid on which comparators are integrated, between two budgets of the report

PERFECT = "perfect (accuracy 1 at every budget)"
BEST_STOP = "per-problem best (the best budget so far of each problem's mean curve)"
VOTING = "maj@k envelope (a vote over whole traces for the same tokens)"

Record = dict[str, Any]


class Ballots(NamedTuple):
    """A trace's branches by boundary, NaN (`NO_VOTE`) where there is none: rewards, answers, lengths, chances."""

    rewards: Float[np.ndarray, "J B"]
    classes: Int[np.ndarray, "J B"]
    sampled: Float[np.ndarray, "J B"]
    logprobs: Float[np.ndarray, "J B"]

    def at(self, boundary: int) -> "Ballots":
        """The graded branches of one boundary, as a row."""
        graded = ~np.isnan(self.rewards[boundary])
        return Ballots(*(column[boundary : boundary + 1, graded] for column in self))


class Voted(NamedTuple):
    """A run with the answers that may vote: the class of each trace's answer, and each trace's ballots."""

    run: Measured
    classes: Int[np.ndarray, " traces"]
    ballots: list[Ballots]


class Votes(NamedTuple):
    """A row for each problem: its samples, and tokens, pass@k and maj@k of k of them, k = 1.. (NaN: too few)."""

    problems: list[str]
    n: Int[np.ndarray, " P"]
    tokens: Float[np.ndarray, "P k"]
    pass_at: Float[np.ndarray, "P k"]
    maj_at: Float[np.ndarray, "P k"]


def voted(
    run: Measured, branches: Sequence[Branch], trace_classes: Sequence[int], branch_classes: Sequence[int]
) -> Voted:
    """Puts branches and their answers' classes on the boundaries of the run's traces."""
    of_trace: dict[tuple[str, int], list[tuple[Branch, int]]] = defaultdict(list)
    for branch, kind in zip(branches, branch_classes, strict=True):
        of_trace[branch.problem_id, branch.index].append((branch, kind))
    ballots = []
    for fact, curve in zip(run.facts, run.curves, strict=True):
        own = of_trace[fact.problem_id, fact.index]
        shape = (len(curve.boundaries), max((b.branch for b, _ in own), default=0) + 1)
        rewards, sampled, logprobs = (np.full(shape, np.nan) for _ in range(3))
        classes = np.full(shape, NO_VOTE)
        for b, kind in own:
            at = b.boundary, b.branch
            rewards[at] = np.nan if b.reward is None else b.reward
            logprobs[at] = np.nan if b.logprob is None else b.logprob
            classes[at], sampled[at] = kind, b.sampled
        ballots.append(Ballots(rewards, classes, sampled, logprobs))
    return Voted(run, np.array(trace_classes, dtype=int), ballots)


def evaluate(run: Voted, *, budget: int) -> dict[str, Any]:
    """The entries of report.json about votes and comparators; budgets go up to `budget` tokens."""
    traces, direct = trace_votes(run), direct_votes(run)
    return {
        "pass_at_k": by_k(traces, traces.pass_at),
        "maj_at_k": by_k(traces, traces.maj_at),
        "direct_pass_at_k": by_k(direct, direct.pass_at),
        "direct_maj_at_k": by_k(direct, direct.maj_at),
        "maj_by_episode": maj_by_episode(run),
        "maj_by_episode_binned": maj_by_episode_binned(run),
        "regret_by_comparator": regret_by_comparator(run, traces, budget=budget),
    }


def trace_votes(run: Voted) -> Votes:
    """pass@k and maj@k of whole traces by their own answers."""
    return _votes(run.run.problems, run.run.pass_at_1(), run.classes, run.run.tokens())


def direct_votes(run: Voted) -> Votes:
    """pass@k and maj@k of answers without thinking: the branches at boundary 0 of all of a problem's traces."""
    problems: list[str] = []
    rewards, classes, tokens = ([] for _ in range(3))
    for problem, ballots, curve in zip(run.run.problems, run.ballots, run.run.curves, strict=True):
        row = ballots.at(0)
        drawn = ballots.sampled[0][~np.isnan(ballots.sampled[0])]
        problems += [problem] * row.rewards.size
        rewards.append(row.rewards[0])
        classes.append(row.classes[0])
        # what an answer costs besides its own tokens is the forced suffix
        tokens.append(row.sampled[0] + (curve.tokens[0] - drawn.mean()) if len(drawn) else row.sampled[0])
    if not problems:
        return _votes([], np.array([]), np.array([], dtype=int), np.array([]))
    return _votes(problems, np.concatenate(rewards), np.concatenate(classes), np.concatenate(tokens))


def _votes(
    problems: Sequence[str],
    rewards: Float[np.ndarray, " n"],
    classes: Int[np.ndarray, " n"],
    tokens: Float[np.ndarray, " n"],
) -> Votes:
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
    most = accuracy.shape[1]
    records = []
    for k in (k for k in range(1, most + 1) if k <= 16 or k & (k - 1) == 0):
        estimate = stats.mean(accuracy[:, k - 1], votes.problems)._replace(n=int(votes.n[votes.n >= k].sum()))
        records.append({"k": k, "tokens": float(np.nanmean(votes.tokens[:, k - 1])), **entry(estimate)})
    return records


def maj_by_episode(run: Voted) -> list[Record]:
    """[maj@p]_j: a vote over p branches at boundary j, over the traces that have it.

    `episodes` is what it costs in episodes, j and one for each further voter; `tokens` what it costs in tokens, the
    thinking once and p answers.
    """
    longest = max((len(c.boundaries) for c in run.run.curves), default=0)
    tables = [_boundary_votes(b) for b in run.ballots]
    records = []
    for p in VOTERS:
        for j in range(longest):
            there = [i for i, table in enumerate(tables) if j < len(table)]
            records += _voters(
                run, tables, [(i, j) for i in there], p, {"branches": p, "boundary": j, "episodes": j + p - 1}
            )
    return records


def maj_by_episode_binned(run: Voted, *, width: int = BLOCK) -> list[Record]:
    """[maj@p]_j over traces of like length, as the authors' figure has it: at the ends of blocks of `width` episodes.

    Traces with (b - 1) * width + 1 to b * width episodes have b blocks and are one bin. `boundary` counts episodes up
    to the end of a block (those of a bin's last block are what each trace has).
    """
    bins: dict[int, list[int]] = defaultdict(list)
    for i, curve in enumerate(run.run.curves):
        bins[-(-(len(curve.boundaries) - 1) // width)].append(i)
    tables = [_boundary_votes(b) for b in run.ballots]
    records = []
    for blocks, members in sorted(bins.items()):
        ends = [every(len(run.run.curves[i].boundaries) - 1, width) for i in members]
        for p in VOTERS:
            for block in range(blocks + 1):
                at = [(i, e[min(block, len(e) - 1)]) for i, e in zip(members, ends, strict=True)]
                span = {"episodes_from": (blocks - 1) * width + 1 if blocks else 0, "episodes_to": blocks * width}
                boundary = block * width
                named = {**span, "branches": p, "boundary": boundary, "episodes": boundary + p - 1}
                records += _voters(run, tables, at, p, named)
    return records


def _boundary_votes(ballots: Ballots) -> list[np.ndarray]:
    """maj@1.. at each boundary of a trace, as many as it has branches."""
    rows = (ballots.at(j) for j in range(len(ballots.rewards)))
    return [maj_at_k(row.classes[0], row.rewards[0] > 0, VOTERS[-1]) for row in rows]


def _voters(
    run: Voted, tables: list[list[np.ndarray]], at: list[tuple[int, int]], p: int, named: Record
) -> list[Record]:
    """The record of a vote over p branches at these boundaries (trace, boundary); none where nobody has so many."""
    at = [(i, j) for i, j in at if len(tables[i][j]) >= p]
    if not at:
        return []
    values = np.array([tables[i][j][p - 1] for i, j in at])
    answers = [np.nanmean(run.ballots[i].sampled[j]) for i, j in at]
    tokens = [run.run.curves[i].tokens[j] + (p - 1) * a for (i, j), a in zip(at, answers, strict=True)]
    estimate = stats.mean(values, [run.run.problems[i] for i, _ in at])
    return [{**named, "tokens": float(np.mean(tokens)), **entry(estimate)}]


def regret_by_comparator(run: Voted, votes: Votes, *, budget: int) -> list[Record]:
    """Normalized regret against what the run itself could have done, at each budget of the report."""
    middle = grid(budget)
    accuracy = run.run.accuracy(middle)
    of_problem = best_so_far(problem_means(accuracy, run.run.problems))
    place = {p: row for row, p in enumerate(dict.fromkeys(run.run.problems))}
    comparators = {
        PERFECT: np.ones_like(accuracy),
        BEST_STOP: of_problem[[place[p] for p in run.run.problems]] if len(accuracy) else accuracy,
        VOTING: np.broadcast_to(envelope(votes, middle), accuracy.shape),
    }
    return [
        {"comparator": name, **record}
        for name, comparator in comparators.items()
        for record in at_budgets(mean_gap(accuracy, comparator), run.run.problems, budget)
    ]


def grid(budget: int) -> Float[np.ndarray, " C"]:
    """The middles of the cells on which comparators are integrated, `CELLS` for each of the report's 16 budgets."""
    cells = 16 * CELLS
    return (np.arange(cells) + 0.5) * budget / cells


def at_budgets(regret: Float[np.ndarray, "traces C"], problems: Sequence[str], budget: int) -> list[Record]:
    """Records of the grid's columns that end at the report's budgets."""
    budgets = np.ceil(np.arange(1, 17) * budget / 16)
    columns = regret[:, CELLS - 1 :: CELLS].T
    shown = {int(b): entry(stats.mean(column, problems)) for b, column in zip(budgets, columns, strict=True)}
    return [{"budget": b, **shown[b]} for b in map(int, default_budgets(budget))]


def problem_means(accuracy: Float[np.ndarray, "traces C"], problems: Sequence[str]) -> Float[np.ndarray, "P C"]:
    """Each problem's mean curve, in the order the problems come; traces without a curve are left out."""
    names = {p: row for row, p in enumerate(dict.fromkeys(problems))}
    rows = np.array([names[p] for p in problems], dtype=int)
    known = ~np.isnan(accuracy)
    total, count = (np.zeros((len(names), accuracy.shape[1])) for _ in range(2))
    np.add.at(total, rows, np.where(known, accuracy, 0.0))
    np.add.at(count, rows, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / count


def envelope(votes: Votes, budgets: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """The best maj@k of whole traces within each budget, over the problems that have all k; 0 before the first."""
    whole = ~np.isnan(votes.maj_at).any(axis=1)
    if not whole.any():
        return np.zeros(len(budgets))
    tokens, accuracy = votes.tokens[whole].mean(axis=0), votes.maj_at[whole].mean(axis=0)
    return budget_curve(tokens, best_so_far(accuracy), budgets)
