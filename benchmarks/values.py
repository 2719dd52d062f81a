"""Ways to estimate a value, side by side: bias, variance, error of progress, model tokens and seconds.

    python benchmarks/values.py [--out results/values]
    python benchmarks/values.py --model smollm2 --problems gsm8k_train.jsonl --traces 10 --rounds 3

Held-out problems on the built-in model, else those of a file. A reference of 512 branches a boundary says what the
values are; 256 more are dealt out to the estimators, 4 or 16 at a time, so that each is tried many times on the same
boundaries. `adaptive` has 4 a boundary on average, 2 everywhere and then where they tell most. After that a step of
training by each, beside TRL's GRPO, and packed scoring beside a plain forward.

The last line is JSON, each ratio with min, median and max. `mse_ratio` is the mean squared error of progress over
that of MC-4 at equal seconds, over the parts into which the traces are divided (`mse_ratio_each`: as they are).
`step_ratio` is a step's seconds over plain GRPO's, round by round. `token_floor` is what it must cost at least: the
tokens to compute, a backward as two forwards, over plain GRPO's; a trace is not computed again, sampling has done it.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import torch
import trl

import packed
from headway.core import allocation
from headway.core import values as estimate
from headway.core.progress import progress
from headway.core.segment import Cutting, cut
from headway.engines import hf
from headway.engines.loading import model_path
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.report.page import charts
from headway.text.known_answers import KnownAnswers
from headway.text.prompts import meta_prover
from headway.text.tags import find_think_tags
from headway.types import Trace
from step import BUILTIN, KINDS, ratios, real_text, spread, take_turns

PARTS = 5
NAMES = {"MC-4": 4, "MC-16": 16, "adaptive": 16, "distinct-4": 4, "likelihood": 4, "hybrid-4": 4}
KIND: dict[str, Any] = {"MC-4": "branches", "MC-16": "branches", "likelihood": "likelihood", "hybrid-4": "hybrid"}


class Task(NamedTuple):
    """What is thought about and how: problems, tags, budget, the answer's tokens, how a trace is cut."""

    problems: str
    think: dict[str, str | None]
    budget: int
    answer_tokens: int
    cutting: Cutting


COUNTDOWN = Task(
    "countdown",
    dict(think_open=None, think_close=None),
    192,
    16,
    Cutting(max_episodes=6),
)


def real_task(problems: str) -> Task:
    """Thoughts of any model, cut every 64 tokens."""
    think: dict[str, str | None] = dict(think_open="", think_close="The answer is")
    return Task(problems, think, 320, 12, Cutting("tokens", episode_tokens=64, max_episodes=5))


class Boundary(NamedTuple):
    """A boundary's branches, reference first, and what is known about it."""

    trace: int
    index: int
    rewards: np.ndarray
    others: np.ndarray  # rewards, those of known forms 0
    logprobs: np.ndarray
    completions: np.ndarray
    sampled: np.ndarray
    known: float
    suffix: int
    form_tokens: int


class Found(NamedTuple):
    """Boundaries, the seconds of each way to value them all, and the tokens of each trace."""

    boundaries: list[Boundary]
    seconds: dict[str, dict[str, float]]
    trace_tokens: list[int]
    reference: int


def measure(model: str, task: Task, traces: int, reference: int, pool: int, *, seed: int = 0) -> Found:
    """Samples a trace a problem, draws `reference + pool` branches at each boundary, and times each way."""
    loaded = load_problems(task.problems, limit=traces)
    engine, grader = hf.load(model_path(model), dtype="float32"), load_grader(loaded.grader)
    tags = find_think_tags(engine.tokenizer, **task.think)
    problems = {p.id: p for p in loaded.problems}
    sampling = Sampling(1, task.budget, task.answer_tokens, seed=seed)
    drawn = sample(engine, loaded.problems, grader, tags, sampling)
    made = [t for part in drawn for t in part]

    def segmenter(trace: Trace) -> Any:
        return cut(trace, task.cutting, task.budget)

    def prover(branches: int) -> Prover:
        forcing = meta_prover(tags, branches=branches, max_tokens=task.answer_tokens)
        return Prover(engine, forcing, problems, grader=grader, segmenter=segmenter, known=known)

    known = KnownAnswers(engine.tokenizer, meta_prover(tags, branches=4, max_tokens=task.answer_tokens), grader)

    def valued(name: str) -> Callable[[], Any]:
        return lambda: prover(NAMES[name]).curves(KIND[name], made, seed=1)

    seconds: dict[str, dict[str, float]] = {name: spread(timed(valued(name))) for name in KIND}
    seconds |= {"distinct-4": seconds["MC-4"], "adaptive": seconds["MC-4"]}

    proving, all_of = prover(4), prover(reference + pool)
    scores = [s for part in proving.score(made) for s in part]
    probability = {(s.problem_id, s.boundary): s.probability or 0.0 for s in scores}
    branches: dict[tuple[str, int], list[Any]] = {key: [] for key in probability}
    for n, t in enumerate(made):
        for part in all_of.draw([t], seed=2, mark_known=True):
            for b in part:
                branches[b.problem_id, b.boundary].append(b)
        print(f"reference: {n + 1} of {len(made)} traces", flush=True)
    found = []
    for i, t in enumerate(made):
        for at in proving.forced(t):
            j = at.boundary
            here = sorted(branches[t.problem_id, j], key=lambda b: b.branch)
            forms = known.forms(problems[t.problem_id], at.text)
            [likely] = engine.logprobs([at.prompt], [forms.continuations], ends=forms.ends)
            ways = zip(forms.continuations, likely, strict=True)
            followed = [way.token_ids for way, logprob in ways if np.isfinite(logprob)]
            numbers: dict[Any, int] = {}
            found.append(
                Boundary(
                    i,
                    j,
                    np.array([np.nan if b.reward is None else b.reward for b in here]),
                    np.array([0.0 if b.known else np.nan if b.reward is None else b.reward for b in here]),
                    np.array([b.logprob for b in here]),
                    np.array([numbers.setdefault(b.token_ids, len(numbers)) for b in here]),
                    np.array([b.sampled + 1 for b in here]),
                    probability[t.problem_id, j],
                    len(at.ids),
                    len({form[:k] for form in followed for k in range(1, len(form) + 1)}),
                )
            )
    return Found(found, seconds, [len(t.prompt_ids) + len(t.token_ids) for t in made], reference)


def timed(run: Callable[[], Any], repeats: int = 3) -> list[float]:
    """The seconds of some runs, after one that warms up."""
    took = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return took[1:]


def estimates(found: list[Boundary], name: str, columns: np.ndarray) -> np.ndarray:
    """The values that an estimator gives from each row of branches (tries, n): (boundaries, tries)."""
    if name == "adaptive":
        return np.stack([adaptive(found, row) for row in columns], axis=1)
    table = []
    for b in found:
        rewards, logprobs, completions = b.rewards[columns], b.logprobs[columns], b.completions[columns]
        known = np.full(len(columns), b.known)
        if name.startswith("MC"):
            values = estimate.from_branches(rewards)
        elif name.startswith("distinct"):
            values = estimate.from_distinct(rewards, logprobs, completions)
        elif name.startswith("hybrid"):
            values = estimate.from_hybrid(known, b.others[columns], logprobs, completions)
        else:
            values = estimate.from_likelihood(known)
        table.append(values.values)
    return np.array(table)


def adaptive(found: list[Boundary], columns: np.ndarray) -> np.ndarray:
    """Means of 2 branches and then of as many as `core.allocation` gives, 4 on average, at most 16; (boundaries,)."""
    trace = np.array([b.trace for b in found])
    locations = allocation.Locations(trace, trace, np.array([b.index for b in found]))
    rewards = np.array([b.rewards[columns] for b in found])
    right, n = np.nansum(rewards[:, :2], axis=1), np.sum(~np.isnan(rewards[:, :2]), axis=1).astype(float)
    prior = allocation.group_prior(right, n, allocation.neighbour_counts(right, n, locations))
    units = allocation.neyman(np.ones(len(found)), prior.variance, unit=2, most=4 * len(found))
    return np.array([np.nanmean(r[: 2 * u]) for r, u in zip(rewards, units, strict=True)])


def errors(found: Found) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Bias, variance and error of progress of each estimator, and what it costs; dots of a figure."""
    some, reference = found.boundaries, np.arange(found.reference)[None]
    # the reference: all it has, known forms exactly; what is left of its own error is taken off
    rows = [(np.array([b.known]), *(x[reference] for x in (b.others, b.logprobs, b.completions))) for b in some]
    made = [estimate.from_hybrid(*row) for row in rows]
    true, own = np.array([m.values[0] for m in made]), np.array([m.stderr[0] ** 2 for m in made])
    trace = np.array([b.trace for b in some])
    same, part = trace[1:] == trace[:-1], trace % PARTS
    summary: dict[str, Any] = {
        "reference": {
            "branches": found.reference,
            "boundaries": len(some),
            "mean_value": float(true.mean()),
            "mean_of_branches": float(np.nanmean([b.rewards[: found.reference] for b in some])),
            "known_share": float(sum(b.known for b in some) / true.sum()),
        }
    }
    squares: dict[str, np.ndarray] = {}
    dots = []
    pool = np.arange(found.reference, len(some[0].rewards))
    for name, n in NAMES.items():
        table = estimates(some, name, pool[: len(pool) // n * n].reshape(-1, n))
        gaps = np.diff(table, axis=0)[same] - progress(true)[same, None]
        squares[name] = np.maximum((gaps**2).mean(axis=1) - (own[1:] + own[:-1])[same], 0.0)
        bias = table.mean(axis=1) - true
        drawn = 4 if name == "adaptive" else 0 if name == "likelihood" else n
        scored = name in ("likelihood", "hybrid-4")
        tokens = np.array([b.suffix + b.sampled[pool].mean() * drawn + scored * b.form_tokens for b in some])
        plain = np.array([sum(t for i, t in enumerate(found.trace_tokens) if i % PARTS == k) for k in range(PARTS)])
        summary[name] = {
            "bias": float(bias.mean()),
            "bias_stderr": float(bias.std(ddof=1) / np.sqrt(len(bias))),
            "variance": float(table.var(axis=1, ddof=1).mean()) if name != "likelihood" else 0.0,
            "mse_progress": float(squares[name].mean()),
            "tokens": float(tokens.sum()),
            "tokens_of_traces": sum(found.trace_tokens),
            # in forwards of a token: a trace is sampled and updated, a backward being two
            "token_floor": spread([1 + tokens[part == k].sum() / (4 * plain[k]) for k in range(PARTS) if plain[k]]),
            "seconds": found.seconds[name],
        }
        dots += [{"estimator": name, "reference": t, "estimate": e} for t, e in zip(true, table[:, 0], strict=True)]
    for name in NAMES:
        cost = found.seconds[name]["median"] / found.seconds["MC-4"]["median"]
        halves = [part[1:][same] == k for k in range(PARTS)]
        each = [squares[name][h].mean() / squares["MC-4"][h].mean() for h in halves if squares["MC-4"][h].sum() > 0]
        summary[name]["mse_ratio_each"] = spread([float(r) for r in each])
        summary[name]["mse_ratio"] = spread([float(r) * cost for r in each])
    return summary, dots


def figure(dots: list[dict[str, Any]], reference: int, out: Path) -> None:
    """Estimate against reference, a panel for each estimator."""
    most = max(0.05, *(d["reference"] for d in dots))
    panels = (
        alt.Chart(alt.Data(values=dots))
        .mark_circle(size=14, opacity=0.5)
        .encode(
            x=alt.X("reference:Q", title=f"value by {reference} branches").scale(domain=[0, most]),
            y=alt.Y("estimate:Q", title="one estimate").scale(domain=[0, most], clamp=True),
            facet=alt.Facet("estimator:N", columns=6, title=None, sort=list(NAMES)),
        )
        .properties(width=150, height=150)
    )
    charts.save(panels, out, "png")


def main() -> None:
    """Prints a line a result and a JSON line last; writes both and a figure to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:countdown")
    parser.add_argument("--problems", help="a JSONL file, for a model of real text")
    parser.add_argument("--traces", type=int, default=15)
    parser.add_argument("--reference", type=int, default=512)
    parser.add_argument("--pool", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(2)
    task, setup = (real_task(args.problems), real_text(args.problems, 8)) if args.problems else (COUNTDOWN, BUILTIN)
    found = measure(args.model, task, args.traces, args.reference, args.pool)
    summary, dots = errors(found)
    for name, row in summary.items():
        print(name, json.dumps(row), flush=True)
    took = take_turns(args.model, setup, args.kinds, args.rounds)
    step_ratio = {name: r for name, r in ratios(took).items() if name != "trl"}
    floors = {name: summary[name]["token_floor"] for name in NAMES}
    result = {
        "step_ratio": step_ratio,
        "mse_ratio": {name: summary[name]["mse_ratio"] for name in NAMES},
        "mse_ratio_each": {name: summary[name]["mse_ratio_each"] for name in NAMES},
        "token_floor": floors,
        "step_to_floor": {
            name: {k: x / floors[name]["median"] for k, x in r.items()}
            for name, r in step_ratio.items()
            if name in floors
        },
        "packed_ratio": packed.seconds(args.model, args.rounds)["packed_ratio"],
        "estimators": summary,
        "seconds_of_steps": took,
        "median_seconds_of_a_step": {name: statistics.median(s) for name, s in took.items()},
        "model": Path(args.model).name,
        "versions": {"torch": torch.__version__, "trl": trl.__version__, "python": platform.python_version()},
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "values.json").write_text(json.dumps(result, indent=1) + "\n")
        figure(dots, args.reference, args.out / "values.png")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
