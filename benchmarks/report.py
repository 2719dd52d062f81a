"""What a report costs: the seconds and the memory of reading a run's records and writing its report.

    python benchmarks/report.py [--traces 1000] [--boundaries 10] [--branches 4] [--tokens 2000] [--repeats 5]

The run is made of records that no model wrote, as long as asked for and of random words, so that compressing them is
real work. Each repeat is a process of its own; imports and problems are counted too. The last line is JSON: seconds,
peak memory and the size of the page, with min, median and max over the repeats.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUP = 4  # traces of a problem
MEBI = 2**20


def records(problem: str, index: int, args: argparse.Namespace, rng: random.Random) -> Iterator[Any]:
    """A trace whose thinking is cut into `boundaries - 1` episodes, and its branches."""
    from headway.types import Branch, Trace

    words = [f"{rng.choice(WORDS)} " for _ in range(args.tokens)]
    every = args.tokens // (args.boundaries - 1)
    for j in range(args.boundaries - 1):
        words[j * every] = "\n\nWait\n\n" if j else "Okay\n\n"
    answer = str(rng.randrange(100))
    parts = [*words, "\n</think>", f"\\boxed{{{answer}}}"]
    offsets, at = [], 0
    for part in parts:
        offsets.append(at)
        at += len(part)
    ids = tuple(rng.randrange(150_000) for _ in parts)
    right = float(rng.random() < 0.5)
    yield Trace(
        problem, index, (1,) * 100, ids, "".join(parts), tuple(offsets), args.tokens, True, "stop", answer, right
    )
    for j in range(args.boundaries):
        for b in range(args.branches):
            said = str(rng.randrange(3))
            yield Branch(problem, index, j, b, f"{said}}}", j * every + 20, 12, said, float(said == "0"), -1.0)


def make(folder: Path, args: argparse.Namespace) -> None:
    """Writes the run folder."""
    from headway.problems import load_problems
    from headway.runs.settings import Settings
    from headway.runs.store import Run

    settings = Settings.of(
        model="scripted", problems="countdown", limit=args.traces // GROUP, traces=GROUP, branches=args.branches,
        budget=args.tokens, min_paragraphs=1,
    )  # fmt: skip
    run = Run.create(folder, settings.flat())
    rng = random.Random(0)
    for problem in load_problems("countdown", limit=settings.problems.limit).problems:
        run.append([r for index in range(GROUP) for r in records(problem.id, index, args, rng)])


def report(folder: Path, results: Any) -> None:
    """Reports in this process and puts seconds and peak memory, in MiB."""
    start = time.perf_counter()
    from headway.runs.measure import Measurement
    from headway.runs.store import Run

    with Measurement(Run.load(folder)) as measurement:
        content = measurement.report()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put((time.perf_counter() - start, peak, content["episodes"]["value"], content["n_traces"]))


WORDS = [f"{random.Random(i).randrange(10**9):x}" for i in range(20_000)]


def main() -> None:
    """Prints a line a repeat and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("traces", 1000), ("boundaries", 10), ("branches", 4), ("tokens", 2000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there) / "run"
        writer = context.Process(target=make, args=(folder, args))
        writer.start()
        writer.join()
        stored = sum(file.stat().st_size for file in folder.iterdir()) / MEBI
        for _ in range(args.repeats):
            results = context.Queue()
            process = context.Process(target=report, args=(folder, results))
            process.start()
            took, peak, episodes, n = results.get()
            process.join()
            assert (episodes + 1, n) == (args.boundaries, args.traces // GROUP * GROUP)
            seconds.append(took)
            peaks.append(peak)
            print(f"{took:.2f} s, {peak:.0f} MiB at most", flush=True)
        page = (folder / "report.html").stat().st_size / MEBI
    spread = {
        name: {"min": round(min(x), 2), "median": round(statistics.median(x), 2), "max": round(max(x), 2)}
        for name, x in (("seconds", seconds), ("peak_mib", peaks))
    }
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({**vars(args), **spread, "page_mib": round(page, 2), "run_mib": round(stored, 1), **machine}))


if __name__ == "__main__":
    main()
