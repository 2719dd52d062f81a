"""Problem files of every format: fields of every type, damage, encodings, columns of strange types, options."""

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.mutate import HOSTILE, damaged, encodings, paths, records, replaced, without
from fuzz.runner import Case
from fuzz.tables import COLUMNS, bomb, rows_bomb, table, writes

ROWS = [
    {"id": "a", "prompt": "What is 2 + 2?", "answer": "4"},
    {"id": "b", "prompt": "What is 3 + 3?", "answer": 6},
    {"id": "c", "prompt": "Half of 3?", "answer": "\\frac{3}{2}"},
]
VERL = [
    {
        "data_source": "sums", "prompt": [{"role": "user", "content": row["prompt"]}], "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(row["answer"])}, "extra_info": {"index": i, "split": "x"},
    }
    for i, row in enumerate(ROWS)
]  # fmt: skip
SHORT = ("--model", "scripted", "--traces", "1", "--budget", "64", "--out", "out")
TEMPLATES = (
    "{problem}",
    "",
    "{}",
    "{problem!r}",
    "{problem.__class__}",
    "{{problem}}",
    "{problem}{problem}",
    "x",
    "\n",
)


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(rows: list[dict[str, Any]]) -> bytes:
    return table({k: [str(row[k]) if isinstance(row[k], int | str) else row[k] for row in rows] for k in rows[0]})


SEEDS = {
    "rows.jsonl": _jsonl(ROWS),
    "rows.csv": _csv(ROWS),
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows.parquet": _columns(ROWS),
    "verl.parquet": _columns(VERL),
    "verl.jsonl": _jsonl(VERL),
}


def case(name: str, file: str, data: bytes, *options: str, grader: str = "exact", must: Any = "either") -> Case:
    """Samples from the problems of a file."""
    return Case(name, ("sample", "--problems", file, "--grader", grader, *SHORT, *options), writes(file, data), must)


def cases() -> Iterator[Case]:
    """All cases, in a fixed order."""
    yield case("good-jsonl", "rows.jsonl", SEEDS["rows.jsonl"], grader="auto", must="work")
    yield case("good-csv", "rows.csv", SEEDS["rows.csv"], must="work")
    yield case("good-parquet", "rows.parquet", SEEDS["rows.parquet"], must="work")
    for field in ("prompt", "answer", "id", "level", None):
        for kind, text in HOSTILE.items():
            data = records(ROWS, 1, field, text).encode()
            grader = "auto" if field == "answer" and kind in ("long", "digits", "nested") else "exact"
            yield case(f"jsonl-{field}-{kind}", "rows.jsonl", data, grader=grader)
    for file, seed in SEEDS.items():
        for i in range(16):
            yield case(f"damaged-{i}-{file}", file, damaged(seed, f"problems {file} {i}"))
    for file in ("rows.jsonl", "rows.csv", "rows.json"):
        for name, data in encodings(SEEDS[file].decode()):
            yield case(f"{name}-{file}", file, data)
    for field in ("prompt", "answer", "level"):
        for kind, column in COLUMNS.items():
            columns = {"prompt": ["2 + 2?", "3 + 3?"], "answer": ["4", "6"], field: column}
            yield case(f"parquet-{field}-{kind}", "rows.parquet", table(columns))
    for i, path in enumerate(list(paths(VERL[0]))[1:]):
        for kind in ("null", "list", "object", "nan"):
            yield case(f"verl-{i}-{kind}", "verl.jsonl", replaced(VERL[0], path, HOSTILE[kind]).encode())
        yield case(f"verl-{i}-gone", "verl.jsonl", without(VERL[0], path).encode())
    yield from _shapes()
    yield from _options()


def _shapes() -> Iterator[Case]:
    good = SEEDS["rows.jsonl"]
    yield case("empty", "rows.jsonl", b"", must="stop")
    yield case("blank", "rows.jsonl", b"\n \n\t\n", must="stop")
    yield case("one-letter", "rows.jsonl", b"x", must="stop")
    yield case("all-bytes", "rows.jsonl", bytes(range(256)) * 100, must="stop")
    yield case("gzip", "rows.jsonl.gz", gzip.compress(good))
    yield case("gzip-unnamed", "rows.jsonl", gzip.compress(good), must="stop")
    yield case("wrong-suffix-csv", "rows.csv", good)
    yield case("wrong-suffix-parquet", "rows.parquet", good, must="stop")
    yield case("parquet-as-jsonl", "rows.jsonl", SEEDS["rows.parquet"])
    yield case("no-suffix", "rows", good)
    yield case("strange-name", "rows \u202e\n'x\".jsonl", good)
    yield case("ids-twice", "rows.jsonl", good + good, must="stop")
    yield case("keys-twice", "rows.jsonl", b'{"prompt": "a?", "prompt": "b?", "answer": "1", "answer": "2"}')
    yield case("last-line-torn", "rows.jsonl", good[:-9], must="stop")
    yield case("long-line", "rows.jsonl", b'{"prompt": "' + b"x" * (70 << 20) + b'", "answer": "1"}')
    yield case("many-keys", "rows.jsonl", json.dumps({**ROWS[0], **{f"k{i}": i for i in range(50_000)}}).encode())
    yield case("csv-many-columns", "rows.csv", b",".join(b"c%d" % i for i in range(20_000)) + b"\n")
    yield case("csv-unclosed", "rows.csv", b'prompt,answer\n"a?,1\n' + b"b?,2\n" * 50_000, must="stop")
    yield case("csv-long-cell", "rows.csv", b"prompt,answer\n" + b"x" * 400_000 + b",1\n")
    yield case("csv-same-columns", "rows.csv", b"prompt,prompt,answer\na?,b?,1\n")
    yield case("csv-formula", "rows.csv", b"id,prompt,answer\n=1+1,a?,1\n@x,b?,2\n")
    yield case("csv-ragged", "rows.csv", b"prompt,answer\na?\n", must="stop")
    yield case("csv-semicolons", "rows.csv", b"prompt;answer\na?;1\n", must="stop")
    yield case(
        "parquet-no-rows", "rows.parquet", table({"prompt": COLUMNS["text"][:0], "answer": COLUMNS["text"][:0]})
    )
    yield case("parquet-no-columns", "rows.parquet", table({}), must="stop")
    for megabytes in (3, 100, 300):
        data = bomb({"prompt": ["2 + 2?"], "answer": ["4"]}, "prompt", megabytes)
        yield case(f"parquet-bomb-{megabytes}", "rows.parquet", data)
        data = bomb({"prompt": ["2 + 2?"], "answer": ["4"]}, "level", megabytes)
        yield case(f"parquet-bomb-aside-{megabytes}", "rows.parquet", data)
    yield case(
        "parquet-rows-bomb", "rows.parquet", rows_bomb({"prompt": "2?", "answer": "4"}, 20_000_000), "--limit", "2"
    )
    yield case("array-of-arrays", "rows.json", b"[[1, 2], [3, 4]]", must="stop")
    yield case("array-empty", "rows.json", b"[]", must="stop")
    yield case("object-of-rows", "rows.json", json.dumps({"data": ROWS}).encode())
    for name, make in (
        ("folder", lambda at: at.mkdir()),
        ("link-to-nowhere", lambda at: at.symlink_to("nowhere")),
        ("link-to-itself", lambda at: at.symlink_to(at.name)),
        ("pipe", lambda at: os.mkfifo(at)),
        ("device", lambda at: at.symlink_to("/dev/zero")),
        ("no-permission", lambda at: (at.write_bytes(good), at.chmod(0))),
    ):
        must = "either" if name == "no-permission" else "stop"  # root may read it
        yield Case(name, ("sample", "--problems", "x.jsonl", *SHORT), _at("x.jsonl", make), must)


def _at(name: str, make: Any) -> Any:
    def fill(folder: Path) -> None:
        make(folder / name)

    return fill


def _options() -> Iterator[Case]:
    file, data = "rows.jsonl", SEEDS["rows.jsonl"]
    for column in ("prompt", "answer", "id"):
        for i, name in enumerate(("", "nowhere", "id", "a.b", "prompt.x.y", "\u202e\x1b[31m", "x" * 3000)):
            yield case(f"column-{column}-{i}", file, data, f"--{column}-column", name)
    for i, template in enumerate(TEMPLATES):
        yield case(f"template-{i}", file, data, "--prompt-template", template)
    for i, limit in enumerate(("0", "-1", "1", "1e9", "99999999999999999999", "nan", "")):
        yield case(f"limit-{i}", file, data, "--limit", limit)
    for i, spec in enumerate(
        ("", ".", "/", "hub:", "hub:a", "hub:a/b:c@d@e", "gym:", "gym:../x", "gym:nowhere", "\0x")
    ):
        yield Case(f"spec-{i}", ("sample", "--problems", spec, *SHORT), lambda folder: None, "stop")
