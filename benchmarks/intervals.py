"""Does each interval of a report cover the truth, with 15, 30, 60 and 120 problems? A simulation, without a model.

    python benchmarks/intervals.py [--runs 1000] [--out results/coverage]

Problems are sampled from a population of known difficulties, traces and branches are coins, and the functions that
make a report make its intervals. Three populations: `uniform` (difficulties spread evenly), `skewed` (as AIME is for a
small model: half the problems near 0) and `rare` (85% of the problems are impossible, 5% of the answers are correct).
A run has `TRACES` traces a problem, `BRANCHES` branches at each of `COLUMNS` budgets, values that rise from a random
point of the trace on, and right-skewed lengths, cut at `LIMIT` tokens. A second run (for differences and token
efficiency) has traces 0.7 times as long and other successes on the same problems.

Writes a JSON file for each population. For each interval and number of problems: the fraction of runs in which it
covers the truth, the simulation's error of that fraction, the mean width, the fraction of runs in which it has no
interval (which count neither way). The intervals by resampling take one in three of the runs.
"""

import argparse
import json
import platform
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headway import __version__
from headway.core import stats
from headway.core.regret import tokens_to_reach
from headway.core.resampling import simultaneous_bands
from headway.core.stats import SIGNED, UNIT, Estimate, by_problem
from headway.core.votes import maj_at_k
from headway.report.numbers import comparison, diagnosis
from headway.report.numbers.evaluation import Votes

TRACES, BRANCHES, COLUMNS, LIMIT = 4, 4, 16, 400.0
SIZES = (15, 30, 60, 120)
LEVEL = 0.4  # of the highest majority: the fixed level of token efficiency
POPULATION = 40_000  # problems whose means are the truth
BINS = (-0.375, -0.125, 0.125, 0.375)  # of progress
SLOW = 3  # the resampled intervals take one of so many runs


class Run(NamedTuple):
    """One run on P problems: a row for each problem, a column for each trace."""

    p: np.ndarray  # the probability that a trace is correct
    rewards: np.ndarray
    tokens: np.ndarray
    classes: np.ndarray  # of answers; 0 is the correct one
    curve: np.ndarray  # P G C: accuracy by branches
    expected: np.ndarray  # the same without the branches' noise
    halves: np.ndarray  # P G C 2: the values by half of the branches


def difficulties(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """The probabilities of success of n problems of a population."""
    if kind == "uniform":
        return rng.random(n)
    if kind == "skewed":
        return np.where(rng.random(n) < 0.5, rng.beta(0.2, 10, n), rng.beta(2, 2, n))
    return np.where(rng.random(n) < 0.85, 0.0, 1 / 3)


def sampled(p: np.ndarray, long: np.ndarray, rng: np.random.Generator, *, scale: float = 1.0) -> Run:
    """A run on problems of these difficulties, whose traces are so long."""
    P = len(p)
    correct = rng.random((P, TRACES)) < p[:, None]
    classes = np.where(correct, 0, 1 + rng.integers(0, 3, (P, TRACES)))
    tokens = np.minimum(long[:, None] * scale * rng.lognormal(0, 0.4, (P, TRACES)), LIMIT)
    rises = rng.integers(0, COLUMNS - 6, (P, TRACES, 1))
    expected = p[:, None, None] * np.clip((np.arange(COLUMNS) - rises + 1) / 6, 0, 1)
    halves = rng.binomial(BRANCHES // 2, expected[..., None], (P, TRACES, COLUMNS, 2)) / (BRANCHES // 2)
    return Run(p, correct.astype(float), tokens, classes, halves.mean(axis=-1), expected, halves)


def two_runs(kind: str, P: int, rng: np.random.Generator) -> tuple[Run, Run]:
    """A run and another on the same problems: better on some, worse on a few."""
    p, long = difficulties(kind, P, rng), rng.lognormal(5, 0.5, P)
    other = np.clip(p + p * (1 - p) * rng.choice([-0.3, 0.0, 0.6], P), 0, 1)
    return sampled(p, long, rng), sampled(other, long, rng, scale=0.7)


def votes(run: Run) -> Votes:
    """Tokens, pass@k and majorities of k traces, k = 1 to `TRACES`."""
    P, ks = len(run.p), np.arange(1, TRACES + 1)
    right = run.rewards.sum(axis=1).astype(int)
    passed = np.array([[stats.pass_at_k(TRACES, int(c), int(k)) for k in ks] for c in range(TRACES + 1)])[right]
    won = np.array([maj_at_k(np.sort(c), np.sort(c) == 0) for c in run.classes])
    return Votes(
        [f"{i:06d}" for i in range(P)], np.full(P, TRACES), run.tokens.mean(axis=1)[:, None] * ks, passed, won
    )


def numbers(a: Run, b: Run) -> dict[str, tuple[np.ndarray, tuple[float, float]]]:
    """The observations whose mean a report prints, a row for each problem, and their bounds."""
    of_a = votes(a)
    curve, step = a.curve, np.diff(a.curve, axis=2)
    regret = 1 - np.cumsum(curve, axis=2) / np.arange(1, COLUMNS + 1)
    middle = COLUMNS // 2
    in_bins = {
        f"progress in {low} to {high}": (((step >= low) & (step < high)).reshape(len(a.p), -1).astype(float), UNIT)
        for low, high in pairwise(BINS)
    }
    return {
        "pass@1, 1 trace": (a.rewards[:, :1], UNIT),
        "pass@1": (a.rewards, UNIT), "pass@2": (of_a.pass_at[:, [1]], UNIT), "pass@4": (of_a.pass_at[:, [3]], UNIT),
        "maj@3": (of_a.maj_at[:, [2]], UNIT), "maj@4": (of_a.maj_at[:, [3]], UNIT),
        "accuracy at the smallest budget": (curve[:, :, 0], UNIT), "accuracy at half": (curve[:, :, middle], UNIT),
        "accuracy at the whole budget": (curve[:, :, -1], UNIT), "regret at half": (regret[:, :, middle], UNIT),
        "regret at the whole budget": (regret[:, :, -1], UNIT), "progress": (step[:, :, middle], SIGNED),
        "tokens": (a.tokens, (0.0, LIMIT)), **in_bins,
        # stands for escapes: events that are rare and differ by problem
        "escape rate": ((a.halves[:, :, 1:4] == 1).all(axis=-1).reshape(len(a.p), -1).astype(float), UNIT),
        "difference of pass@1": (b.rewards.mean(1, keepdims=True) - a.rewards.mean(1, keepdims=True), SIGNED),
        "difference of regret": (curve.mean((1, 2))[:, None] - b.curve.mean((1, 2))[:, None], SIGNED),
        "difference of tokens": (b.tokens.mean(1, keepdims=True) - a.tokens.mean(1, keepdims=True), (-LIMIT, LIMIT)),
    }  # fmt: skip


def ratio_parts(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The two sums of the calibration of errors, by problem (`core.split_half.disagreement`)."""
    squared = (run.halves[..., 0] - run.halves[..., 1]) ** 2
    each = run.halves * (1 - run.halves) / (BRANCHES // 2 - 1)
    return squared.sum(axis=(1, 2)), each.sum(axis=(1, 2, 3))


def truths(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """What the intervals should cover: the means of a large population."""
    a, b = two_runs(kind, POPULATION, rng)
    true: dict[str, Any] = {name: float(x.mean()) for name, (x, _) in numbers(a, b).items()}
    true["curve"] = a.expected.mean(axis=(0, 1))
    of_a, of_b = votes(a), votes(b)
    curves = [(v.tokens.mean(axis=0)[None], v.maj_at.mean(axis=0)[None]) for v in (of_a, of_b)]
    top = min(accuracy.max() for _, accuracy in curves)
    floor = max(accuracy[0, 0] for _, accuracy in curves)
    true["level"] = float(floor + LEVEL * (top - floor))
    for name, level in (("token efficiency, highest", top - 1e-12), ("token efficiency", true["level"])):
        ours, theirs = (tokens_to_reach(*curve, np.array([level])) for curve in curves)
        true[name] = float((ours / theirs)[0])
    squared, expected = ratio_parts(a)
    true["calibration"] = float(squared.sum() / expected.sum())
    reached = true["curve"] >= 0.9 * true["curve"][-1] - 1e-12
    true["budget for 90%"] = float(1 + reached.argmax())
    return true


def resampled_intervals(a: Run, b: Run, true: dict[str, Any]) -> dict[str, Estimate]:
    """The intervals of what is no mean."""
    P, names = len(a.p), [f"{i:06d}" for i in range(len(a.p))]
    curves = stats.ProblemSums(names, a.curve.sum(axis=1), np.full((P, COLUMNS), float(TRACES)))
    found = {
        "calibration": diagnosis.ratio_of_sums(*ratio_parts(a), n=P),
        "budget for 90%": diagnosis.budget_reaching(curves, np.arange(1.0, COLUMNS + 1), 0.9, n=P),
    }
    for name, level in (("token efficiency, highest", None), ("token efficiency", true["level"])):
        record = comparison.efficiency(votes(a), votes(b), level, true["level"])
        found[name] = Estimate(record["value"], record["stderr"], tuple(record["ci95"]), P, P)
    return found


def one_run(kind: str, P: int, true: dict[str, Any], seed: int, *, slow: bool) -> dict[str, tuple[Estimate, float]]:
    """Each interval of one run with P problems, and what it should cover."""
    rng = np.random.default_rng((seed, P))
    a, b = two_runs(kind, P, rng)
    names = np.repeat([f"{i:06d}" for i in range(P)], TRACES)
    found: dict[str, tuple[Estimate, float]] = {}
    for name, (x, within) in numbers(a, b).items():
        found[name] = stats.mean(x.ravel(), np.repeat(names[::TRACES], x.shape[1]).tolist(), within=within), true[name]
    these = [stats.mean_of_these(run.rewards.ravel(), names.tolist(), within=UNIT) for run in (a, b)]
    found["pass@1 on these problems"] = these[0], float(a.p.mean())
    at_end = stats.mean_of_these(a.curve[:, :, -1].ravel(), names.tolist(), within=UNIT)
    found["accuracy at the whole budget on these problems"] = at_end, float(a.p.mean())
    means = [by_problem(run.rewards.ravel(), names.tolist()) for run in (a, b)]
    paired = stats.paired_difference(*means, within=SIGNED).value
    on_these = stats.difference_on_these(*these, paired)
    found["difference of pass@1 on these problems"] = on_these, float(b.p.mean() - a.p.mean())
    k = int(rng.integers(P))
    value = float(a.curve[k, 0, -1])
    found["a value"] = Estimate(value, np.nan, stats.wilson(value * BRANCHES, BRANCHES), BRANCHES, 1), float(a.p[k])
    if slow:
        found |= {name: (estimate, true[name]) for name, estimate in resampled_intervals(a, b, true).items()}
        curve = a.curve.mean(axis=1)
        steps = np.arange(1, COLUMNS + 1)
        for name, x, t in (
            ("band of the budget curve", curve, true["curve"]),
            ("band of the regret", 1 - np.cumsum(curve, axis=1) / steps, 1 - np.cumsum(true["curve"]) / steps),
        ):
            low, high = simultaneous_bands(x)
            inside = bool(np.all((low <= t + 1e-12) & (t <= high + 1e-12)))
            width = float((high - low).mean())
            # as an interval that covers 0 if all of the band does
            found[name] = Estimate(0.0, np.nan, (-width / 2, width / 2), P, P), 0.0 if inside else np.inf
    return found


def coverage(kind: str, P: int, true: dict[str, Any], runs: int, slow: int = SLOW) -> dict[str, dict[str, float]]:
    """Coverage, its error, width and missing intervals of each number, over simulated runs."""
    seen: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    for seed in range(runs):
        for name, (estimate, truth) in one_run(kind, P, true, seed, slow=seed % slow == 0).items():
            low, high = estimate.ci95
            seen[name].append((low, high, low - 1e-9 <= truth <= high + 1e-9))
    found = {}
    for name, rows in seen.items():
        low, high, inside = np.array(rows, dtype=float).T
        known = ~np.isnan(low)
        n, covers = int(known.sum()), float(inside[known].mean()) if known.any() else float("nan")
        found[name] = {
            "covers": round(covers, 4), "error": round(float(np.sqrt(covers * (1 - covers) / max(n, 1))), 4),
            "width": round(float((high - low)[known].mean()), 4) if n else float("nan"), "runs": len(rows),
            "no_interval": round(1 - n / len(rows), 4),
        }  # fmt: skip
    return found


def main() -> None:
    """Writes the files and prints the lowest coverage of each interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/coverage"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lowest: dict[str, tuple[float, str]] = {}
    for kind in ("uniform", "skewed", "rare"):
        start, true = time.monotonic(), truths(kind, np.random.default_rng(1))
        by_size = {P: coverage(kind, P, true, args.runs) for P in SIZES}
        names = {name: {str(P): by_size[P][name] for P in SIZES} for name in by_size[SIZES[0]]}
        for name, sizes in names.items():
            for P, found in sizes.items():
                lowest[name] = min(lowest.get(name, (2.0, "")), (found["covers"], f"{kind}, {P} problems"))
        content = {
            "population": kind, "command": f"python benchmarks/intervals.py --runs {args.runs}",
            "traces": TRACES, "branches": BRANCHES, "intervals": names, "seconds": round(time.monotonic() - start),
            "versions": {"headway": __version__, "numpy": np.__version__, "python": platform.python_version()},
        }  # fmt: skip
        text = json.dumps(content, indent=1).replace("NaN", "null")
        (args.out / f"{kind}.json").write_text(text + "\n", encoding="utf-8")
        print(kind, f"{content['seconds']} s", flush=True)
    for name, (covers, where) in lowest.items():
        print(f"{covers:.3f}  {name} ({where})")


if __name__ == "__main__":
    main()
