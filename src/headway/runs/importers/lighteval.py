"""Details of lighteval: one Parquet file per task, with the question (`doc`) and the answer (`model_response`)."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from headway.problems.files import read_parquet
from headway.runs.importers.rows import CompletionRow, Source, answer_of, conversation_of, text_of
from headway.types import HeadwayError

COLUMNS = {"doc", "model_response"}


class Shot(msgspec.Struct):
    """The fields read from a solved example in the prompt."""

    query: str
    choices: list[Any]
    gold_index: int | list[int]

    def golds(self) -> list[Any]:
        """The right choices."""
        places = self.gold_index if isinstance(self.gold_index, list) else [self.gold_index]
        return [self.choices[place] for place in places]


class Doc(Shot):
    """The fields read from a `doc`."""

    id: str
    task_name: str = ""
    instruction: str | None = None
    fewshot_samples: list[Shot] | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The prompt of a local model without its system prompt, which the details do not hold."""
        made = []
        for shot in self.fewshot_samples or []:
            made.append({"role": "user", "content": shot.query})
            made.append({"role": "assistant", "content": shot.golds()[0]})
        instruction = self.instruction or ""
        query = self.query if self.query.startswith(instruction) else instruction + self.query
        return [*made, {"role": "user", "content": query}]


class Response(msgspec.Struct):
    """The fields read from a `model_response`; `input` holds messages if the model is behind an API."""

    text: list[str] | None = None
    reasonings: list[str | None] | None = None
    input: Any = None


class Detail(msgspec.Struct):
    """A row of a details file."""

    doc: Doc
    model_response: Response


def open_details(path: Path) -> Source:
    """The rows of a details file; its folders name the model: `details/MODEL/TIME`.

    Raises:
        HeadwayError: it holds no row; later, a row is malformed.
    """
    records = read_parquet(path, columns=sorted(COLUMNS))
    details = ((place, _converted(place, record)) for place, record in records)
    if (first := next(details, None)) is None:
        raise HeadwayError(f"{path} holds no row; expected a file that lighteval writes with --save-details")
    folders = path.resolve().parts[:-2]
    author = "/".join(folders[folders.index("details") + 1 :]) if "details" in folders else ""
    rows = chain.from_iterable(_rows(place, detail) for place, detail in chain([first], details))
    return Source(first[1].doc.task_name or path.stem, author or None, rows)


def _converted(place: str, record: Mapping[str, object]) -> Detail:
    try:
        return msgspec.convert(record, Detail)
    except msgspec.ValidationError as error:
        raise HeadwayError(f"{place}: {error}; expected details as lighteval 0.13 writes them") from error


def _rows(place: str, detail: Detail) -> Iterator[CompletionRow]:
    """A row for each sample."""
    doc, response = detail.doc, detail.model_response
    if not response.text:
        raise HeadwayError(f"{place}: no text was generated; this task scores given choices, so there is no trace")
    try:
        golds, messages = doc.golds(), doc.messages()
    except IndexError as error:
        raise HeadwayError(f"{place}: 'gold_index' is none of the choices; the details are damaged") from error
    conversation = conversation_of(response.input if isinstance(response.input, list) else messages, place)
    apart = dict(enumerate(response.reasonings or []))
    for i, text in enumerate(response.text):
        yield CompletionRow(
            place, doc.id, conversation, answer_of(golds, place), text_of(text, "the text", place), apart.get(i)
        )
