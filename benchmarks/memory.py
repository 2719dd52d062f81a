"""How much memory proving and reporting take beside a model: a run folder of many stored traces.

    python benchmarks/memory.py [--traces 10000] [--tokens 2048]

The traces are made here, four a problem, and cut every 256 tokens. `headway prove` (from nothing, and once more when
all is there) and `headway report` run as processes of their own with the scripted engine, which holds no model. The
last line is JSON: the peak resident memory of each, in MB, and its seconds.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headway import __version__
from headway.engines.scripted import CLOSE, EPISODE, Characters
from headway.problems import load_problems
from headway.procedures.sample import make_trace
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.prompts import prompt_ids
from headway.text.tags import find_think_tags
from headway.types import Completion, Trace

PER_PROBLEM, EVERY = 4, 256


def stored(traces: int, tokens: int) -> Iterator[list[Trace]]:
    """Traces with thoughts of so many tokens, a problem's at a time."""
    tokenizer = Characters()
    tags = find_think_tags(tokenizer, think_open=None, think_close=CLOSE)
    thought = "".join(EPISODE.format(j) for j in range(1 + tokens // len(EPISODE)))[:tokens]
    for problem in load_problems("countdown", limit=traces // PER_PROBLEM).problems:
        ids = tokenizer.encode(f"{thought}{CLOSE}\n\n\\boxed{{{problem.answer}}}", add_special_tokens=False)
        prompt = prompt_ids(tokenizer, problem.prompt, tags)
        made = (
            make_trace(tokenizer, problem.id, i, prompt, Completion(tuple(ids), "stop"), tags)
            for i in range(PER_PROBLEM)
        )
        yield [msgspec.structs.replace(t, answer=problem.answer, reward=1.0) for t in made]


def peak(*arguments: str) -> dict[str, float]:
    """Runs a headway command; its peak memory and seconds."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "headway", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"headway {' '.join(arguments)} ended with status {status}")
    return {"peak_mb": usage.ru_maxrss / 1024, "seconds": time.perf_counter() - start}


def main() -> None:
    """Prints a line for each command and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=2048)
    args = parser.parse_args()
    settings = Settings.of(
        model="scripted", problems="countdown", limit=args.traces // PER_PROBLEM, traces=PER_PROBLEM, branches=4,
        budget=args.tokens, answer_tokens=64, segment="tokens", episode_tokens=EVERY,
    )  # fmt: skip
    out: dict[str, object] = {"traces": args.traces, "tokens": args.tokens}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        run = Run.create(path, settings.flat())
        for of_problem in stored(args.traces, args.tokens):
            run.append(of_problem)
        out["traces_mb"] = (path / "traces.jsonl").stat().st_size / 2**20
        for name, command in (("prove", "prove"), ("prove_again", "prove"), ("report", "report")):
            out[name] = peak(command, "--out", str(path))
            print(name, out[name], flush=True)
        out["branches"] = len(run.branches())
    out["versions"] = {"headway": __version__, "python": platform.python_version()}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
