"""The command line: flags in, one procedure called, results on stdout, progress on stderr."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from headway import __version__
from headway.measure import EngineName, Measurement, Settings, compare_runs
from headway.score import ValueKind
from headway.segment import Segment
from headway.store import Run
from headway.types import HeadwayError

app = typer.Typer(
    help="Make every thinking token count: measure how a reasoning model uses test-time compute, and train it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True)

Out = Annotated[
    Path, typer.Option(help="Run folder; an existing one with the same settings goes on where it stopped.")
]
Model = Annotated[str, typer.Option(help="Model folder, hub name, builtin:countdown, or scripted.")]
Problems = Annotated[str, typer.Option(help="JSONL file (id, prompt, answer), or countdown: held-out problems.")]


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each stage, on stderr."""
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield tell


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
    out.print(f"report: {run / 'report.html'}", soft_wrap=True)


def settings_from(values: dict[str, Any]) -> Settings:
    """The settings of a command's flags."""
    return Settings(**{k: v for k, v in values.items() if k != "out"})


@app.command()
def measure(
    model: Model,
    out: Out,
    problems: Problems = "countdown",
    limit: Annotated[int | None, typer.Option(help="Use the first so many problems.")] = None,
    traces: Annotated[int, typer.Option(help="Traces a problem.")] = 4,
    branches: Annotated[int, typer.Option(help="Forced answers at each boundary.")] = 4,
    values: Annotated[ValueKind, typer.Option(help="How a value is estimated: docs/measuring.md.")] = "branches",
    budget: Annotated[int, typer.Option(help="Thinking tokens a trace may take.")] = 1024,
    answer_tokens: Annotated[int, typer.Option(help="Tokens an answer may take, forced or not.")] = 32,
    temperature: Annotated[float, typer.Option(help="Of the traces; branches are drawn at 1.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of the traces.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Each request's seed derives from it.")] = 0,
    engine: Annotated[EngineName, typer.Option(help="auto: by the model.")] = "auto",
    grader: Annotated[
        str, typer.Option(help="auto (by the problems), exact, numeric, countdown, math-verify.")
    ] = "auto",
    segment: Annotated[Segment, typer.Option(help="Cut thinking at markers, or on a grid of tokens.")] = "markers",
    min_paragraphs: Annotated[int, typer.Option(help="Paragraphs an episode has at least (markers).")] = 3,
    episode_tokens: Annotated[int, typer.Option(help="Tokens an episode has (tokens).")] = 128,
    max_episodes: Annotated[int | None, typer.Option(help="Merge neighbours down to so many episodes.")] = None,
    think_open: Annotated[str | None, typer.Option(help="What opens the thinking, if not <think>.")] = None,
    think_close: Annotated[str | None, typer.Option(help="What ends the thinking, if not </think>.")] = None,
    suffix: Annotated[str | None, typer.Option(help="What forces an answer in mid-thought.")] = None,
    end: Annotated[str | None, typer.Option(help="What asks for the answer after a thought that ended.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
) -> None:
    """Sample traces, prove them, report: accuracy at every budget, regret, progress."""
    settings = settings_from(dict(locals()))
    with progress() as tell, Measurement.create(out, settings, tell) as measurement:
        report = measurement.all()
    print_report(report, out)


@app.command(name="sample", help="Sample traces only; the same flags as measure.")
@functools.wraps(measure)
def sample(**values: Any) -> None:
    """Samples only."""
    out = values["out"]
    with progress() as tell, Measurement.create(out, settings_from(values), tell) as measurement:
        measurement.sample()
    typer.echo(f"next: headway prove --out {out}")


@app.command()
def prove(out: Out) -> None:
    """Draw the forced answers at each boundary of a run's traces."""
    with progress() as tell, Measurement(Run.load(out), tell) as measurement:
        measurement.prove()
    typer.echo(f"next: headway report --out {out}")


@app.command()
def report(out: Out) -> None:
    """Write a run's report.json and report.html."""
    with progress() as tell, Measurement(Run.load(out), tell) as measurement:
        content = measurement.report()
    print_report(content, out)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are held against.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.json, report.html and the charts.")],
) -> None:
    """Put runs side by side, with paired differences on the problems they share."""
    typer.echo(compare_runs([(path.resolve().name, path) for path in runs], out))
    typer.echo(f"report: {out / 'report.html'}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Fine-tune with MRT: --config recipe.yaml, and any flag of the recipe to override it (TRL's parser)."""
    from headway.trainer import main as train_main

    train_main(context.args)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for the runs base, grpo, mrt and compare.")] = Path(
        "runs/quickstart"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes, at lower precision.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Measure the built-in model, fine-tune it with GRPO and with MRT at equal cost, and compare."""
    from headway.quickstart import quickstart as run_quickstart

    with progress() as tell:
        table = run_quickstart(out, quick=quick, seed=seed, tell=tell)
    typer.echo(table)
    typer.echo(f"report: {out / 'compare' / 'report.html'}")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version, if asked."""
    if show:
        typer.echo(f"headway {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command; bad input is one message and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except HeadwayError as error:
        console.print(f"headway: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped; what was done is kept, and the same command goes on from there")
        sys.exit(130)
    except OSError as error:
        console.print(f"headway: {error}; what was done is kept, and the same command goes on", markup=False)
        sys.exit(2)
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
