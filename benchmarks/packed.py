"""Scoring an answer at all boundaries of one long trace, beside one plain forward of the trace.

    python benchmarks/packed.py [--model smollm2-size] [--tokens 4096] [--boundaries 16] [--rounds 5]

Random tokens; `smollm2-size` is a model of SmolLM2-135M's shape with random weights. For the seconds both take turns
in one process. For the memory each runs in a process of its own: the most it ever held, model and libraries included.
The last line is JSON, ratios with min, median and max.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from headway.engines import hf
from headway.engines.loading import model_path
from headway.types import Continuation, Prompt
from step import spread


def load(model: str) -> hf.HFEngine:
    """The engine of a model; of one with random weights for `smollm2-size`."""
    if model != "smollm2-size":
        return hf.load(model_path(model))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=32768, tie_word_embeddings=True, eos_token_id=2,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path("builtin:countdown"))
    return hf.HFEngine(LlamaForCausalLM(config).eval().requires_grad_(False), tokenizer)


def ways(engine: hf.HFEngine, tokens: int, boundaries: int) -> dict[str, Callable[[], Any]]:
    """One plain forward of a trace, and the log-probabilities of an answer of four tokens at each boundary."""
    rng = np.random.default_rng(0)

    def some(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(6, engine.model.config.vocab_size, n).tolist())

    trace, suffix, answer = some(tokens), some(12), some(4)
    prompts = [Prompt(trace, tokens * (k + 1) // boundaries, suffix) for k in range(boundaries)]
    ids = torch.tensor([trace], device=engine.model.device)

    @torch.no_grad()
    def plain() -> Any:
        return engine.model(input_ids=ids, use_cache=False, logits_to_keep=1)

    return {
        "plain": plain,
        "packed": lambda: engine.logprobs(prompts, [(Continuation(answer),)] * boundaries, ends=("}", "\n")),
    }


def seconds(model: str, rounds: int, *, tokens: int = 4096, boundaries: int = 16) -> dict[str, Any]:
    """The seconds of both, in turn, and their ratio."""
    both = ways(load(model), tokens, boundaries)
    took: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(rounds + 1):
        for name, run in both.items():
            start = time.perf_counter()
            run()
            if turn:
                took[name].append(time.perf_counter() - start)
    ratio = spread([a / b for a, b in zip(took["packed"], took["plain"], strict=True)])
    return {"packed_ratio": ratio, "seconds": {name: spread(s) for name, s in took.items()}}


def memory(model: str, tokens: int, boundaries: int) -> dict[str, float]:
    """The most MB that a process ever held which runs one of the two once, and their ratio."""
    most = {}
    for name in ("plain", "packed"):
        command = [sys.executable, __file__, "--model", model, "--tokens", str(tokens), "--only", name]
        command += ["--boundaries", str(boundaries)]
        most[name] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])
    return {**{f"{name}_mb": mb for name, mb in most.items()}, "ratio": most["packed"] / most["plain"]}


def main() -> None:
    """Prints a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-size")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--boundaries", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["plain", "packed"], help="run one of them once and print its memory in MB")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.only:
        ways(load(args.model), args.tokens, args.boundaries)[args.only]()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    result = {
        "tokens": args.tokens,
        "boundaries": args.boundaries,
        "memory": memory(args.model, args.tokens, args.boundaries),
        **seconds(args.model, args.rounds, tokens=args.tokens, boundaries=args.boundaries),
    }
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({**result, "model": args.model, "versions": {**versions, "python": platform.python_version()}}))


if __name__ == "__main__":
    main()
