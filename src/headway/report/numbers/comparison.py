"""Comparing runs: estimates, paired differences, tokens for equal accuracy, and regret against the best run."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.core.regret import best_of, mean_gap, tokens_to_reach
from headway.core.resampling import bootstrap_estimate, resampled, simultaneous_bands
from headway.core.stats import SIGNED, UNIT, Within
from headway.report.numbers.evaluation import Record, Votes, at_budgets, grid, trace_votes
from headway.report.numbers.findings import cautions, findings
from headway.report.numbers.table import RunTable, budget_points, by_budget, entry
from headway.report.quantities import QUANTITIES, label_of, place
from headway.report.text import interval, plus_minus, visible
from headway.types import HeadwayError

BEST_RUN = "best of runs (the highest mean curve at each budget)"
BOTH_RIGHT = 25  # problems that both runs have right once, without which no interval of token efficiency covers
SPACING = 1.25  # ratio of two runs' mean boundary spacings above which a warning is due
# settings that two runs should share, and what differs with them
UNLIKE = {
    "grader": "graders differ on the same answers, in public reports by up to 8 points",
    "temperature": "traces differ in more than the model",
    "top_p": "traces differ in more than the model",
    "values": "values are estimated in different ways",
}
LEVELS = 5  # accuracies at which the tokens of two runs are compared, besides the highest that both reach
DESCRIPTION = ("model", "problems", "n_problems", "n_traces", "budget", "comparator")


Key = tuple[str, int | None]  # a quantity, and the budget or the number of traces that it is at
Observed = dict[Key, tuple[Float[np.ndarray, " n"], list[str]]]  # numbers, and the problem of each


def compare(runs: Sequence[tuple[str, RunTable, dict[str, Any]]], budgets: Sequence[int]) -> dict[str, Any]:
    """The content of compare.json: each run's estimates, and its differences from the first run.

    An estimate is over all problems of its run, a difference (this run minus the first) over those that both have,
    between each problem's means; its `these_problems` has the errors if the problems are fixed. `runs` has each run's
    label, table and report (`summarize`); `budgets` are in completion tokens. `cautions` of a run say why its numbers
    may mislead, `warnings` what two runs' numbers do not have in common, and `findings` in a sentence what the
    intervals show.

    Raises:
        HeadwayError: two runs have the same label, or one shares no problem with the first.
    """
    labels = [label for label, _, _ in runs]
    if len(set(labels)) < len(labels):
        raise HeadwayError(f"runs to compare need different labels, got {', '.join(labels)}")
    against, first, _ = runs[0]
    votes = [trace_votes(run) for _, run, _ in runs]
    most = min(v.pass_at.shape[1] for v in votes)  # traces that all runs have of some problem
    base: dict[Key, dict[str, float]] = {}
    of_first: Observed = {}
    compared: list[dict[str, Any]] = []
    for (label, run, report), voted in zip(runs, votes, strict=True):
        shared = set(first.problems) & set(run.problems)
        if not shared:
            raise HeadwayError(
                f"runs '{against}' and '{label}' share no problem: one has '{first.problems[0]}' and so on, the other "
                f"'{run.problems[0]}'; measure both on the same problems"
            )
        observed = _observations(run, voted, budgets, most)
        means = {key: stats.by_problem(*x) for key, x in observed.items()}
        within = {key: _within(key[0], report) for key in observed}
        estimates = {key: stats.mean(*x, within=within[key]) for key, x in observed.items()}
        widest = {key: max(w[1], (_within(key[0], runs[0][2]) or w)[1]) for key, w in within.items() if w}
        either = {key: (-widest[key], widest[key]) if key in widest else None for key in within}
        differences = {key: stats.paired_difference(base[key], means[key], within=either[key]) for key in base}
        described = {"label": label, **{key: report[key] for key in DESCRIPTION}, "common_problems": len(shared)}
        described["cautions"] = cautions(report)
        for name, found in (("estimates", estimates), ("differences", differences)):
            described[name] = [{"quantity": q, **place(q, at), **entry(e)} for (q, at), e in found.items()]
        for record, key in zip(described["differences"], differences, strict=True):
            a, b = (_on_these(*o[key], shared, within[key]) for o in (of_first, observed))
            on_these = stats.difference_on_these(a, b, differences[key].value)
            record["these_problems"] = {"stderr": on_these.stderr, "ci95": list(on_these.ci95)}
        compared.append(described)
        base, of_first = base or means, of_first or observed
    return {
        "against": against, "budgets": list(budgets), "runs": compared, "warnings": _warnings(runs, budgets),
        "findings": findings(against, compared[1:]), "difference_curve": difference_curves(runs),
    }  # fmt: skip


def difference_curves(runs: Sequence[tuple[str, RunTable, dict[str, Any]]]) -> list[Record]:
    """The accuracy of each run minus the first run's at each budget that both reach, paired by problem.

    `band` bounds all budgets of a run at once.
    """
    (_, first, base), records = runs[0], list[Record]()
    for label, run, report in runs[1:]:
        end = min(r["budget_curve"][-1]["budget"] for r in (base, report))
        budgets = np.unique(budget_points(end))
        sums = [stats.sums_by_problem(r.accuracy(budgets), r.problems) for r in (first, run)]
        both = [p for p in sums[0].problems if p in set(sums[1].problems)]
        a, b = (s.means[[s.problems.index(p) for p in both]] for s in sums)
        bands = simultaneous_bands(b - a, within=SIGNED)
        for record, band in zip(by_budget(b - a, both, budgets, within=SIGNED), bands.T.tolist(), strict=True):
            records.append({"label": label, **record, "band": band})
    return records


def _warnings(runs: Sequence[tuple[str, RunTable, dict[str, Any]]], budgets: Sequence[int]) -> list[str]:
    """What makes two runs' numbers unlike, in a sentence each."""
    (against, first, _), found = runs[0], []
    base = first.mean_spacing
    for label, run, report in runs:
        end = report["budget_curve"][-1]["budget"]
        if beyond := [b for b in budgets if b > end]:
            found.append(
                f"'{label}' was measured up to {end} tokens: at {', '.join(map(str, beyond))} its curve goes on flat, "
                "and thinking that was cut counts as if it had ended there"
            )
        for name, says in UNLIKE.items():
            ours, theirs = (r.get("settings", {}).get(name) for r in (report, runs[0][2]))
            if ours != theirs:
                found.append(f"'{label}' has {name} {ours}, '{against}' {theirs}: {says}")
        apart = run.mean_spacing
        if max(apart, base) > SPACING * min(apart, base):
            found.append(
                f"'{label}' has {apart:.0f} tokens between boundaries, '{against}' {base:.0f}: regret is higher where "
                "they are farther apart; measure both with --segment tokens"
            )
    return found


def _within(quantity: str, report: dict[str, Any]) -> Within | None:
    """The bounds of a quantity, as in the report (`summarize`); None where it has no upper one."""
    if quantity in ("pass_at_1", "pass_at_k", "maj_at_k", "normalized_regret", "accuracy"):
        return UNIT
    answer = report["answer_tokens"] if quantity == "tokens" else 0
    return None if quantity == "episodes" else (0.0, float(report["budget"] + answer))


def _on_these(
    x: Float[np.ndarray, " n"], problems: list[str], shared: set[str], within: Within | None
) -> stats.Estimate:
    own = [i for i, problem in enumerate(problems) if problem in shared]
    return stats.mean_of_these(x[own], [problems[i] for i in own], within=within)


def token_efficiency(runs: Sequence[tuple[str, RunTable]]) -> list[Record]:
    """The tokens that the first run needs per token of each other run, at equal maj@k (paper, Fig. 7).

    The horizontal gap between the two curves of maj@k against tokens, on the problems that both have. `accuracy` is
    the level; where `highest` is true, each resample uses the highest level that both reach in it. `reached` is the
    fraction of resamples in which both reach the level; the error leaves out the others. There is no interval where
    fewer than 25 problems are right at least once in both runs, since the highest level is a maximum, nor where more
    than one resample in 40 does not reach the level.
    """
    (against, first), *others = runs
    records = []
    for label, run in others:
        a, b = _common_problems(trace_votes(first), trace_votes(run))
        if len(a.problems) == 0:
            continue
        ceiling = _common_curves(np.ones((1, len(a.problems))), a, b)[1][0]
        floor = max(a.maj_at[:, 0].mean(), b.maj_at[:, 0].mean())
        levels = np.linspace(floor, ceiling, LEVELS, endpoint=False).tolist() if floor < ceiling else []
        for level in (None, *levels):
            records.append({"label": label, "against": against, **efficiency(a, b, level, float(ceiling))})
    return records


def efficiency(a: Votes, b: Votes, level: float | None, ceiling: float) -> Record:
    """The numbers of one record: the ratio of the tokens of the two votes at a level (None: the highest)."""

    def ratio(weights: Float[np.ndarray, "rows P"]) -> Float[np.ndarray, " rows"]:
        curves, common = _common_curves(weights, a, b)
        wanted = common if level is None else np.full(len(weights), level)
        ours, theirs = (tokens_to_reach(tokens, accuracy, wanted) for tokens, accuracy in curves)
        return ours / theirs

    P = len(a.problems)
    both_right = int(((a.maj_at.max(axis=1) > 0) & (b.maj_at.max(axis=1) > 0)).sum())
    telling = both_right if both_right >= BOTH_RIGHT else 0
    estimate = bootstrap_estimate(ratio, P, n=int(a.n.sum() + b.n.sum()), telling=telling)
    reached = float((~np.isnan(ratio(resampled(P)))).mean()) if P > 1 else np.nan
    accuracy = ceiling if level is None else level
    return {"accuracy": accuracy, "highest": level is None, "reached": reached, **entry(estimate)}


def _common_curves(
    weights: Float[np.ndarray, "rows P"], a: Votes, b: Votes
) -> tuple[list[tuple[Float[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]], Float[np.ndarray, " rows"]]:
    """Both runs' mean tokens and maj@k for each row of weights, and the highest accuracy that both reach."""
    share = weights / weights.sum(axis=1, keepdims=True)
    curves = [(share @ votes.tokens, share @ votes.maj_at) for votes in (a, b)]
    # slightly below the top, so that the sum's last bit does not decide whether it is reached
    return curves, np.minimum(*(accuracy.max(axis=1) for _, accuracy in curves)) - 1e-12


def _common_problems(a: Votes, b: Votes) -> tuple[Votes, Votes]:
    """Both restricted to the problems they share and the k that all of those have."""
    both = [p for p in a.problems if p in set(b.problems)]

    def restricted(votes: Votes) -> Votes:
        place = {p: row for row, p in enumerate(votes.problems)}
        rows = np.array([place[p] for p in both], dtype=int)
        whole = ~np.isnan(votes.tokens[rows]).any(axis=0)
        return Votes(both, votes.n[rows], *(t[rows][:, whole] for t in votes[2:]))

    return restricted(a), restricted(b)


def regret_against_best(runs: Sequence[tuple[str, RunTable]], *, budget: int) -> list[Record]:
    """Normalized regret of each run against the best of them at each budget, on the problems that all have."""
    shared = set.intersection(*(set(run.problems) for _, run in runs))
    if not shared:
        return []
    curves = []
    for _, run in runs:
        own = [i for i, p in enumerate(run.problems) if p in shared]
        curves.append((run.accuracy(grid(budget))[own], [run.problems[i] for i in own]))
    means = [np.ma.masked_invalid(stats.sums_by_problem(*c).means).mean(axis=0).filled(np.nan) for c in curves]
    best = best_of(np.array(means))
    return [
        {"label": label, "comparator": BEST_RUN, **record}
        for (label, _), (accuracy, problems) in zip(runs, curves, strict=True)
        for record in at_budgets(mean_gap(accuracy, best), problems, budget)
    ]


def estimate_rows(comparison: dict[str, Any]) -> list[list[str]]:
    """A header and a row for each quantity, with a cell `0.412 ± 0.018` for each run."""
    runs = comparison["runs"]
    return [["", *(run["label"] for run in runs)], *_rows([run["estimates"] for run in runs], plus_minus)]


def difference_rows(comparison: dict[str, Any]) -> list[list[str]]:
    """A header and a row for each quantity: `+0.031 ± 0.012 (95% +0.007 to +0.055)` for each run but the first."""

    def cell(record: Record, digits: int) -> str:
        return f"{plus_minus(record, digits, signed=True)} (95% {interval(record, digits, signed=True)})"

    runs = comparison["runs"][1:]
    header = ["", *(f"{run['label']} − {comparison['against']}" for run in runs)]
    return [header, *_rows([run["differences"] for run in runs], cell)]


def _rows(records_of_runs: list[list[Record]], cell: Callable[[Record, int], str]) -> Iterator[list[str]]:
    for records in zip(*records_of_runs, strict=True):
        digits = QUANTITIES[records[0]["quantity"]].digits
        yield [label_of(records[0]), *(cell(record, digits) for record in records)]


def markdown_table(comparison: dict[str, Any]) -> str:
    """The estimates as a Markdown table, and the differences as a second one where there is more than one run."""
    tables = [estimate_rows(comparison), *([difference_rows(comparison)] if len(comparison["runs"]) > 1 else [])]
    found = [markdown_cell(sentence) + "\n" for sentence in comparison.get("findings", ())]
    warnings = [markdown_cell(f"Warning: {warning}") + "\n" for warning in comparison.get("warnings", ())]
    return "\n".join([*found, *map(markdown, tables), *warnings])


def _observations(run: RunTable, votes: Votes, budgets: Sequence[int], most: int) -> Observed:
    """What is observed of each quantity: numbers of traces, or of problems where k = `most` traces make one."""
    at = np.array(budgets, dtype=float)
    each: dict[Key, Float[np.ndarray, " traces"]] = {
        ("tokens", None): run.tokens, ("thinking_tokens", None): run.thinking, ("episodes", None): run.episodes,
        ("spacing", None): run.spacing,
        **{("normalized_regret", b): x for b, x in zip(budgets, run.regret(at).T, strict=True)},
        **{("accuracy", b): x for b, x in zip(budgets, run.accuracy(at).T, strict=True)},
    }  # fmt: skip
    several: Observed = {}
    if most > 1:
        of_k = {"pass_at_k": votes.pass_at, "maj_at_k": votes.maj_at}
        several = {(name, most): (x[:, most - 1], votes.problems) for name, x in of_k.items()}
    return (
        {("pass_at_1", None): (run.rewards, run.problems)} | several | {k: (x, run.problems) for k, x in each.items()}
    )


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its header."""
    cells = [[markdown_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * max(w, 3) for w in widths) + " |")
    return "\n".join(lines) + "\n"


def markdown_cell(text: str) -> str:
    """Foreign text for a Markdown table: on one line, without markup, links or hidden characters."""
    return re.sub(r"[|<\[`]", r"\\\g<0>", visible(" ".join(text.split())))
