"""What proving costs: beside the plain way, and with adaptive branches beside the same number everywhere.

    python benchmarks/prove.py [--repeats 5]

Cost: 16 boundaries x 8 branches of the same traces by the same engine and the same kernels. The plain way makes each
prefix x branch a request of its own and computes all of it; it draws the same branches. Prefill tokens are counted
where the model's forward is called: the unmasked tokens of every call before decoding (and, beside, all its slots,
padding too). Two models: the built-in one on its own traces, and an untrained Llama on longer ones.

Adaptive: the mean normalized regret at the whole budget to the precision that 8 branches at each boundary have. With
the scripted engine the values are known, and so is the error that any number of branches leaves; for the built-in
model the errors are estimated from the branches (`headway.procedures.adaptive.realized`). The ratio is of the branches
needed at equal error: uniform n x error^2 over adaptive n x error^2. Beside it the limit, Neyman's allocation for
known values.

The last line is JSON, with min, median and max over the repeats.
"""

import argparse
import itertools
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from headway import __version__
from headway.core.regret import step_weights
from headway.engines import hf
from headway.engines.hf import HFEngine, decode, sampler
from headway.engines.hf.prefix_cache import Request, alone
from headway.engines.loading import model_path
from headway.engines.streaming import Parts
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, make_trace, sample
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.text.prompts import meta_prover, prompt_ids
from headway.text.tags import find_think_tags
from headway.types import Completion, Episode, Prompt, SamplingParams, Trace

BUILTIN = model_path("builtin:countdown")
BOUNDARIES, BRANCHES = 16, 8
PROBLEMS = load_problems("countdown", limit=200)
BY_ID = {p.id: p for p in PROBLEMS.problems}


class Counting(HFEngine):
    """The engine, counting the tokens and the slots (padding too) of all forwards that are not decoding.

    In a forward with a 4-D mask (what each token attends to), the padding of a row attends to itself alone.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.tokens = self.slots = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Looks at what the model is called with."""

        def look(module: Any, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
            ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
            seen = mask[:, -ids.shape[1] :] if mask.ndim == 2 else (mask == 0).sum(dim=-1) > 1
            self.tokens += int(seen.sum())
            self.slots += ids.numel()

        def decoding(*args: Any) -> list[Completion]:
            nonlocal handle
            handle.remove()
            drawn = plain(*args)
            handle = self.model.register_forward_pre_hook(look, with_kwargs=True)
            return drawn

        plain, decode.decode = decode.decode, decoding
        handle = self.model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            decode.decode = plain


class Plain(Counting):
    """The same engine, with each prefix x branch a request of its own that shares nothing."""

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """The samples that `HFEngine` gives, the plain way."""
        n, one = params.n, msgspec.structs.replace(params, n=1)
        requests = [
            Request(i * n + s, prompt, (seed + s * int(sampler._GAMMA)) % 2**64)
            for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
            for s in range(n)
        ]
        with torch.no_grad():
            parts = decode.sample_separately(self.language_model, alone(requests), one, self.starts(one))
            drawn = {place: some for part in parts for place, some in part.items()}
        yield {i: [drawn[i * n + s][0] for s in range(n)] for i in range(len(prompts))}


def in_even_episodes(trace: Trace) -> list[Episode]:
    """Fifteen episodes of like length, which have 16 boundaries."""
    cuts = np.linspace(0, trace.thinking, BOUNDARIES).round().astype(int).tolist()
    return [Episode(start, stop) for start, stop in itertools.pairwise(cuts)]


def builtin_traces(model: Any, tokenizer: Any, traces: int) -> list[Trace]:
    """The built-in model's own longest traces of 60 problems."""
    tags = find_think_tags(tokenizer, think_open=None, think_close=None)
    drawn = sample(
        HFEngine(model, tokenizer), PROBLEMS.problems[:60], load_grader("countdown"), tags, Sampling(1, 192, 16),
        problems_at_once=60,
    )  # fmt: skip
    return sorted((t for chunk in drawn for t in chunk), key=lambda t: -t.thinking)[:traces]


def random_traces(tokenizer: Any, traces: int, tokens: int) -> list[Trace]:
    """Thoughts of random tokens that do not end."""
    rng, tags = np.random.default_rng(0), find_think_tags(tokenizer, think_open=None, think_close=None)
    usual = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids) - set(tokenizer.added_tokens_decoder))
    return [
        make_trace(
            tokenizer, p.id, 0, prompt_ids(tokenizer, p.prompt, tags),
            Completion(tuple(rng.choice(usual, tokens).tolist()), "length"), tags,
        )
        for p in PROBLEMS.problems[:traces]
    ]  # fmt: skip


def llama(tokenizer: Any) -> Any:
    """An untrained Llama of 6.3M parameters beside its embeddings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=4096, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def cost(model: Any, tokenizer: Any, traces: list[Trace], repeats: int) -> dict[str, Any]:
    """Proves the traces both ways in turn; prefill tokens, seconds, and how many times less ours takes."""
    tags, grader = find_think_tags(tokenizer, think_open=None, think_close=None), load_grader("countdown")
    prover = meta_prover(tags, branches=BRANCHES, max_tokens=16)
    seen: dict[str, list[dict[str, float]]] = {"headway": [], "plain": []}
    said: dict[str, list[Any]] = {}
    for repeat in range(-1, repeats):  # the first one warms up
        for name, kind in (("headway", Counting), ("plain", Plain)):
            engine = kind(model, tokenizer)
            with engine.counted():
                start, cpu = time.perf_counter(), time.process_time()
                proving = Prover(engine, prover, BY_ID, grader=grader, segmenter=in_even_episodes)
                drawn = proving.draw(traces)
                said[name] = [(b.boundary, b.branch, b.text, b.reward) for chunk in drawn for b in chunk]
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            if repeat >= 0:
                seen[name].append(
                    {"prefill_tokens": engine.tokens, "slots": engine.slots, "seconds": seconds, "cpu": cpu}
                )
                print(name, seen[name][-1], flush=True)
    differ = sum(a != b for a, b in zip(said["headway"], said["plain"], strict=True))
    return {
        "traces": len(traces),
        "mean_thinking_tokens": statistics.mean(t.thinking for t in traces),
        "boundaries": BOUNDARIES,
        "branches": BRANCHES,
        "branches_drawn": len(said["plain"]),
        "branches_that_differ": differ,
        **{
            f"times_less_{what}": spread(
                [p[what] / h[what] for p, h in zip(seen["plain"], seen["headway"], strict=True)]
            )
            for what in ("prefill_tokens", "slots", "seconds", "cpu")
        },
        "runs": seen,
    }


def proved(folder: Path, sampled: Path | None, settings: Settings) -> Measurement:
    """A measurement proved in `folder`, of the traces that are in `sampled` if that is given."""
    made = Measurement.create(folder, settings)
    if sampled:
        shutil.copy(sampled / "traces.jsonl", folder)
    with made as measurement:
        measurement.sample()
        measurement.prove()
        return measurement


def true_error(measurement: Measurement) -> tuple[float, float]:
    """The standard error that a scripted run's branches leave in the mean regret, and the least that as many could."""
    s, made = measurement.settings, measurement.table()
    script: Any = measurement.engine
    total = pull = branches = 0.0
    for problem, curve in zip(made.problems, made.curves, strict=True):
        V = np.clip(script.values[problem], 0, 1)
        weights = step_weights(curve.tokens, float(s.sampling.budget + s.sampling.answer_tokens))
        known, n = weights > 0, curve.values.n
        total += float(np.sum(weights[known] ** 2 * (V * (1 - V))[known] / n[known]))
        pull += float(np.sum(weights * np.sqrt(V * (1 - V))))
        branches += float(n.sum())
    return float(np.sqrt(total)) / len(made.curves), pull / np.sqrt(branches) / len(made.curves)


def adaptive(settings: Settings, repeats: int) -> dict[str, Any]:
    """Proves the same traces with 8 branches at each boundary, and adaptively to the error that has."""
    scripted = settings.engine.model == "scripted"
    rows = []
    for seed in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            uniform = proved(Path(folder, "uniform"), None, settings.changed(seed=seed, branches=BRANCHES))
            target, least = true_error(uniform) if scripted else (uniform.report()["precision"]["regret"], np.nan)
            asked = settings.changed(seed=seed, branches=2, precision=target)
            adapted = proved(Path(folder, "adaptive"), uniform.run.path, asked)
            error = true_error(adapted)[0] if scripted else adapted.report()["precision"]["regret"]
            n = [len(m.run.branches()) for m in (uniform, adapted)]
        ratio = n[0] * target**2 / (n[1] * error**2)
        errors = {"uniform_error": target, "adaptive_error": error}
        rows.append(
            {"uniform": n[0], "adaptive": n[1], **errors, "times_fewer": ratio, "limit": float(target / least) ** 2}
        )
        print(rows[-1], flush=True)
    return {
        "problems": settings.problems.limit,
        "traces": settings.sampling.traces,
        "budget": settings.sampling.budget,
        "times_fewer_branches": spread([r["times_fewer"] for r in rows]),
        "runs": rows,
    }


def spread(numbers: list[float]) -> dict[str, float]:
    """Their min, median and max."""
    return {"min": min(numbers), "median": statistics.median(numbers), "max": max(numbers)}


def main() -> None:
    """Prints a line a run and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["cost", "adaptive"], default=None)
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN)
    out: dict[str, Any] = {}
    if args.only != "adaptive":
        own, untrained = hf.load(BUILTIN).model, llama(tokenizer)
        out["cost"] = {
            "builtin": cost(own, tokenizer, builtin_traces(own, tokenizer, 8), args.repeats),
            "llama": cost(untrained, tokenizer, random_traces(tokenizer, 2, 512), args.repeats),
        }
    if args.only != "cost":
        scripted = Settings.of(model="scripted", problems="countdown", limit=100, budget=256, answer_tokens=40)
        own_model = Settings.of(
            model="builtin:countdown", problems="countdown", limit=30, budget=192, answer_tokens=16
        )
        out["adaptive"] = {
            "scripted_256": adaptive(scripted, args.repeats),
            "scripted_1024": adaptive(scripted.changed(budget=1024), args.repeats),
            "builtin": adaptive(own_model, args.repeats),
        }
    versions = {"headway": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}
    out["versions"] = {**versions, "python": platform.python_version(), "threads": torch.get_num_threads()}
    print(msgspec.json.encode(out).decode())  # NaN is null


if __name__ == "__main__":
    main()
