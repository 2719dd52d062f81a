"""The command line: flags in, one procedure called, results on stdout, progress on stderr."""

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from msgspec import NODEFAULT, structs

from headway import __version__
from headway.choices import Options, declared
from headway.procedures.extend import Extension
from headway.procedures.linearize import Chains
from headway.runs.importers.rows import ImportOptions
from headway.runs.plan.machines import Machine
from headway.runs.settings import PARTS, Settings, extra
from headway.terminal import (
    console,
    print_cells,
    print_error,
    print_plan,
    print_report,
    print_rounds,
    print_stopped,
    progress,
)

app = typer.Typer(
    help="Make every thinking token count: measure how a reasoning model uses test-time compute, and train it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path, typer.Option(help="Run folder; an existing one with the same settings continues.")]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Also write csv, parquet, md, png, svg or pdf; separate several by commas."),
]
Command = Callable[..., None]
TRACEBACK = "--traceback"
INTERRUPTED, TERMINATED = 130, 143  # exit codes of SIGINT and SIGTERM
KEYWORD, NONE = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
SETTLED_BY_FILE = {"problems", "prompt_template", "traces", "temperature", "top_p"}  # of an import


def takes(groups: Mapping[str, type[Options]], *, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """Adds a flag for each option of the groups (by title of their panel) but some; of one name the first counts."""

    def with_flags(command: Command) -> Command:
        flags = {n: p for n, p in inspect.signature(command).parameters.items() if p.kind is not p.VAR_KEYWORD}
        for title, group in groups.items():
            hints, options = get_type_hints(group), declared(group)
            for field in structs.fields(group):
                name, default = field.name, NONE if field.default is NODEFAULT else field.default
                if name in options and name not in flags and name not in but:
                    flag = typer.Option(help=options[name].help, rich_help_panel=title.capitalize())
                    typed: Any = Annotated[hints[name], flag]
                    flags[name] = inspect.Parameter(name, KEYWORD, default=default, annotation=typed)
        made = [p.replace(kind=KEYWORD) for p in flags.values()]
        command.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in made}
        return command

    return with_flags


@app.command()
@takes(PARTS)
def measure(out: Out, **options: Any) -> None:
    """Sample traces, prove them and report: accuracy at every budget, regret, progress."""
    from headway.runs.measure import Measurement

    with progress() as tell, Measurement.create(out, Settings.of(**options), tell) as measurement:
        report = measurement.all()
    print_report(report, out)


@app.command()
@takes(PARTS)
def sample(out: Out, **options: Any) -> None:
    """Only sample traces; the same flags as measure."""
    from headway.runs.measure import Measurement

    with progress() as tell, Measurement.create(out, Settings.of(**options), tell) as measurement:
        measurement.sample()
    typer.echo(f"next: headway prove --out {out}")


@app.command(name="import")
@takes({"file": ImportOptions, **PARTS}, but=SETTLED_BY_FILE)
def import_(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, Parquet, lighteval details or inspect log.")],
    out: Out,
    **options: Any,
) -> None:
    """Make a run of traces sampled elsewhere; --model is the meta-prover, which prove samples from."""
    from headway.runs.importers.run import import_traces

    reading = ImportOptions(**{name: options.pop(name) for name in ImportOptions.__struct_fields__})
    with progress() as tell:
        made = import_traces(file, out, Settings.of(**options), reading, tell=tell)
    failed = f"{made.failed} failed requests were left out"
    thinking = f"{made.without_thinking} without thinking, {made.not_closed} not closed"
    typer.echo(f"{made.traces} traces of {made.problems} problems by {made.author}: {thinking}; {failed}")
    if made.left_out:
        console.print(str(made.left_out), style="yellow", markup=False, highlight=False, soft_wrap=True)
    for note in made.notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    if made.changed:
        warning = f"{made.changed} of the traces do not round-trip through the meta-prover's tokenizer"
        console.print(f"{warning}; their values are those of another text", style="yellow")
    typer.echo(f"next: headway prove --out {out}")


@app.command()
def prove(out: Out) -> None:
    """Sample forced answers at each boundary of a run's traces."""
    from headway.runs.measure import Measurement

    with progress() as tell, Measurement.load(out, tell) as measurement:
        measurement.prove()
    typer.echo(f"next: headway report --out {out}")


@app.command()
def report(out: Out, formats: Formats = None) -> None:
    """Write a run's report.json and report.html, and other formats."""
    from headway.report.files import parse_formats
    from headway.runs.measure import Measurement

    asked = parse_formats(formats or [])
    with progress() as tell, Measurement.load(out, tell) as measurement:
        content = measurement.report(asked)
    print_report(content, out)


@app.command()
@takes({"options": Extension})
def extend(
    run: Annotated[Path, typer.Argument(help="Run folder whose traces are extended.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run; an existing one continues.")],
    **options: Any,
) -> None:
    """Make a run whose traces think longer (budget forcing); prove and report it like any other."""
    from headway.runs.derived import extend_run

    with progress() as tell:
        extend_run(run, out, tell=tell, **options)
    typer.echo(f"next: headway prove --out {out}")


@app.command()
@takes({"options": Chains})
def linearize(
    run: Annotated[Path, typer.Argument(help="Run folder, whose model and problems are used and whose traces vote.")],
    **options: Any,
) -> None:
    """Run a backtracking model past its context length with a sliding window of episodes; writes linearized.json."""
    from headway.runs.derived import linearize_run

    with progress() as tell:
        file = linearize_run(run, tell=tell, **options)
    typer.echo(f"linearized: {file}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the others are compared with the first.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.json, report.html and the charts.")],
    formats: Formats = None,
) -> None:
    """Compare runs, with paired differences on the problems they share."""
    from headway.report.files import parse_formats
    from headway.runs.report import compare_runs

    asked = parse_formats(formats or ["png"])
    typer.echo(compare_runs([(path.resolve().name, path) for path in runs], out, formats=asked))
    typer.echo(f"report: {out / 'report.html'}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Fine-tune with MRT: --config recipe.yaml; any option of the recipe is also a flag, which overrides it."""
    from headway.runs.recipe_file import check_recipe

    check_recipe(context.args)
    with extra("train", "training needs trl"):
        from headway.training import main as train_main
    train_main(context.args)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def star(context: typer.Context) -> None:
    """Fine-tune in rounds on selected traces (MRT as STaR): --config recipe.yaml, and flags that override it."""
    from headway.runs.star import star as run_star

    with progress() as tell:
        rounds = run_star(context.args, tell)
    print_rounds(rounds)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for base, grpo, mrt and compare.")] = Path("runs/quickstart"),
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes, with larger standard errors.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of all runs.")] = 0,
) -> None:
    """Measure the built-in model, fine-tune it with GRPO and with MRT at equal cost, and compare."""
    from headway.runs.quickstart import quickstart as run_quickstart

    with progress() as tell:
        table = run_quickstart(out, quick=quick, seed=seed, tell=tell)
    typer.echo(table)
    typer.echo(f"report: {out / 'compare' / 'report.html'}")


@app.command()
def study(
    config: Annotated[Path, typer.Option(help="YAML file of the study, such as recipes/study/study.yaml.")],
    jobs: Annotated[int, typer.Option(help="Cells at a time, each on one core.", min=1)] = 2,
    only: Annotated[
        list[str] | None, typer.Option(help="Only cells that fit SETTING/METHOD/SEED, such as 'builtin/*/1'; repeats.")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="The configuration's small version.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the cells: done, missing, time left. Runs none.")] = False,
    page: Annotated[bool, typer.Option("--report", help="Write table, figures and page of what is done.")] = False,
    cell: Annotated[str | None, typer.Option(hidden=True, help="Run this cell in this process.")] = None,
) -> None:
    """Train and measure methods in several settings with several seeds; resumes; results are JSON, one file a cell."""
    from headway.runs.study.command import StudyCommand

    asked = StudyCommand(config, small=small)
    if cell is not None:
        asked.cell(cell)
    elif show:
        print_cells(*asked.cells(only or []))
    elif page:
        typer.echo(asked.report())
    else:
        asked.run(only or [], jobs, lambda line: console.print(line, highlight=False, soft_wrap=True))


@app.command()
@takes({"machine": Machine, **PARTS})
def plan(
    config: Annotated[Path | None, typer.Option(help="Recipe of headway train.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of headway measure, instead of a recipe.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Also read the recipe as train does here (seconds).")] = False,
    **options: Any,
) -> None:
    """Say what a training (--config) or a measurement (--model and its flags) takes, before anything is loaded."""
    from headway.runs.plan.command import plan_command

    machine = Machine(**{name: options.pop(name) for name in Machine.__struct_fields__})
    made = plan_command(config, None if model is None else {"model": model}, options, machine, check=check)
    print_plan(made, as_json=as_json)


@app.callback(invoke_without_command=True)
def common(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    traceback: Annotated[bool, typer.Option(TRACEBACK, help="Print the traceback of an error, all of it.")] = False,
) -> None:
    """Print the version, if asked."""
    if show:
        typer.echo(f"headway {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command; an error is one message and exit code 2, SIGINT and SIGTERM are one and 130 or 143."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # results are on stdout
    arguments = [argument for argument in sys.argv[1:] if argument != TRACEBACK]  # anywhere: train passes flags on
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app(arguments)
    except (KeyboardInterrupt, SystemExit) as ended:  # typer makes the one the other
        code = INTERRUPTED if isinstance(ended, KeyboardInterrupt) else ended.code
        if code in (INTERRUPTED, TERMINATED):
            print_stopped(next(iter(arguments), ""))
            sys.stdout.flush()
            if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
                os._exit(code)  # Python would wait for the requests in flight
        sys.exit(code)
    except Exception as error:
        print_error(error, whole=TRACEBACK in sys.argv)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout.flush()
