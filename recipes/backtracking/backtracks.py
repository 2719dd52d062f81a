"""What a run's traces do when they backtrack: writes RUN/backtracks.json and prints it.

python recipes/backtracking/backtracks.py RUN
"""

import itertools
import operator
import re
import sys
from pathlib import Path

from headway.core.segment import by_backtracks
from headway.runs.store import Run
from headway.types import Trace

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
LINE = re.compile(r"Backtrack to Line (\d+)")


def right_steps(trace: Trace) -> list[bool]:
    """Whether each step of a trace is right."""
    found = [(int(a), s, int(b), int(c)) for a, s, b, c in STEP.findall(trace.thought)]
    return [(s != "/" or b != 0) and OPERATORS[s](a, b) == c for a, s, b, c in found]


def backtracks(trace: Trace) -> list[tuple[int, list[str], list[str]]]:
    """The line that each "Backtrack to Line N" names, and the lines of the attempts before and after it.

    The attempt after it counts if it ends within the trace.
    """
    pieces = [trace.thought[a:b] for a, b in by_backtracks(trace.thought)]
    whole = pieces if trace.closed else pieces[:-1]
    triples = zip(whole[::2], whole[1::2], whole[2::2], strict=False)
    lines = [
        (LINE.match(marker), *([x for x in text.split("\n") if x] for text in (a, b))) for a, marker, b in triples
    ]
    return [(int(named[1]), before, after) for named, before, after in lines if named]


def summarize(run: Run) -> dict[str, float | int]:
    """Counts and fractions over all traces of a run."""
    traces = list(run.traces())
    named = list(itertools.chain.from_iterable(map(backtracks, traces)))
    kept = [before[: n - 1] == after[: n - 1] for n, before, after in named]
    changed = [before[n - 1 : n] != after[n - 1 : n] for n, before, after in named]
    steps = list(itertools.chain.from_iterable(map(right_steps, traces)))
    yes = [t for t in traces if t.closed and t.thought.rstrip().endswith("? Yes.")]
    return {
        "traces": len(traces),
        "backtracks_per_trace": sum(len(by_backtracks(t.thought)) // 2 for t in traces) / len(traces),
        "named_lines": len(named),
        "kept_the_lines_before": sum(kept) / len(named) if named else float("nan"),
        "changed_the_named_line": sum(changed) / len(named) if named else float("nan"),
        "arithmetic_right": sum(steps) / len(steps),
        "closed_on_yes": len(yes),
        "false_yes": sum(t.reward == 0 for t in yes) / len(yes) if yes else float("nan"),
        "closed": sum(t.closed for t in traces) / len(traces),
    }


if __name__ == "__main__":
    of_run = Run.load(Path(sys.argv[1]))
    of_run.write_json("backtracks.json", summarize(of_run))
    print((of_run.path / "backtracks.json").read_text())
