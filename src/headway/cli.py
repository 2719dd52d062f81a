"""The command line: flags in, one procedure called, results on stdout, progress on stderr."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from headway import __version__
from headway.core.segment import Segment
from headway.core.tally import ValueKind
from headway.report.files import parse_formats
from headway.runs.derived import extend_run, linearize_run
from headway.runs.importers.rows import Columns
from headway.runs.importers.traces import AUTHOR_TAGS, Untagged
from headway.runs.measure import Measurement
from headway.runs.report import compare_runs
from headway.runs.settings import EngineName, Settings
from headway.runs.store import Run
from headway.terminal import console, print_report, progress
from headway.text.prompts import ThinkFormat, ThinkTags
from headway.types import HeadwayError

app = typer.Typer(
    help="Make every thinking token count: measure how a reasoning model uses test-time compute, and train it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[
    Path, typer.Option(help="Run folder; an existing one with the same settings goes on where it stopped.")
]
Model = Annotated[
    str, typer.Option(help="Model folder, hub name, builtin:countdown, scripted, or the name a server knows.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Also write csv, parquet, md, png, svg or pdf; several by commas or repeated."),
]
Problems = Annotated[
    str,
    typer.Option(
        help="JSONL, CSV or Parquet file; a known set (aime24, aime25, amc, math500, minerva, gsm8k, omni-math, "
        "countdown); hub:owner/name[:config][@split]; gym:TASK of reasoning-gym."
    ),
]


def settings_from(values: dict[str, Any]) -> Settings:
    """The settings of a command's flags."""
    return Settings(**{k: v for k, v in values.items() if k != "out"})


@app.command()
def measure(
    model: Model,
    out: Out,
    problems: Problems = "countdown",
    limit: Annotated[int | None, typer.Option(help="Use the first so many problems.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the question, if not prompt.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column of the answer, if not answer.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the id, if not id or the row's number.")] = None,
    prompt_template: Annotated[str | None, typer.Option(help="What is asked, with {problem} in it.")] = None,
    traces: Annotated[int, typer.Option(help="Traces a problem.")] = 4,
    branches: Annotated[int, typer.Option(help="Forced answers at each boundary.")] = 4,
    values: Annotated[ValueKind, typer.Option(help="How a value is estimated: docs/measuring.md.")] = "branches",
    precision: Annotated[
        float | None, typer.Option(help="Draw more branches until they add no more than this error to the regret.")
    ] = None,
    value_precision: Annotated[
        float | None, typer.Option(help="Draw more branches until each value has at most this error.")
    ] = None,
    max_branches: Annotated[int | None, typer.Option(help="Branches in all; more go where they tell most.")] = None,
    budget: Annotated[int, typer.Option(help="Thinking tokens a trace may take.")] = 1024,
    answer_tokens: Annotated[int, typer.Option(help="Tokens an answer may take, forced or not.")] = 32,
    temperature: Annotated[float, typer.Option(help="Of the traces; branches are drawn at 1.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of the traces.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Each request's seed derives from it.")] = 0,
    engine: Annotated[EngineName, typer.Option(help="auto: by the model.")] = "auto",
    grader: Annotated[
        str, typer.Option(help="auto (by the problems), exact, numeric, countdown, math-verify, gym.")
    ] = "auto",
    segment: Annotated[
        Segment, typer.Option(help="Cut thinking at markers, at backtracks, or on a grid of tokens.")
    ] = "markers",
    min_paragraphs: Annotated[int, typer.Option(help="Paragraphs an episode has at least (markers).")] = 3,
    episode_tokens: Annotated[int, typer.Option(help="Tokens an episode has (tokens).")] = 128,
    max_episodes: Annotated[int | None, typer.Option(help="Merge neighbours down to so many episodes.")] = None,
    think_format: Annotated[
        ThinkFormat | None, typer.Option(help="Tags of the thinking; by default the tokenizer tells.")
    ] = None,
    think_open: Annotated[str | None, typer.Option(help="What opens the thinking, if not <think>.")] = None,
    think_close: Annotated[str | None, typer.Option(help="What ends the thinking, if not </think>.")] = None,
    suffix: Annotated[str | None, typer.Option(help="What forces an answer in mid-thought.")] = None,
    end: Annotated[str | None, typer.Option(help="What asks for the answer after a thought that ended.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    vllm_args: Annotated[str | None, typer.Option(help="vLLM's own arguments, as a JSON object (vllm).")] = None,
    base_url: Annotated[str | None, typer.Option(help="The server's address, up to and including /v1 (api).")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="The model's own, a folder or hub name, if not --model (api).")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at a time (api).")] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds an answer may take (api).")] = 600.0,
    retries: Annotated[int, typer.Option(help="Tries after the first, with growing pauses (api).")] = 8,
    api_key_env: Annotated[
        str, typer.Option(help="Environment variable that holds the key (api).")
    ] = "OPENAI_API_KEY",
    cache: Annotated[
        str | None, typer.Option(help="Folder that keeps all samples, for other runs to take from it.")
    ] = None,
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


SETTLED_BY_FILE = ("problems", "prompt_template", "limit", "traces", "budget", "temperature", "top_p")


def import_(
    file: Annotated[Path, typer.Argument(help="JSONL, Parquet, lighteval details (.parquet) or inspect log (.eval).")],
    author: Annotated[
        str | None, typer.Option(help="The model that wrote the completions, if the file does not say.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Cut traces at so many thinking tokens; else the longest is the budget.")
    ] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the prompt or messages.")] = None,
    completion_column: Annotated[str | None, typer.Option(help="Column of the completion or completions.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column of the reference answer.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that tells problems apart.")] = None,
    reasoning_column: Annotated[str | None, typer.Option(help="Column of the thinking, if it has one.")] = None,
    author_think_open: Annotated[str, typer.Option(help="What opens the thinking in the file.")] = AUTHOR_TAGS.open,
    author_think_close: Annotated[str, typer.Option(help="What ends the thinking in the file.")] = AUTHOR_TAGS.close,
    untagged: Annotated[
        Untagged, typer.Option(help="What a completion without think tags is: an answer, or a thought cut off.")
    ] = "auto",
    **settings: Any,
) -> None:
    """Make a run of traces made elsewhere; --model is the meta-prover that prove will use."""
    from headway.runs.importers.run import import_traces

    out = settings["out"]
    columns = Columns(prompt_column, completion_column, answer_column, id_column, reasoning_column)
    tags = ThinkTags(author_think_open, author_think_close)
    asked = settings_from({**settings, "problems": str(file), "author": author})
    with progress() as tell:
        made = import_traces(
            file, out, asked, budget=budget, columns=columns, author_tags=tags, untagged=untagged, tell=tell
        )  # fmt: skip
    typer.echo(
        f"{made.traces} traces of {made.problems} problems by {made.author}: {made.without_thinking} without "
        f"thinking, {made.not_closed} not closed, {made.failed} rows without a completion left out"
    )
    if made.changed:
        console.print(
            f"the meta-prover's tokenizer cannot write {made.changed} of the traces as their author did; their values "
            "are those of another text",
            style="yellow",
        )
    typer.echo(f"next: headway prove --out {out}")


def _with_flags_of_measure(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the flags of `measure` that it takes as `**settings`."""
    own = {name: p for name, p in inspect.signature(command).parameters.items() if p.kind is not p.VAR_KEYWORD}
    shared = {name: p for name, p in inspect.signature(measure).parameters.items() if name not in SETTLED_BY_FILE}
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (shared | own).values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


app.command(name="import")(_with_flags_of_measure(import_))


@app.command()
def prove(out: Out) -> None:
    """Draw the forced answers at each boundary of a run's traces."""
    with progress() as tell, Measurement(Run.load(out), tell) as measurement:
        measurement.prove()
    typer.echo(f"next: headway report --out {out}")


@app.command()
def report(out: Out, formats: Formats = None) -> None:
    """Write a run's report.json and report.html, and other forms of it."""
    asked = parse_formats(formats or [])
    with progress() as tell, Measurement(Run.load(out), tell) as measurement:
        content = measurement.report(asked)
    print_report(content, out)


@app.command()
def extend(
    run: Annotated[Path, typer.Argument(help="Run folder whose traces go on.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run; an existing one goes on where it stopped.")],
    rounds: Annotated[int, typer.Option(help='Times a thought is told "Wait" and the like.')] = 8,
    round_tokens: Annotated[int, typer.Option(help="Tokens a round adds at most.")] = 2048,
) -> None:
    """Make a run whose traces go on past their end; prove and report it like any other."""
    with progress() as tell:
        extend_run(run, out, rounds=rounds, round_tokens=round_tokens, tell=tell)
    typer.echo(f"next: headway prove --out {out}")


@app.command()
def linearize(
    run: Annotated[Path, typer.Argument(help="Run folder: its model, its problems, and its traces to vote beside.")],
    chains: Annotated[int, typer.Option(help="Chains a problem.")] = 4,
    rounds: Annotated[int, typer.Option(help="Rounds a chain.")] = 8,
    round_tokens: Annotated[int, typer.Option(help="Tokens a round samples at most.")] = 1024,
    window: Annotated[int, typer.Option(help="Episodes that a round sees of its chain.")] = 2,
) -> None:
    """Run a backtracking model past its context with a sliding window of episodes; writes linearized.json."""
    with progress() as tell:
        file = linearize_run(run, chains=chains, rounds=rounds, round_tokens=round_tokens, window=window, tell=tell)
    typer.echo(f"linearized: {file}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is what the others are held against.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.json, report.html and the charts.")],
    formats: Formats = None,
) -> None:
    """Put runs side by side, with paired differences on the problems they share."""
    asked = parse_formats(formats or ["png"])
    typer.echo(compare_runs([(path.resolve().name, path) for path in runs], out, formats=asked))
    typer.echo(f"report: {out / 'report.html'}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Fine-tune with MRT: --config recipe.yaml, and any flag of the recipe to override it (TRL's parser)."""
    from headway.training import main as train_main

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
    from headway.runs.quickstart import quickstart as run_quickstart

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
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # results are on stdout
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
