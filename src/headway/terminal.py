"""What the command line shows: progress on stderr, a run's main numbers on stdout."""

import errno
import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from headway.report.numbers.findings import cautions
from headway.report.quantities import headline
from headway.report.text import UNKNOWN, interval, number
from headway.types import HeadwayError

console = Console(stderr=True)
KEPT = "finished work is saved, and the same command continues it"
CONTINUES = {  # after a stop; other commands continue when they are given again
    "import": "nothing was written: give the same command again",
    "train": "--resume_from_checkpoint true continues from the newest checkpoint in output_dir",
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
UNFORESEEN = "unexpected error,"
MESSAGE = 2000  # characters


def print_message(text: str) -> None:
    """One line on stderr, whatever the text holds: files and servers are quoted in it."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    cut = line if len(line) <= MESSAGE else f"{line[:MESSAGE]}…"
    console.print(cut, style="red", markup=False, highlight=False, soft_wrap=True)


def print_error(error: Exception, *, whole: bool) -> None:
    """An error as one line; one that nobody foresaw names the file with its traceback. `whole` prints that first."""
    if whole:
        traceback.print_exception(error)
    said = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        said = f"{said}; {KEPT}"
    elif not isinstance(error, HeadwayError | OSError):
        said = f"{UNFORESEEN} {type(error).__name__}: {said[:500]}; {_logged(error)}"
    print_message(f"headway: {said}")


def print_stopped(command: str) -> None:
    """How to continue after a stop."""
    print_message(f"stopped; {CONTINUES.get(command, KEPT)}")


def _logged(error: Exception) -> str:
    try:
        with NamedTemporaryFile("w", prefix="headway-", suffix=".log", delete=False, errors="replace") as log:
            traceback.print_exception(error, file=log)
    except OSError:
        return "--traceback prints where"
    return f"please report it with the traceback in {log.name} (--traceback prints it)"


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage, on stderr; where that is no terminal, a line every 30 seconds."""
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
    """Prints the start and the end of each stage, and its progress at this interval."""
    last = ("", 0.0)

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage != last[0] or done == total or time.monotonic() - last[1] >= seconds:
            last = (stage, time.monotonic())
            console.print(f"{stage}: {done} of {total}", highlight=False)

    return tell


def print_report(report: dict[str, Any], run: Path) -> None:
    """A run's main numbers."""
    table = Table(title=f"{report['model']} on {report['problems']}", title_justify="left")
    for column in ("", "value", "± error", "95%: problems like these", "95%: these problems"):
        table.add_column(column, justify="right" if column else "left")
    for label, estimate, digits, these in headline(report):
        value, error = (number(estimate[name], digits) for name in ("value", "stderr"))
        ends = [interval(e, digits) if e else UNKNOWN for e in (estimate, these)]
        table.add_row(label, value, error, *ends)
    out = Console()
    out.print(table)
    counts = ", ".join(f"{n} {outcome.replace('_', ' ')}" for outcome, n in report["counts"].items())
    grader = report.get("settings", {}).get("grader")
    graded = f", graded by {grader}" if grader else ""
    out.print(f"{report['n_traces']} traces of {report['n_problems']} problems{graded}: {counts}")
    for caution in cautions(report):
        out.print(f"Caution: {caution}", highlight=False)
    branches, added = report["branches"]["branches"], report["precision"]["regret"]
    if long := report["branches"].get("long"):
        out.print(
            f"Warning: {long} branches have an answer longer than the budget curve charges, by more than an episode"
        )
    out.print(f"{branches} branches; they add {number(added, 4)} to the standard error of the regret")
    out.print(f"report: {run / 'report.html'}", soft_wrap=True)


def print_cells(rows: Sequence[tuple[str, str, float | None]], minutes_left: float) -> None:
    """The cells of a study with their states and minutes, how many are in each state, and the minutes left in all."""
    for name, state, minutes in rows:
        typed = "" if minutes is None else f" {minutes:5.1f} min"
        print(f"{state:>8}  {name}{typed}")
    counts = ", ".join(f"{n} {state}" for state, n in Counter(state for _, state, _ in rows).items())
    print(f"{counts}; about {minutes_left:.0f} minutes of one core left")


def print_rounds(rounds: list[dict[str, Any]]) -> None:
    """The metrics of rounds of STaR, a row each, and why traces were left out."""
    table = Table(title=f"rule: {rounds[0]['rule']}", title_justify="left")
    shown = ("round", "sampled", "correct", "selected", "tokens_sampled", "tokens_selected", "steps", "loss")
    for column in shown:
        table.add_column(column.replace("_", " "), justify="right")
    for made in rounds:
        table.add_row(*(number(float(made[name]), 3 if name == "loss" else 0) for name in shown))
    out = Console()
    out.print(table)
    for made in rounds:
        reasons = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in made["left_out"].items())
        out.print(f"round {made['round']}: left out {reasons or 'none'}")


def print_plan(plan: dict[str, Any], *, as_json: bool = False) -> None:
    """What a training or a measurement takes: memory, phases, context and findings."""
    if as_json:
        print(json.dumps(plan, indent=2))
        return
    out, machine = Console(), plan["machine"]
    out.print(
        f"{plan['model']}: {plan['parameters']:,} parameters, {plan['kv_bytes_per_token']:,} bytes of keys and values "
        f"a token; {machine['gpus']} x {machine['gpu']} of {machine['memory'] / 1e9:.0f} GB", highlight=False,
    )  # fmt: skip
    table, layouts = Table(title="GB of a GPU", title_justify="left"), plan["memory"]
    table.add_column("")
    for layout in layouts:
        own = " (this recipe)" if layout == plan["layout"] and len(layouts) > 1 else ""
        table.add_column(layout + own, justify="right")
    for part in (name for name in layouts[plan["layout"]] if name != "fits"):
        if any(memory[part] for memory in layouts.values()):
            table.add_row(part, *(f"{memory[part] / 1e9:.1f}" for memory in layouts.values()))
    out.print(table)
    table = Table(title="a GPU, from one sampling of traces to the next", title_justify="left")
    for column in ("phase", "tokens", "of them sampled", "seconds", "share"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for p in plan["phases"]:
        counts = (f"{p['tokens']:,.0f}", f"{p['sampled']:,.0f}", f"{p['seconds']:,.1f}", f"{p['share']:.0%}")
        table.add_row(p["phase"], *counts)
    out.print(table)
    run, context = plan["run"], plan["context"]
    each = f"{run['seconds_per_step']:,.0f} s a step; " if plan["plan"] == "training" else ""
    known = "" if run["hours"] is None else f"{run['hours']:,.1f} hours, {run['gpu_hours']:,.1f} GPU hours; "
    out.print(f"{each}{known}an estimate by the assumptions in docs/scaling.md", highlight=False)
    out.print(f"smallest context: {context['needed']:,} tokens (the model's: {context['model']})", highlight=False)
    if cache := plan["cache"]:
        held = ", ".join(f"{cache[name] / 1e9:.1f}" for name in ("pool", "mean", "most"))
        out.print(
            f"vLLM's cache, GB: has, needs at the mean, at most: {held}; {cache['resident']:.0%} stays",
            highlight=False,
        )
    for found in plan["findings"]:
        color = "red" if found["kind"] == "refused" else "yellow"
        out.print(f"{found['kind']}: {found['option']}: {found['text']}", style=color, markup=False, soft_wrap=True)
