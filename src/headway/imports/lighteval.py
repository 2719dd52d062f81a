"""Details of lighteval: one Parquet file a task, with what was asked (`doc`) and answered (`model_response`)."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from headway.imports.rows import Row, Source, answer_of, conversation_of, text_of
from headway.imports.tables import parquet_records
from headway.types import HeadwayError

COLUMNS = {"doc", "model_response"}


def open_details(path: Path) -> Source:
    """The rows of a details file; its model is named by the folders it lies in, `details/MODEL/TIME`.

    Raises:
        HeadwayError: it holds no row; later, a row is malformed.
    """
    records = parquet_records(path, columns=sorted(COLUMNS))
    if (first := next(records, None)) is None:
        raise HeadwayError(f"{path} holds no row; expected what lighteval writes with --save-details")
    folders = path.resolve().parts[:-2]
    author = "/".join(folders[folders.index("details") + 1 :]) if "details" in folders else None
    rows = chain.from_iterable(_of_record(place, record) for place, record in chain([first], records))
    return Source(str(first[1]["doc"].get("task_name") or path.stem), author or None, rows)


def _of_record(place: str, record: dict[str, Any]) -> Iterator[Row]:
    """A row for each sample that was drawn."""
    doc, response = record["doc"], record["model_response"]
    if not isinstance(doc, dict) or not isinstance(response, dict):
        raise HeadwayError(f"{place}: no 'doc' or 'model_response'; expected details of lighteval")
    texts, reasonings = response.get("text") or [], response.get("reasonings") or []
    if not texts:
        raise HeadwayError(f"{place}: no text was generated; this task scores choices, and there is no trace")
    golds = doc["gold_index"] if isinstance(doc["gold_index"], list) else [doc["gold_index"]]
    answer = answer_of([doc["choices"][gold] for gold in golds], place)
    conversation = conversation_of(_asked(doc, response), place)
    for i, text in enumerate(texts):
        thinking = reasonings[i] if i < len(reasonings) else None
        yield Row(place, text_of(doc["id"], "the id", place), conversation, answer, text, thinking)


def _asked(doc: dict[str, Any], response: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that went to an API, or what the prompt of a local model was made of."""
    if isinstance(response.get("input"), list):
        return response["input"]
    messages = []
    for shot in doc.get("fewshot_samples") or []:
        golds = shot["gold_index"] if isinstance(shot["gold_index"], list) else [shot["gold_index"]]
        messages.append({"role": "user", "content": shot["query"]})
        messages.append({"role": "assistant", "content": shot["choices"][golds[0]]})
    instruction, query = doc.get("instruction") or "", doc["query"]
    content = query if query.startswith(instruction) else instruction + query
    return [*messages, {"role": "user", "content": content}]
