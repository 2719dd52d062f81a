"""The procedure: a file of completions becomes a run folder whose traces were made elsewhere, all of it or nothing."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, get_args

import msgspec

from headway.problems.graders import load_grader
from headway.procedures.sample import grade_traces
from headway.runs.importers import inspect_logs, lighteval, tables
from headway.runs.importers.rows import Columns, Row, Source
from headway.runs.importers.traces import AUTHOR_TAGS, Encoded, Problems, Untagged, closes_unopened, divide, encode
from headway.runs.open_run import Tell
from headway.runs.settings import Settings, open_tokenizer
from headway.runs.store import Run
from headway.text.answers import extract_answer
from headway.text.prompts import ThinkTags, find_think_tags
from headway.types import Grader, HeadwayError, Trace

GRADER = "math-verify"
ROWS_AT_ONCE = 64


class Imported(NamedTuple):
    """What an import made: counts of problems and traces, and of what a reader should know about the traces.

    `failed` rows have no completion and were left out; the text of `changed` traces is not what the author wrote,
    since the meta-prover's tokenizer cannot write it.
    """

    author: str
    problems: int = 0
    traces: int = 0
    without_thinking: int = 0
    not_closed: int = 0
    failed: int = 0
    changed: int = 0


def import_traces(
    path: Path,
    out: Path,
    settings: Settings,
    *,
    budget: int | None = None,
    columns: Columns = Columns(),  # noqa: B008 (a tuple)
    author_tags: ThinkTags = AUTHOR_TAGS,
    untagged: Untagged = "auto",
    tell: Tell = lambda stage, done, total: None,
) -> Imported:
    """Makes the run folder `out` of the completions in a file; `prove` and `report` go on from there.

    Rows are read, encoded and graded some at a time, into a folder beside `out` that takes its name at the end.

    Args:
        path: JSONL, Parquet, details of lighteval, or a log of inspect.
        out: The run folder, new or empty.
        settings: Of proving: `model` is the meta-prover, `author` who wrote the completions if the file does not say.
        budget: Thinking tokens that a trace may have, to cut longer ones; by default the longest one's.
        columns: Of JSONL and Parquet, where they are not found by their names.
        author_tags: What opens and closes the thinking in the completions.
        untagged: What a completion without tags is; auto: a thought that was cut off if another completion of the file
            closes a thinking that it did not open, else an answer without thinking.
        tell: Is told of progress.

    Raises:
        HeadwayError: something in the file cannot be used (says where), its author is unknown, or `out` is not empty.
            Nothing is left behind.
    """
    settings.check()
    if untagged not in get_args(Untagged):
        raise HeadwayError(f"untagged must be one of {', '.join(get_args(Untagged))}; got {untagged!r}")
    if budget is not None and budget < 1:
        raise HeadwayError(f"--budget must be at least 1, got {budget}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeadwayError(f"{out} exists and is not empty; give an empty or new folder as --out")
    source = open_source(path, columns)
    author = settings.author or source.author
    if author is None:
        raise HeadwayError(f"{path} does not say who wrote its completions; name the model with --author")
    tokenizer = open_tokenizer(settings)
    tags = find_think_tags(
        tokenizer, think_open=settings.think_open, think_close=settings.think_close, think_format=settings.think_format
    )
    if untagged == "auto":
        opened = any(closes_unopened(row, author_tags) for row in open_source(path, columns).rows)
        untagged = "thought" if opened else "answer"
    grader = load_grader(GRADER if settings.grader == "auto" else settings.grader)
    problems, longest, counts = Problems(), 1, Counter[str]()
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if hasattr(grader, "close"):
            stack.callback(grader.close)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)))
        staged = Run(folder, {})
        for rows in _chunks(source.rows):
            answered = [row for row in rows if row.text is not None or row.thinking is not None]
            encoded = [
                encode(
                    tokenizer,
                    row,
                    divide(row, author_tags, untagged=untagged),
                    tags,
                    key=problems.of(row),
                    budget=budget,
                )
                for row in answered
            ]
            traces = graded(encoded, problems, grader)
            staged.append(traces)
            longest = max([longest, *(t.thinking for t in traces)])
            counts.update(
                traces=len(traces),
                without_thinking=sum(t.thinking == 0 for t in traces),
                not_closed=sum(not t.closed for t in traces),
                failed=len(rows) - len(answered),
                changed=sum(not e.faithful for e in encoded),
            )
            tell("import", counts["traces"], counts["traces"])
        if not counts["traces"]:
            raise HeadwayError(f"{path} has no completion: the requests of all its {counts['failed']} rows failed")
        resolved = msgspec.structs.replace(
            settings,
            author=author,
            problems=str(path),
            traces=max(problems.traces.values()),
            budget=budget or longest,
        )
        asked = list(problems.by_id.values())
        run = Run.create(folder / "run", msgspec.to_builtins(resolved), asked, name=source.name, grader=GRADER)
        (folder / "traces.jsonl").replace(run.path / "traces.jsonl")
        run.path.replace(out)
    return Imported(author, len(asked), **counts)


def open_source(path: Path, columns: Columns) -> Source:
    """The rows of a file, by its ending: `.eval` and `.json` are inspect's, `.parquet` a table or lighteval's.

    Raises:
        HeadwayError: there is no such file, or it is not what its ending says.
    """
    if not path.is_file():
        raise HeadwayError(f"no file '{path}'; expected .jsonl, .parquet, details of lighteval or a log of inspect")
    if path.suffix in (".eval", ".json"):
        return inspect_logs.open_log(path)
    if path.suffix == ".parquet" and set(tables.parquet_columns(path)) >= lighteval.COLUMNS:
        return lighteval.open_details(path)
    return tables.open_table(path, columns)


def graded(encoded: list[Encoded], problems: Problems, grader: Grader) -> list[Trace]:
    """Traces with the rewards of their authors' answers; no answer, or thinking that is not closed, is 0."""
    answered = [msgspec.structs.replace(e.trace, answer=e.answer and extract_answer(e.answer)) for e in encoded]
    return grade_traces(answered, problems.by_id, grader)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk
