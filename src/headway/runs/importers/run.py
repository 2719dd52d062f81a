"""Importing: a file of completions becomes a run folder, completely or not at all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from headway.problems.files import read_parquet
from headway.problems.graders import load_grader
from headway.procedures.sample import grade_traces
from headway.runs.importers import inspect_logs, lighteval, tables
from headway.runs.importers.options import ImportOptions
from headway.runs.importers.rows import CompletionRow, Source
from headway.runs.importers.traces import Encoded, Problems, closes_unopened, divide, encode
from headway.runs.open_run import Tell
from headway.runs.settings import Settings, open_tokenizer
from headway.runs.store import Run
from headway.text.answers import extract_answer
from headway.text.tags import find_think_tags
from headway.types import Grader, HeadwayError, Trace

GRADER = "math-verify"
ROWS_AT_ONCE = 64


class Imported(NamedTuple):
    """The author of imported traces, and counts.

    `failed` rows have no completion and were left out; the text of `changed` traces does not round-trip through the
    meta-prover's tokenizer.
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
    options: ImportOptions = ImportOptions(),  # noqa: B008 (frozen)
    *,
    tell: Tell = lambda stage, done, total: None,
    grader: Grader | None = None,
) -> Imported:
    """Makes the run folder `out` of the completions in a file; continue with `prove` and `report`.

    Rows are read, encoded and graded in chunks, into a folder beside `out` that is renamed at the end.

    Args:
        path: JSONL, Parquet, details of lighteval, or a log of inspect.
        out: The run folder, new or empty.
        settings: Of proving; `model` is the meta-prover.
        options: How the file is read.
        tell: Is called with the progress.
        grader: Grades the authors' answers; by default the one that the settings name.

    Raises:
        HeadwayError: something in the file cannot be used (says where), its author is unknown, or `out` is not empty.
            Nothing is left behind.
    """
    settings.check()
    options.check()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeadwayError(f"{out} exists and is not empty; give an empty or new folder as --out")
    source = open_source(path, options)
    author = options.author or source.author
    if author is None:
        raise HeadwayError(f"{path} does not say who wrote its completions; name the model with --author")
    tokenizer = open_tokenizer(settings)
    spec, author_tags, untagged = settings.engine, options.author_tags, options.untagged
    tags = find_think_tags(
        tokenizer, think_open=spec.think_open, think_close=spec.think_close, think_format=spec.think_format
    )
    if untagged == "auto":
        opened = any(closes_unopened(row, author_tags) for row in open_source(path, options).rows)
        untagged = "thought" if opened else "answer"
    grader = grader or load_grader(GRADER if settings.problems.grader == "auto" else settings.problems.grader)
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
                    budget=options.budget,
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
        resolved = settings.changed(
            author=author,
            problems=str(path),
            traces=max(problems.traces.values()),
            budget=options.budget or longest,
        )
        asked = list(problems.by_id.values())
        run = Run.create(folder / "run", resolved.flat(), asked, name=source.name, grader=GRADER)
        (folder / "traces.jsonl").replace(run.path / "traces.jsonl")
        run.path.replace(out)
    return Imported(author, len(asked), **counts)


def open_source(path: Path, options: ImportOptions) -> Source:
    """The rows of a file, by its suffix: `.eval` and `.json` are inspect's, `.parquet` a table or lighteval's.

    Raises:
        HeadwayError: there is no such file, or its content does not match its suffix.
    """
    if not path.is_file():
        raise HeadwayError(f"no file '{path}'; expected .jsonl, .parquet, details of lighteval or a log of inspect")
    if path.suffix in (".eval", ".json"):
        return inspect_logs.open_log(path)
    if path.suffix == ".parquet" and set(next(read_parquet(path), ("", {}))[1]) >= lighteval.COLUMNS:
        return lighteval.open_details(path)
    return tables.open_table(path, options)


def graded(encoded: list[Encoded], problems: Problems, grader: Grader) -> list[Trace]:
    """Traces with the rewards of their authors' answers; no answer, or thinking that is not closed, is 0."""
    answered = [msgspec.structs.replace(e.trace, answer=e.answer and extract_answer(e.answer)) for e in encoded]
    return grade_traces(answered, problems.by_id, grader)


def _chunks(rows: Iterator[CompletionRow]) -> Iterator[list[CompletionRow]]:
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk
