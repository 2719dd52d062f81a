"""Proving beside the official pipeline's way: each prefix computed anew, and 8 answers of free length after it.

    python benchmarks/official.py --model smollm2 --problems gsm8k_train.jsonl [--traces 3]

The same engine, weights, traces and machine. The official way closes the thought and lets the model write a whole
solution, at most `--free` tokens (the authors allow 4,096); prefixes share nothing, the 8 answers of a prefix do. Ours
forces a short answer, 8 branches over one shared prefix; beside it the likelihood of the reference. Seconds of each
trace, in turn. The last line is JSON: how many times less ours takes, with min, median and max over the traces, and
the root mean square of the values' standard errors.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from headway.core.segment import Cutting, cut
from headway.core.tally import ValueKind
from headway.engines import hf
from headway.engines.hf import decode
from headway.engines.hf.prefix_cache import Request, alone
from headway.engines.loading import model_path
from headway.engines.streaming import Parts
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.text.prompts import meta_prover
from headway.text.tags import find_think_tags
from headway.types import MetaProver, Prompt, SamplingParams, Trace
from step import spread


class Anew(hf.HFEngine):
    """The engine without anything that prompts share."""

    @torch.no_grad()
    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """`params.n` samples of each prompt, which is computed from its first token on."""
        requests = [Request(i, p, s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
        yield from decode.sample_separately(self.language_model, alone(requests), params, self.starts(params), done)


def main() -> None:
    """Prints a line a trace and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--problems", required=True, help="a JSONL file")
    parser.add_argument("--traces", type=int, default=3)
    parser.add_argument("--free", type=int, default=512, help="tokens of a free answer, at most")
    args = parser.parse_args()
    torch.set_num_threads(2)
    loaded = load_problems(args.problems, limit=args.traces)
    ours = hf.load(model_path(args.model), dtype="float32")
    official = Anew(ours.model, ours.tokenizer)
    grader, problems = load_grader(loaded.grader), {p.id: p for p in loaded.problems}
    tags = find_think_tags(ours.tokenizer, think_open="", think_close="The answer is")
    traces = [t for part in sample(ours, loaded.problems, grader, tags, Sampling(1, 320, 12)) for t in part]
    short = meta_prover(tags, branches=8, max_tokens=12)
    free = MetaProver("\n\nTime is up.\n\nStep by step:\n\n1. ", "\n\nStep by step:\n\n1. ", 8, args.free, stop=())

    def segmenter(trace: Trace) -> Any:
        return cut(trace, Cutting("tokens", episode_tokens=40, max_episodes=7), 280)

    def valued(engine: hf.HFEngine, prover: MetaProver, kind: ValueKind, trace: Trace) -> Callable[[], Any]:
        proving = Prover(engine, prover, problems, grader=grader, segmenter=segmenter)
        return lambda: proving.curves(kind, [trace], seed=0)

    took: dict[str, list[float]] = {"official": [], "branches": [], "likelihood": []}
    squares: dict[str, list[float]] = {name: [] for name in took}
    tokens: dict[str, int] = dict.fromkeys(took, 0)
    for trace in traces:
        ways = {
            "branches": valued(ours, short, "branches", trace),
            "likelihood": valued(ours, short, "likelihood", trace),
            "official": valued(official, free, "branches", trace),
        }
        for name, run in ways.items():
            if trace is traces[0] and name != "official":
                run()  # warms up
            start = time.perf_counter()
            [curve], branches, _ = run()
            took[name].append(time.perf_counter() - start)
            squares[name] += (curve.values.stderr**2).tolist()
            tokens[name] += sum(b.sampled for b in branches)
        print(trace.name, len(trace.token_ids), {name: round(s[-1], 2) for name, s in took.items()}, flush=True)
    result = {
        "times_less": {
            name: spread([a / b for a, b in zip(took["official"], took[name], strict=True)])
            for name in ("branches", "likelihood")
        },
        "seconds": took,
        "stderr": {name: float(np.sqrt(np.nanmean(s))) for name, s in squares.items()},
        "tokens_sampled": tokens,
        "boundaries": len(squares["branches"]),
        "thinking_tokens": [t.thinking for t in traces],
        "free_tokens": args.free,
        "model": Path(args.model).name,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
