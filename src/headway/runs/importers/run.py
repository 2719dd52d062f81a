"""Importing: a file of completions becomes a run folder, completely or not at all."""

from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from headway.engines.window import counting
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.problems.rows import read_parquet
from headway.procedures.sample import grade_traces
from headway.runs.importers import inspect_logs, lighteval, tables
from headway.runs.importers.rows import ImportOptions, Source
from headway.runs.importers.traces import Problems, divide, encode, survey
from headway.runs.lock import staging
from headway.runs.open_run import Tell, quiet
from headway.runs.settings import Settings, open_tokenizer, window_of_model
from headway.runs.store import Run
from headway.text.answers import extract_answer
from headway.types import Grader, HeadwayError

GRADER = "math-verify"
ROWS_AT_ONCE = 64
BY_NAME = ImportOptions()  # columns are found by their names


class Imported(NamedTuple):
    """The author of imported traces, and counts."""

    author: str
    problems: int = 0
    traces: int = 0
    without_thinking: int = 0
    not_closed: int = 0
    failed: int = 0  # rows without a completion, left out
    changed: int = 0  # traces that do not round-trip through the meta-prover's tokenizer
    notes: tuple[str, ...] = ()  # on the think tags that were found


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

    Rows are read, encoded and graded in chunks, into a folder beside `out` that is renamed at the end. A file that
    cannot be used (says where), an unknown author, and an `out` that is not empty are a HeadwayError.
    """
    settings.check()
    options.check()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HeadwayError(f"{out} exists and is not empty; give an empty or new folder as --out")
    source = open_source(path, options)
    if (author := options.author or source.author) is None:
        raise HeadwayError(f"{path} does not say who wrote its completions; name the model with --author")
    tokenizer = open_tokenizer(settings)
    tags, author_tags = settings.engine.think_tags(tokenizer), options.author_tags
    untagged, notes = survey(open_source(path, options).rows, author_tags, options.untagged)
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
        while rows := list(islice(source.rows, ROWS_AT_ONCE)):
            answered = [row for row in rows if row.text is not None or row.thinking is not None]
            encoded = []
            for row in answered:
                split = divide(row, author_tags, untagged=untagged)
                encoded.append(encode(tokenizer, row, split, tags, key=problems.of(row), budget=options.budget))
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
            raise HeadwayError(f"{path} has no completion: the requests of all its {counts['failed']} rows failed")
        most, budget = max(problems.traces.values()), options.budget or longest
        asked = ProblemSet(source.name, list(problems.by_id.values()), GRADER)
        resolved = settings.changed(author=author, problems=str(path), traces=most, budget=budget)
        run = Run.create(folder / "run", resolved.flat(), asked)
        (folder / "traces.jsonl").replace(run.path / "traces.jsonl")
        run.path.replace(out)
    return Imported(author, len(asked.problems), **counts, notes=notes)


def open_source(path: Path, options: ImportOptions) -> Source:
    """The rows of a file, by its suffix: `.eval` and `.json` are inspect's, `.parquet` a table or lighteval's."""
    if not path.is_file():
        raise HeadwayError(f"no file '{path}'; expected .jsonl, .parquet, details of lighteval or a log of inspect")
    if path.suffix in (".eval", ".json"):
        return inspect_logs.open_log(path)
    if path.suffix == ".parquet" and set(next(read_parquet(path), ("", {}))[1]) >= lighteval.COLUMNS:
        return lighteval.open_details(path)
    return tables.open_table(path, options)
