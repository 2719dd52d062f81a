"""Details of lighteval: one Parquet file per task, with the question (`doc`) and the answer (`model_response`)."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from headway.problems.fields import Bad, BadRow, conversation_of, reference_of, refused, text_of, usable
from headway.problems.files import read_parquet
from headway.runs.importers.rows import CompletionRow, Source
from headway.types import HeadwayError

COLUMNS = {"doc", "model_response"}


# The fields that are read; the columns hold more.
class _Shot(msgspec.Struct):  # a solved example in the prompt
    query: str
    choices: list[Any]
    gold_index: int | list[int]

    def golds(self) -> list[Any]:
        places = self.gold_index if isinstance(self.gold_index, list) else [self.gold_index]
        return [self.choices[place] for place in places]


class _Doc(_Shot):
    id: str
    task_name: str = ""
    instruction: str | None = None
    fewshot_samples: list[_Shot] | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The prompt of a local model without its system prompt, which the details do not hold."""
        turns = [turn for shot in self.fewshot_samples or [] for turn in (shot.query, shot.golds()[0])]
        instruction = self.instruction or ""
        turns.append(self.query if self.query.startswith(instruction) else instruction + self.query)
        return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


class _Response(msgspec.Struct):
    text: list[str] | None = None
    reasonings: list[str | None] | None = None
    input: Any = None  # messages, if the model is behind an API


class _Detail(msgspec.Struct):
    doc: _Doc
    model_response: _Response


def open_details(path: Path, bad: Bad = refused) -> Source:
    """The rows of a details file, whose folders name the model: `details/MODEL/TIME`; a bad one goes to `bad`."""
    records = read_parquet(path, columns=sorted(COLUMNS))
    details = ((place, _converted(place, record)) for place, record in records)
    if (first := next(details, None)) is None:
        raise HeadwayError(f"{path} holds no row; expected a file that lighteval writes with --save-details")
    folders = path.resolve().parts[:-2]
    author = "/".join(folders[folders.index("details") + 1 :]) if "details" in folders else ""
    rows = (
        row for place, detail in itertools.chain([first], details) for row in usable(_rows(place, detail), place, bad)
    )
    return Source(first[1].doc.task_name or path.stem, author or None, rows)


def _converted(place: str, record: Mapping[str, object]) -> _Detail:
    try:
        return msgspec.convert(record, _Detail)
    except (msgspec.ValidationError, RecursionError) as error:
        raise HeadwayError(f"{place}: {error}; expected details as lighteval 0.13 writes them") from error


def _rows(place: str, detail: _Detail) -> Iterator[CompletionRow]:
    doc, response = detail.doc, detail.model_response
    if not response.text:
        raise BadRow(place, "no text was generated", "; this task scores given choices, so there is no trace")
    try:
        answer, messages = reference_of(doc.golds(), place), doc.messages()
    except IndexError as error:
        raise HeadwayError(f"{place}: 'gold_index' is none of the choices; the details are damaged") from error
    conversation = conversation_of(response.input if isinstance(response.input, list) else messages, place)
    thinkings = response.reasonings or []
    for text, thinking in itertools.zip_longest(response.text, thinkings[: len(response.text)]):
        yield CompletionRow(place, doc.id, conversation, answer, text_of(text, "the text", place), thinking)
