"""What the command line shows: how far it is on stderr, a run's main numbers on stdout."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console(stderr=True)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage, on stderr; where that is no terminal, a line now and then."""
    if not console.is_terminal:
        yield lines()
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tell


def lines(seconds: float = 30.0) -> Callable[[str, int, int], None]:
    """Tells each stage's start, its end, and how far it is every so many seconds."""
    told = ("", 0.0)

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal told
        if stage != told[0] or done == total or time.monotonic() - told[1] >= seconds:
            told = (stage, time.monotonic())
            console.print(f"{stage}: {done} of {total}", highlight=False)

    return tell


def print_report(report: dict[str, Any], run: Path) -> None:
    """A run's main numbers."""
    table = Table(title=f"{report['model']} on {report['problems']}", title_justify="left")
    for column in ("", "value", "± error", "95% interval"):
        table.add_column(column, justify="right" if column else "left")
    regret = report["normalized_regret"][-1]
    rows = {
        "pass@1": report["pass_at_1"],
        "forced answer before thinking": report["forced_at_start"],
        f"normalized regret at {regret['budget']} tokens": regret,
        "episodes": report["episodes"],
        "tokens": report["tokens"],
    }
    for name, e in rows.items():
        table.add_row(name, f"{e['value']:.3f}", f"{e['stderr']:.3f}", f"{e['ci95'][0]:.3f} to {e['ci95'][1]:.3f}")
    out = Console()
    out.print(table)
    counts = ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in report["counts"].items())
    out.print(f"{report['n_traces']} traces of {report['n_problems']} problems: {counts}")
    drawn, added = report["branches"]["branches"], report["precision"]["regret"]
    out.print(f"{drawn} branches: their part of the regret's error is {added:.4f}")
    out.print(f"report: {run / 'report.html'}", soft_wrap=True)
