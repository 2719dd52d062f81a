"""What bombs cost: the seconds to grade answers by `math-verify`, with and without some that never end.

    python benchmarks/grading.py [--answers 1000] [--bombs 0.05] [--repeats 3] [--out results/grading/grading.json]

Each repeat grades both, one after the other. All answers differ, and none is settled without a parser. The last line
is JSON: answers a second and the ratio of the seconds, with min, median and max. On a busy machine the ratio of the
processor time says more; it counts the start of the workers too.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from pathlib import Path

from headway import __version__
from headway.problems.graders import MATH_CPU_S, load_grader
from headway.types import Problem

REFERENCE = "\\frac{7}{3}"
KINDS = (
    "\\frac{{{0}}}{{3}}", "x^2 + {0}x + 1", "\\sqrt{{{0}}}", "the answer is ${0}/3$", "({0}, {0} + 1)", "{0}.5\\pi",
    "\\{{1, {0}\\}}", "7/3 + {0} - {0}", "{0} \\text{{ cm}}", "2^{{{0}/3}}",
)  # fmt: skip
BOMBS = (
    "9^{{9^{{9^{0}}}}}", "(10^9 + {0})!", "10**10**10 + 9^{{8^{{{0}}}}}", "((10^6)!)! + {0}",
    "\\binom{{10^9}}{{10^8 + {0}}}",
    "{{" * 900 + "{0}" + "}}" * 900, "(" * 900 + "{0}" + ")" * 900, "\\frac{{1}}{{" * 150 + "{0}" + "}}" * 150,
)  # fmt: skip


def texts(number: int, kinds: tuple[str, ...]) -> list[str]:
    """As many texts of these kinds in turn, all different."""
    return [kinds[i % len(kinds)].format(i + 9) for i in range(number)]


def graded(answers: list[str]) -> tuple[float, float, int]:
    """Seconds by the clock, seconds of processor time, and how many are undecided, in new workers that run already."""
    with load_grader("math-verify") as grader:  # type: ignore[attr-defined]
        grader.grade([(Problem("p", "?", REFERENCE), f"{i}/8") for i in range(20)])
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        rewards = grader.grade([(Problem("p", "?", REFERENCE), answer) for answer in answers])
        seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, sum(reward is None for reward in rewards)


def spread(values: list[float]) -> dict[str, float]:
    """Min, median and max."""
    return {"min": round(min(values), 2), "median": round(statistics.median(values), 2), "max": round(max(values), 2)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--bombs", type=float, default=0.05, help="share of the answers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    bombs = round(args.answers * args.bombs)
    plain, mixed = texts(args.answers, KINDS), texts(args.answers - bombs, KINDS)
    for i, bomb in enumerate(texts(bombs, BOMBS)):
        mixed.insert(i * args.answers // bombs, bomb)
    pairs = [(graded(mixed), graded(plain)) for _ in range(args.repeats)]
    found = {
        "answers": args.answers, "bombs": bombs, "cpu_s": MATH_CPU_S, "repeats": args.repeats,
        "per_second_without": spread([args.answers / plain[0] for _, plain in pairs]),
        "per_second_with": spread([args.answers / mixed[0] for mixed, _ in pairs]),
        "ratio_of_seconds": spread([mixed[0] / plain[0] for mixed, plain in pairs]),
        "cpu_seconds_without": spread([plain[1] for _, plain in pairs]),
        "cpu_seconds_with": spread([mixed[1] for mixed, _ in pairs]),
        "ratio_of_cpu_seconds": spread([mixed[1] / plain[1] for mixed, plain in pairs]),
        "undecided": [(mixed[2], plain[2]) for mixed, plain in pairs],
        "load": os.getloadavg()[0], "cores": os.cpu_count(), "python": platform.python_version(),
        "headway": __version__,
    }  # fmt: skip
    line = json.dumps(found)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
