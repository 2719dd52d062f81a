"""Importing: a file of completions becomes a run folder, completely or not at all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from headway.engines.window import counting
from headway.problems import ProblemSet
from headway.problems.fields import Bad, BadRow, LeftOut, refused
from headway.problems.files import locate, parquet_columns
from headway.problems.graders import load_grader
from headway.procedures.sample import grade_traces
from headway.runs.importers import inspect_logs, lighteval, tables
from headway.runs.importers.rows import CompletionRow, ImportOptions, Source
from headway.runs.importers.traces import Problems, divide, encode, survey
from headway.runs.lock import staging
from headway.runs.open_run import Tell, quiet
from headway.runs.settings import Settings, open_tokenizer, window_of_model
from headway.runs.store import Run
from headway.text.answers import extract_answer
from headway.types import Grader, HeadwayError

GRADER = "math-verify"
ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 64, 2**22
BY_NAME = ImportOptions()  # columns are found by their names


class Imported(NamedTuple):
    """The author of imported traces, and counts."""

    author: str
    problems: int = 0
    traces: int = 0
    without_thinking: int = 0
    not_closed: int = 0
    failed: int = 0  # requests that a log says failed, left out
    changed: int = 0  # traces that do not round-trip through the meta-prover's tokenizer
    notes: tuple[str, ...] = ()  # on the think tags that were found
    left_out: LeftOut = LeftOut()  # rows that could not be used, by reason


def import_traces(
    path: Path,
    out: Path,
    settings: Settings,
    options: ImportOptions = BY_NAME,
    *,
    tell: Tell = quiet,
    grader: Grader | None = None,
) -> Imported:
    """Makes the run folder `out`, new or empty, of the completions in a file; the model of `settings` proves them.

    Rows are read, encoded and graded in chunks, into a folder beside `out` that is renamed at the end; what a killed
    import left there is removed. A file that cannot be used (says where), an unknown author, and an `out` that is not
    empty are a HeadwayError; so is a row that cannot be used, unless `options.skip_bad`.
    """
    settings.check()
    options.check()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeadwayError(f"{out} exists and is not empty; give an empty or new folder as --out")
    left_out = LeftOut()
    bad = left_out if options.skip_bad else refused
    source = open_source(path, options, bad)
    if (author := options.author or source.author) is None:
        raise HeadwayError(f"{path} does not say who wrote its completions; name the model with --author")
    tokenizer = open_tokenizer(settings)
    tags, author_tags = settings.engine.think_tags(tokenizer), options.author_tags
    again = open_source(path, options, LeftOut() if options.skip_bad else refused)
    untagged, notes = survey(again.rows, author_tags, options.untagged)
    grader = grader or load_grader(GRADER if settings.problems.grader == "auto" else settings.problems.grader)
    problems, longest, counts = Problems(), 1, Counter[str]()
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if hasattr(grader, "close"):
            stack.callback(grader.close)
        folder = stack.enter_context(staging(out.parent / f".{out.name}.import"))
        staged = Run(folder, {})
        window, advice = window_of_model(settings), "--budget cuts the thinking of longer ones"
        counter = stack.enter_context(counting(window, "traces, with a forced answer, are longer", advice))
        while rows := _chunk(source.rows):
            answered = [row for row in rows if row.text is not None or row.thinking is not None]
            encoded = []
            for row in answered:
                try:
                    key = problems.of(row)
                except BadRow as error:
                    bad(error)
                    continue
                split = divide(row, author_tags, untagged=untagged)
                encoded.append(encode(tokenizer, row, split, tags, key=key, budget=options.budget))
            # no answer, or thinking that is not closed, is a reward of 0
            answers = [msgspec.structs.replace(e.trace, answer=extract_answer(e.answer or "")) for e in encoded]
            traces = grade_traces(answers, problems.by_id, grader)
            staged.append(traces)
            answer = settings.sampling.answer_tokens
            counter.see(len(t.prompt_ids) + t.thinking + answer for t in traces)
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
            why = str(left_out) if left_out else f"the requests of all its {counts['failed']} rows failed"
            raise HeadwayError(f"{path} has no completion that can be used: {why}")
        most, budget = max(problems.traces.values()), options.budget or longest
        asked = ProblemSet(source.name, list(problems.by_id.values()), GRADER)
        resolved = settings.changed(author=author, problems=str(path), traces=most, budget=budget)
        run = Run.create(folder / "run", resolved.flat(), asked)
        (folder / "traces.jsonl").replace(run.path / "traces.jsonl")
        run.path.replace(out)
    return Imported(author, len(asked.problems), **counts, notes=notes, left_out=left_out)


def _chunk(rows: Iterator[CompletionRow]) -> list[CompletionRow]:
    """The next rows: at most ROWS_AT_ONCE, fewer if they are long."""
    taken: list[CompletionRow] = []
    size = 0
    while len(taken) < ROWS_AT_ONCE and size < CHARACTERS_AT_ONCE and (row := next(rows, None)) is not None:
        taken.append(row)
        size += len(row.text or "") + len(row.thinking or "")
    return taken


def open_source(path: Path, options: ImportOptions, bad: Bad = refused) -> Source:
    """The rows of a file: a log of inspect, details of lighteval, or a table; at most `options.limit`."""
    file, _ = locate(path)
    if not file.is_file():
        raise HeadwayError(f"no file '{path}'; expected a table of completions, lighteval's details or inspect's log")
    if file.suffix == ".eval" or inspect_logs.is_json_log(file):
        source = inspect_logs.open_log(file, bad)
    elif file.suffix == ".parquet" and set(parquet_columns(file)) >= lighteval.COLUMNS:
        source = lighteval.open_details(file, bad)
    else:
        source = tables.open_table(path, options, bad)
    return source._replace(rows=islice(source.rows, options.limit))
