"""The numbers of one cell of a study: means, and per problem what paired errors need, packed as text.

A packed row holds a number from 0 to 1 for each problem, in the order of the problem set: two hexadecimal digits, in
steps of 1/250; `ff` is unknown.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from headway.core import stats
from headway.problems import countdown_text
from headway.procedures.sample import shortened
from headway.report.numbers.evaluation import trace_votes
from headway.report.numbers.table import RunTable, budget_points
from headway.types import Trace

STEPS, UNKNOWN = 250, 255
VOTERS = (1, 2, 3, 4, 6, 8, 12, 16)
BINS = 16  # of a training log
LOGGED = (
    "reward", "entropy", "kl", "completions/mean_length", "frac_reward_zero_std", "learning_rate", "grad_norm",
    "step_time", "num_tokens",
)  # fmt: skip


def pack(values: Sequence[float] | Float[np.ndarray, " P"]) -> str:
    """Numbers from 0 to 1 (NaN: unknown) as text."""
    x = np.asarray(values, dtype=float)
    digits = np.where(np.isnan(x), UNKNOWN, np.rint(np.nan_to_num(x) * STEPS))
    return digits.astype(np.uint8).tobytes().hex()


def unpack(text: str) -> Float[np.ndarray, " P"]:
    """The numbers of a packed text."""
    digits = np.frombuffer(bytes.fromhex(text), dtype=np.uint8).astype(float)
    return np.where(digits == UNKNOWN, np.nan, digits / STEPS)


def success(table: RunTable, order: Sequence[str], budgets: Sequence[int]) -> dict[str, str]:
    """The fraction of each problem's traces that answer right by themselves within each thinking budget, packed."""
    within = {b: np.where(table.thinking <= b, table.rewards, 0.0) for b in budgets}
    return {str(b): pack(_by_problem(x, table.problems, order)) for b, x in within.items()}


def curves(table: RunTable, order: Sequence[str], budgets: Sequence[int]) -> dict[str, Any]:
    """Accuracy of forced answers and normalized regret at budgets of completion tokens: packed, and mean curves."""
    at = np.array(budgets, dtype=float)
    fine = np.unique(budget_points(max(budgets)))
    rows = {"accuracy": table.accuracy(at), "regret": table.regret(at)}
    means = {"accuracy": table.accuracy(fine), "regret": table.regret(fine)}
    return {
        **{
            name: {str(b): pack(_by_problem(x, table.problems, order)) for b, x in zip(budgets, of.T, strict=True)}
            for name, of in rows.items()
        },
        "mean_curve": {"budget": fine.astype(int).tolist()}
        | {name: [round(float(np.nanmean(x)), 4) for x in of.T] for name, of in means.items()},
        "boundaries": round(float(table.episodes.mean()) + 1, 2),
    }


def votes(table: RunTable, order: Sequence[str]) -> dict[str, Any]:
    """pass@k and maj@k of whole traces, packed for each k, and the mean tokens of a trace of each problem."""
    made = trace_votes(table)
    place = {problem: row for row, problem in enumerate(made.problems)}
    rows = [place[problem] for problem in order]
    ks = [k for k in VOTERS if k <= made.maj_at.shape[1]]
    return {
        "k": ks,
        "pass_at": {str(k): pack(made.pass_at[rows, k - 1]) for k in ks},
        "maj_at": {str(k): pack(made.maj_at[rows, k - 1]) for k in ks},
        "tokens": np.rint(made.tokens[rows, 0]).astype(int).tolist(),
    }


def written(traces: Iterable[Trace], budget: int) -> dict[str, int]:
    """Counts over Countdown traces cut at a thinking budget: steps, right ones, claims of success, false ones."""
    counts = dict.fromkeys(("steps", "right_steps", "claims", "false_claims"), 0)
    for trace in traces:
        cut = trace if trace.thinking <= budget else shortened(trace, budget)
        right, steps = countdown_text.written(cut.thought)
        claims = cut.closed and countdown_text.claims_success(cut.thought)
        counts["steps"] += steps
        counts["right_steps"] += right
        counts["claims"] += claims
        counts["false_claims"] += bool(claims and cut.reward == 0)
    return counts


def training(log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The log of a training in at most `BINS` bins of steps: means, of what matters; none where nothing was known."""
    rows = [row for row in log if "loss" in row]
    bins = [part for part in np.array_split(np.arange(len(rows)), min(BINS, len(rows) or 1)) if len(part)]
    names = dict.fromkeys(name for row in rows for name in row if name in LOGGED or name.startswith("mrt/"))
    return {
        "step": [int(rows[part[-1]]["step"]) for part in bins],
        **{name: [_mean([rows[i].get(name) for i in part]) for part in bins] for name in names},
    }


def last_known(log: Sequence[dict[str, Any]], name: str) -> float | None:
    """The last number of a name in a log, None where it has none."""
    found = [row[name] for row in log if row.get(name) is not None]
    return found[-1] if found else None


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float) and np.isfinite(v)]
    return float(f"{np.mean(known):.4g}") if known else None


def _by_problem(
    values: Float[np.ndarray, " traces"], problems: Sequence[str], order: Sequence[str]
) -> Float[np.ndarray, " P"]:
    means = stats.by_problem(values, problems)
    return np.array([means.get(problem, np.nan) for problem in order])
