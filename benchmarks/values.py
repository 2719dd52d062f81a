"""Ways to estimate a value, side by side: bias, variance, error of progress, model tokens and seconds.

    python benchmarks/values.py [--model builtin:countdown] [--out results/values]

On the built-in model, held-out problems. A reference of 512 branches a boundary says what the values are; 256 more are
dealt out to the estimators, 4 or 16 at a time, so that each is tried many times on the same boundaries. Then a step of
training by each, beside TRL's GRPO (`token_floor` is what it must cost at least: the tokens to compute, a backward as
two forwards, over plain GRPO's); then packed scoring beside one plain forward. The last line is JSON. Ratios have
min, median and max: over the parts into which the boundaries are divided (`mse_ratio`), or over rounds in which all
take turns (`step_ratio`, `packed_ratio`).
"""

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import torch
import transformers
import trl
from transformers import LlamaConfig, LlamaForCausalLM

from headway import values as estimate
from headway.engines import hf, model_path
from headway.forms import candidates_of
from headway.graders import load_grader
from headway.problems import load_problems
from headway.progress import progress
from headway.prompts import find_think_tags, meta_prover
from headway.prove import prove
from headway.report import charts
from headway.sample import sample
from headway.score import Known, score
from headway.segment import boundaries, cut
from headway.trainer import MRTConfig, MRTTrainer, dataset_of, outcome_reward
from headway.types import Trace

REFERENCE, POOL = 512, 256
PARTS = 5


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(numbers), "median": statistics.median(numbers), "max": max(numbers)}


def segmenter(trace: Trace) -> Any:
    """Episodes as the built-in recipe cuts them."""
    return cut(trace, segment="markers", min_paragraphs=3, episode_tokens=128, max_episodes=6)


class Boundary(NamedTuple):
    """A boundary's branches and what is known about it."""

    trace: int
    rewards: np.ndarray
    others: np.ndarray  # rewards, those of known forms 0
    logprobs: np.ndarray
    completions: np.ndarray
    sampled: np.ndarray
    known: float
    suffix: int
    form_tokens: int


def measure(model: str, n_traces: int, seed: int = 0) -> tuple[list[Boundary], dict[str, float], list[int]]:
    """Boundaries of some traces, `REFERENCE + POOL` branches and a score each; seconds of each way; their tokens."""
    problems = load_problems("countdown", limit=n_traces)
    engine, grader = hf.load(model_path(model)), load_grader(problems.grader)
    tags = find_think_tags(engine.tokenizer, think_open=None, think_close=None)
    prover = meta_prover(tags, branches=REFERENCE + POOL, max_tokens=16)
    few = meta_prover(tags, branches=4, max_tokens=16)
    many = meta_prover(tags, branches=16, max_tokens=16)
    by_id = {p.id: p for p in problems.problems}
    traces = [
        t
        for part in sample(engine, problems.problems, grader, tags, traces=1, budget=192, answer_tokens=16, seed=seed)
        for t in part
    ]
    known = Known(engine, prover, grader, candidates_of(problems.grader))
    seconds: dict[str, float] = {}
    for name, run in {
        "MC-4": lambda: list(prove(engine, traces, by_id, grader, few, segmenter, seed=1)),
        "MC-16": lambda: list(prove(engine, traces, by_id, grader, many, segmenter, seed=1)),
        "likelihood": lambda: list(score(engine, traces, by_id, known, prover, segmenter)),
    }.items():
        run()
        took = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            took.append(time.perf_counter() - start)
        seconds[name] = statistics.median(took)
    seconds["distinct-4"] = seconds["MC-4"]
    seconds["hybrid-4"] = seconds["MC-4"] + seconds["likelihood"]
    scores = {
        (s.problem_id, s.index, s.boundary): s
        for part in score(engine, traces, by_id, known, prover, segmenter)
        for s in part
    }
    drawn: dict[tuple[str, int, int], list[Any]] = {key: [] for key in scores}
    for part in prove(engine, traces, by_id, grader, prover, segmenter, seed=2, traces_at_once=4):
        for b in known.marked(part, traces, by_id, segmenter):
            drawn[b.problem_id, b.index, b.boundary].append(b)
    found = []
    for i, t in enumerate(traces):
        for j, e in enumerate(boundaries(segmenter(t))):
            branches = sorted(drawn[t.problem_id, t.index, j], key=lambda b: b.branch)
            text = known.text(t, e)
            forms = known.forms(by_id[t.problem_id], text).token_ids
            tree = {form[:k] for form in forms for k in range(1, len(form) + 1)}
            numbers: dict[Any, int] = {}
            found.append(
                Boundary(
                    i,
                    np.array([b.reward for b in branches]),
                    np.array([0.0 if b.known else b.reward for b in branches]),
                    np.array([b.logprob for b in branches]),
                    np.array([numbers.setdefault(b.token_ids, len(numbers)) for b in branches]),
                    np.array([b.sampled + 1 for b in branches]),
                    scores[t.problem_id, t.index, j].probability or 0.0,
                    len(engine.tokenizer.encode(text, add_special_tokens=False)),
                    len(tree),
                )
            )
    trace_tokens = [len(t.prompt_ids) + len(t.token_ids) for t in traces]
    return found, seconds, trace_tokens


def estimates(b: Boundary, name: str, rows: np.ndarray) -> np.ndarray:
    """The values that an estimator gives from each row of branches, (tries,)."""
    rewards, logprobs, completions = b.rewards[rows], b.logprobs[rows], b.completions[rows]
    known = np.full(len(rows), b.known)
    if name.startswith("MC"):
        return estimate.from_branches(rewards).values
    if name.startswith("distinct"):
        return estimate.from_distinct(rewards, logprobs, completions).values
    if name.startswith("hybrid"):
        return estimate.from_hybrid(known, b.others[rows], logprobs, completions).values
    return estimate.from_likelihood(known).values


NAMES = {"MC-4": 4, "MC-16": 16, "distinct-4": 4, "likelihood": 4, "hybrid-4": 4}


def errors(
    found: list[Boundary], seconds: dict[str, float], trace_tokens: list[int]
) -> tuple[dict[str, Any], list[Any]]:
    """Bias, variance and error of progress of each estimator, and what it costs."""
    reference = [np.arange(REFERENCE)[None]] * len(found)
    # the reference: all it has, known forms exactly; what is left of its own error is taken off
    truth, noise = [], []
    for b, rows in zip(found, reference, strict=True):
        v, se, _ = estimate.from_hybrid(np.array([b.known]), b.others[rows], b.logprobs[rows], b.completions[rows])
        truth.append(v[0])
        noise.append(se[0] ** 2)
    by_branches = np.array([b.rewards[:REFERENCE].mean() for b in found])
    true, own = np.array(truth), np.array(noise)
    of_trace = np.array([b.trace for b in found])
    same = of_trace[1:] == of_trace[:-1]
    part = of_trace % PARTS
    out: dict[str, Any] = {
        "reference": {
            "branches": REFERENCE,
            "boundaries": len(found),
            "mean_value": float(true.mean()),
            "mean_of_branches": float(by_branches.mean()),
            "known_share": float(sum(b.known for b in found) / true.sum()),
        }
    }
    squares: dict[str, np.ndarray] = {}
    tokens: dict[str, float] = {}
    dots = []
    for name, n in NAMES.items():
        rows = np.arange(REFERENCE, REFERENCE + POOL).reshape(-1, n)
        table = np.array([estimates(b, name, rows) for b in found])  # boundaries, tries
        each = [
            b.suffix * (2 if name == "hybrid-4" else 1)
            + (b.sampled[REFERENCE:].mean() * n if name != "likelihood" else 0)
            + (b.form_tokens if name in ("likelihood", "hybrid-4") else 0)
            for b in found
        ]
        tokens[name] = float(sum(each))
        # in forwards of a token: a trace is sampled once and updated, a backward being two; a trunk is one more
        trunks = 2 if name == "hybrid-4" else 1
        floors = [
            1
            + (trunks * plain + sum(e for e, b in zip(each, found, strict=True) if b.trace % PARTS == k)) / (4 * plain)
            for k in range(PARTS)
            if (plain := sum(t for i, t in enumerate(trace_tokens) if i % PARTS == k))
        ]
        gaps = np.array([progress(column) for column in table.T])[:, same] - progress(true)[same]
        squares[name] = np.maximum((gaps**2).mean(axis=0) - (own[1:] + own[:-1])[same], 0.0)
        bias = table.mean(axis=1) - true
        out[name] = {
            "bias": float(bias.mean()),
            "bias_stderr": float(bias.std(ddof=1) / np.sqrt(len(bias))),
            "variance": float(table.var(axis=1, ddof=1).mean()) if name != "likelihood" else 0.0,
            "mse_progress": float(squares[name].mean()),
            "tokens": tokens[name],
            "tokens_of_traces": sum(trace_tokens),
            "token_floor": spread(floors),
            "seconds": seconds[name],
        }
        dots += [{"estimator": name, "reference": t, "estimate": e} for t, e in zip(true, table[:, 0], strict=True)]
    halves = part[1:][same]
    for name in NAMES:
        cost = seconds[name] / seconds["MC-4"]
        ratios = [float(squares[name][halves == k].mean() / squares["MC-4"][halves == k].mean()) for k in range(PARTS)]
        out[name]["mse_ratio"] = spread(ratios)
        out[name]["mse_ratio_at_equal_seconds"] = spread([r * cost for r in ratios])
    return out, dots


def figure(summary: dict[str, Any], dots: list[Any], out: Path) -> None:
    """Estimate against reference, a panel for each estimator."""
    panels = (
        alt.Chart(alt.Data(values=dots))
        .mark_circle(size=14, opacity=0.5)
        .encode(
            x=alt.X("reference:Q", title="value by 512 branches").scale(domain=[0, 1]),
            y=alt.Y("estimate:Q", title="one estimate").scale(domain=[0, 1], clamp=True),
            facet=alt.Facet("estimator:N", columns=5, title=None, sort=list(NAMES)),
        )
        .properties(width=150, height=150)
    )
    charts.save(panels, out, "png")


COMMON: dict[str, Any] = dict(
    num_generations=8, per_device_train_batch_size=96, max_completion_length=208, learning_rate=1e-6,
    lr_scheduler_type="constant", bf16=False, activation_checkpointing=False, use_cpu=True, report_to="none",
    save_strategy="no", disable_tqdm=True, seed=0,
)  # fmt: skip
KINDS: dict[str, Any] = {
    "trl": None,
    "weight 0": dict(progress_weight=0.0),
    "MC-4": dict(values="branches"),
    "distinct-4": dict(values="distinct"),
    "likelihood": dict(values="likelihood"),
    "hybrid-4": dict(values="hybrid"),
}


def step_ratios(model: str, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seconds of a step by each kind over TRL's own, and the seconds themselves."""
    spec = importlib.util.spec_from_file_location("step", Path(__file__).parent / "step.py")
    assert spec is not None and spec.loader is not None
    step = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(step)
    problems, path = load_problems("countdown-train", limit=96), model_path(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, padding_side="left")
    grader = load_grader(problems.grader)
    with TemporaryDirectory() as folder:
        trainers: dict[str, trl.GRPOTrainer] = {}
        for name, options in KINDS.items():
            common = dict(
                **COMMON, max_steps=rounds + 2, output_dir=f"{folder}/{name}", model_init_kwargs={"dtype": "float32"}
            )
            rest = dict(train_dataset=dataset_of(problems.problems), processing_class=tokenizer)
            if options is None:
                reward = outcome_reward(grader, tokenizer)
                trainers[name] = trl.GRPOTrainer(path, reward_funcs=reward, args=trl.GRPOConfig(**common), **rest)
            else:
                args = MRTConfig(branches=4, branch_max_tokens=16, **common, **options)
                candidates = candidates_of(problems.grader)
                trainers[name] = MRTTrainer(path, args=args, grader=grader, candidates=candidates, **rest)
        running = {name: step.steps(t) for name, t in trainers.items()}
        for run in running.values():
            next(run)
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(rounds):
            for name in list(running)[turn % len(running) :] + list(running)[: turn % len(running)]:
                seconds[name].append(next(running[name]))
            print({name: round(s[-1], 2) for name, s in seconds.items()}, file=sys.stderr, flush=True)
    ratios = {
        name: spread([mine / theirs for mine, theirs in zip(s, seconds["trl"], strict=True)])
        for name, s in seconds.items()
        if name != "trl"
    }
    return ratios, seconds


def packed_ratio(model: str, rounds: int, *, tokens: int = 4096, n_boundaries: int = 16) -> dict[str, Any]:
    """Seconds of scoring all boundaries of one long trace over those of one plain forward of it."""
    engine = hf.load(model_path(model)) if model != "smollm2-size" else _random_smollm2()
    vocabulary = engine.model.config.vocab_size
    rng = np.random.default_rng(0)
    trace = tuple(rng.integers(6, vocabulary, tokens).tolist())
    suffix, answer = tuple(rng.integers(6, vocabulary, 12).tolist()), tuple(rng.integers(6, vocabulary, 4).tolist())
    prompts = [trace[: tokens * (k + 1) // n_boundaries] + suffix for k in range(n_boundaries)]
    ids = torch.tensor([trace], device=engine.model.device)
    ratios, seconds = [], {"plain": [], "packed": []}
    for r in range(rounds + 1):
        start = time.perf_counter()
        with torch.no_grad():
            engine.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        middle = time.perf_counter()
        engine.logprobs(prompts, [(answer,)] * n_boundaries, ends=("}", "\n"))
        end = time.perf_counter()
        if r:
            ratios.append((end - middle) / (middle - start))
            seconds["plain"].append(middle - start)
            seconds["packed"].append(end - middle)
    return {"ratio": spread(ratios), "seconds": {k: spread(v) for k, v in seconds.items()}}


def _random_smollm2() -> Any:
    """A model of SmolLM2-135M's shape with random weights: its seconds without its weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True, eos_token_id=2,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path("builtin:countdown"))
    return hf.HFEngine(LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer)


def main() -> None:
    """Prints a line a result, a JSON line last, and writes both and a figure to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:countdown")
    parser.add_argument("--traces", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packed", default=None, help="only packed scoring: a model, or smollm2-size")
    parser.add_argument("--packed-tokens", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(2)
    versions = {"torch": torch.__version__, "trl": trl.__version__, "python": platform.python_version()}
    if args.packed:
        packed = packed_ratio(args.packed, args.rounds, tokens=args.packed_tokens)
        print(json.dumps({"packed_ratio": packed, "model": args.packed, "tokens": args.packed_tokens, **versions}))
        return
    found, seconds, trace_tokens = measure(args.model, args.traces)
    summary, dots = errors(found, seconds, trace_tokens)
    for name, row in summary.items():
        print(name, json.dumps(row), flush=True)
    ratios, took = step_ratios(args.model, args.rounds)
    floor = {name: summary[name]["token_floor"] for name in NAMES}
    result = {
        "mse_ratio": {
            "to MC-4": {name: summary[name]["mse_ratio"] for name in NAMES},
            "to MC-4, at equal seconds": {name: summary[name]["mse_ratio_at_equal_seconds"] for name in NAMES},
        },
        "step_ratio": {
            "to plain GRPO": ratios,
            "to MC-4": {
                name: spread([a / b for a, b in zip(took[name], took["MC-4"], strict=True)]) for name in KINDS
            },
            "to token floor": {
                name: spread([x / floor[name]["median"] for x in ratios[name].values()])
                for name in ratios
                if name in floor
            },
        },
        "token_floor": floor,
        "packed_ratio": packed_ratio(args.model, args.rounds)["ratio"],
        "estimators": summary,
        "seconds_of_steps": took,
        "model": args.model,
        "versions": versions,
    }
    line = json.dumps(result)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "values.json").write_text(json.dumps(result, indent=1) + "\n")
        figure(summary, dots, args.out / "values.png")
    print(line)


if __name__ == "__main__":
    main()
