"""Do the error bars cover the truth? Problems are drawn anew for each seed, and the truth is that of all problems.

    python benchmarks/coverage.py [--whole 100] [--fast 4000] [--adaptive 1000]

The scripted engine's values rise evenly over six episodes, from and to where two bytes of a hash of the problem's id
say. So the expected normalized regret over all problems is a sum over the 65,536 pairs of bytes, with the expected
cost of an answer at each boundary; nothing is estimated. Each seed measures 200 problems, with 2 traces each and 4
branches at each boundary, and looks if the truth is within two standard errors and within the 95% interval.

`whole` runs what `headway measure` runs, run folder, engine and grader included. `fast` draws the same branches as
coins and puts them through the same estimators, which makes thousands of seeds. `adaptive` is `fast` with as many
branches where `headway.procedures.adaptive` puts them. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headway import __version__
from headway.core import stats
from headway.core.regret import normalized_regret
from headway.core.values import from_branches
from headway.engines.scripted import ramps
from headway.procedures.adaptive import Target, answer_costs, first_rounds, more_rounds
from headway.procedures.sample import TraceKey
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import BranchHead, Problem

PROBLEMS, TRACES, BRANCHES, EPISODES = 200, 2, 4, 6
BUDGET, ANSWER_TOKENS, ANSWER = 256, 16, "42"
RIGHT, WRONG = len("42}"), len("not 42}")
WHOLE = float(BUDGET + ANSWER_TOKENS)


class Seen(NamedTuple):
    """What one seed measured: an estimate of the regret, its error, and its interval."""

    value: float
    stderr: float
    low: float
    high: float


def problems(seed: int) -> list[Problem]:
    """New problems for each seed, all with the same answer."""
    return [Problem(f"{seed}-{i}", f"Problem {seed}-{i}.", ANSWER) for i in range(PROBLEMS)]


def settings(folder: Path, seed: int) -> Settings:
    """A measurement of the seed's problems."""
    file = folder / "problems.jsonl"
    file.write_text(
        "".join(json.dumps({"id": p.id, "prompt": p.prompt, "answer": p.answer}) + "\n" for p in problems(seed))
    )
    return Settings.of(
        model="scripted", problems=str(file), grader="exact", traces=TRACES, branches=BRANCHES, budget=BUDGET,
        answer_tokens=ANSWER_TOKENS, seed=seed,
    )  # fmt: skip


def whole(seed: int) -> Seen:
    """A seed through run folder, engine and grader."""
    with tempfile.TemporaryDirectory() as folder:
        with Measurement.create(Path(folder, "run"), settings(Path(folder), seed)) as measurement:
            measurement.sample()
            measurement.prove()
            made = measurement.table()
        return seen(made.regret(np.array([WHOLE]))[:, 0], made.problems)


def bare_costs() -> np.ndarray:
    """What an answer costs at each boundary but for its own tokens; the same for each problem."""
    with tempfile.TemporaryDirectory() as folder:
        with Measurement.create(Path(folder, "run"), settings(Path(folder), 0)) as measurement:
            measurement.problems.problems[1:] = []
            measurement.sample()
            costs = answer_costs(measurement.run.traces(), measurement.prover.forced)
        return next(iter(costs.values()))


def truth(costs: np.ndarray) -> float:
    """The normalized regret over all problems, at the expected costs."""
    ramp = np.arange(EPISODES + 1) / EPISODES
    total = 0.0
    for a, b in product(range(256), repeat=2):
        low, high = sorted((a / 255, b / 255))
        V = low + (high - low) * ramp
        c = np.append(costs + np.mean(RIGHT * V + WRONG * (1 - V)), WHOLE)
        total += 1 - float(np.sum(np.diff(c) * V)) / WHOLE
    return total / 256**2


def fast(arguments: tuple[int, np.ndarray, bool]) -> Seen:
    """A seed with coins for branches: all boundaries the same number, or adaptively as many in all."""
    seed, costs, adaptively = arguments
    rng = np.random.default_rng(seed)
    made = problems(seed)
    script = ramps(made, episodes=EPISODES)
    keys: list[TraceKey] = [(p.id, g) for p in made for g in range(TRACES)]
    V = np.array([script[problem] for problem, _ in keys])
    n = np.full(V.shape, BRANCHES)
    if adaptively:
        target = Target(None, BRANCHES * V.size, "regret", int(WHOLE), 2)
        first = (rng.random((*V.shape, 2)) < V[..., None]).astype(float)
        drawn = [BranchHead(*keys[i], j, b, RIGHT if r else WRONG, r) for (i, j, b), r in np.ndenumerate(first)]
        of_trace = dict.fromkeys(keys, costs)
        assert all(len(r) == 1 for row in first_rounds(of_trace, target).values() for r in row)
        rounds = more_rounds(of_trace, drawn, target)
        n = np.array([[2 + 2 * len(r) for r in rounds[key]] for key in keys])
    rewards = (rng.random((*V.shape, n.max())) < V[..., None]).astype(float)
    if adaptively:
        rewards[..., :2] = first
    rewards[np.arange(n.max()) >= n[..., None]] = np.nan
    lengths = np.where(rewards == 1, RIGHT, np.where(rewards == 0, WRONG, np.nan))
    tokens = costs + np.nanmean(lengths, axis=2).mean(axis=1, keepdims=True)
    at = np.array([WHOLE])
    regret = [normalized_regret(t, from_branches(r).values, at)[0] for t, r in zip(tokens, rewards, strict=True)]
    return seen(np.array(regret), [problem for problem, _ in keys])


def seen(regret: np.ndarray, problem_ids: list[str]) -> Seen:
    """The estimate over a seed's traces."""
    e = stats.mean(regret, problem_ids)
    return Seen(e.value, e.stderr, *e.ci95)


def covered(all_seen: list[Seen], true: float) -> dict[str, float]:
    """How often the truth is within two errors, and within the interval; the bias in units of the error."""
    value, stderr, low, high = np.array(all_seen).T
    inside = (low <= true) & (true <= high)
    return {
        "seeds": len(value),
        "within_2_stderr": float(np.mean(np.abs(value - true) <= 2 * stderr)),
        "ci95_covers": float(inside.mean()),
        "ci95_covers_stderr": float(np.sqrt(inside.mean() * (1 - inside.mean()) / len(value))),
        "bias": float(np.mean(value - true)),
        "bias_stderr": float(np.std(value) / np.sqrt(len(value))),
        "mean_stderr": float(stderr.mean()),
        "spread_of_estimates": float(value.std(ddof=1)),
    }


def main() -> None:
    """Prints a line for each way and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", type=int, default=100, help="seeds")
    parser.add_argument("--fast", type=int, default=4000, help="seeds")
    parser.add_argument("--adaptive", type=int, default=1000, help="seeds")
    args = parser.parse_args()
    costs = bare_costs()
    true = truth(costs)
    print(f"true normalized regret at {WHOLE:.0f} tokens: {true:.6f}", flush=True)
    out: dict[str, Any] = {"truth": true, "problems": PROBLEMS, "traces": TRACES, "branches": BRANCHES}
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        ways = {
            "whole": pool.imap_unordered(whole, range(args.whole)),
            "fast": pool.imap_unordered(fast, [(s, costs, False) for s in range(args.fast)], chunksize=20),
            "adaptive": pool.imap_unordered(fast, [(s, costs, True) for s in range(args.adaptive)], chunksize=20),
        }
        for name, results in ways.items():
            out[name] = covered(list(results), true)
            print(name, out[name], flush=True)
    out["versions"] = {"headway": __version__, "numpy": np.__version__, "python": platform.python_version()}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
