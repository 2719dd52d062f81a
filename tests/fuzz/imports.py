"""Files of completions: tables of every format, logs of inspect, details of lighteval; fields, damage, bombs, flags."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.mutate import HOSTILE, damaged, encodings, paths, records, replaced, without
from fuzz.problems import _csv, _jsonl
from fuzz.runner import Case
from fuzz.tables import COLUMNS, bomb, rows_bomb, table, writes

ROWS = [
    {
        "id": name, "prompt": f"{a} + {a}?", "completion": f"<think>\nHm.\n\nWait\n\n{2 * a}.</think>\\boxed{{{2 * a}}}",
        "answer": str(2 * a), "finish_reason": "stop", "reasoning_content": None,
    }
    for name, a in (("a", 2), ("b", 3), ("c", 4))
]  # fmt: skip
CHAT = {
    "messages": [{"role": "user", "content": "2 + 2?"}],
    "response": [{"role": "assistant", "content": [{"type": "text", "text": "<think>2</think>4"}]}],
    "ground_truth": ["4"],
    "finish_reasons": ["stop"],
}
SAMPLE = {
    "id": 1, "epoch": 1, "input": [{"role": "user", "content": "2 + 2?"}], "target": ["4"],
    "messages": [{"role": "user", "content": "attachment://abc"}, {"role": "assistant", "content": "4"}],
    "output": {
        "model": "m", "choices": [{
            "message": {"role": "assistant", "content": [{"type": "reasoning", "reasoning": "2 and 2"}, {"type": "text", "text": "4"}]},
            "stop_reason": "stop",
        }],
    },
    "attachments": {"abc": "2 + 2?"}, "scores": {"s": {"value": "C"}},
}  # fmt: skip
LOG = {"version": 2, "status": "success", "eval": {"model": "me/x", "task": "sums"}, "samples": [SAMPLE]}
[DETAILS] = (Path(__file__).parents[1] / "fixtures" / "imports").glob("details/*/*/*.parquet")


def _zip(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


HEADER = json.dumps({k: v for k, v in LOG.items() if k != "samples"}).encode()
EVAL = {"header.json": HEADER, "samples/1_epoch_1.json": json.dumps(SAMPLE).encode()}
SEEDS = {
    "rows.jsonl": _jsonl(ROWS),
    "chat.jsonl": _jsonl([CHAT]),
    "rows.csv": _csv(ROWS),
    "rows.parquet": table({k: [row[k] for row in ROWS] for k in ROWS[0]}),
    "details.parquet": DETAILS.read_bytes(),
    "log.json": json.dumps(LOG).encode(),
    "log.eval": _zip(EVAL),
}


def case(name: str, file: str, data: bytes, *options: str, must: Any = "either", model: str = "scripted") -> Case:
    """Imports a file."""
    shared = ("--model", model, "--author", "me/x", "--out", "out")
    grader = () if "--grader" in options else ("--grader", "exact")
    return Case(name, ("import", file, *shared, *grader, *options), writes(file, data), must)


def cases() -> Iterator[Case]:
    """All cases, in a fixed order."""
    for file in ("rows.jsonl", "chat.jsonl", "rows.parquet", "details.parquet", "log.json", "log.eval"):
        yield case(f"good-{file}", file, SEEDS[file], must="work")
    yield case("good-math-verify", "rows.jsonl", SEEDS["rows.jsonl"], "--grader", "math-verify", must="work")
    for field in (*ROWS[0], "model", None):
        for kind, text in HOSTILE.items():
            yield case(f"jsonl-{field}-{kind}", "rows.jsonl", records(ROWS, 1, field, text).encode())
    for i, path in enumerate(list(paths(CHAT))[1:]):
        for kind in ("null", "nan", "list", "object", "surrogate", "list-of-lists"):
            yield case(f"chat-{i}-{kind}", "chat.jsonl", replaced(CHAT, path, HOSTILE[kind]).encode())
        yield case(f"chat-{i}-gone", "chat.jsonl", without(CHAT, path).encode())
    for file, seed in SEEDS.items():
        for i in range(14):
            yield case(f"damaged-{i}-{file}", file, damaged(seed, f"imports {file} {i}"))
    for file in ("rows.jsonl", "log.json"):
        for name, data in encodings(SEEDS[file].decode()):
            yield case(f"{name}-{file}", file, data)
    for i, path in enumerate(list(paths(LOG))):
        for kind in ("null", "nan", "list", "object", "list-of-text", "nested"):
            if (i + len(kind)) % 3 == 0:
                yield case(f"log-{i}-{kind}", "log.json", replaced(LOG, path, HOSTILE[kind]).encode())
    for field in ("prompt", "completion", "finish_reason"):
        for kind, column in COLUMNS.items():
            columns = {k: [row[k] for row in ROWS[:2]] for k in ("id", "prompt", "completion", "answer")}
            yield case(f"parquet-{field}-{kind}", "rows.parquet", table({**columns, field: column}))
    yield from _logs()
    yield from _sizes()
    yield from _options()


def _logs() -> Iterator[Case]:
    sample = EVAL["samples/1_epoch_1.json"]
    for name, members in {
        "no-header": {"samples/1.json": sample},
        "no-samples": {"header.json": HEADER},
        "header-list": {**EVAL, "header.json": b"[]"},
        "header-empty": {**EVAL, "header.json": b""},
        "outside": {"header.json": HEADER, "samples/../../../pwn.json": sample, "../pwn": b"x"},
        "sample-list": {"header.json": HEADER, "samples/1.json": b"[1]"},
        "sample-nan": {"header.json": HEADER, "samples/1.json": sample.replace(b'"value": "C"', b'"value": NaN')},
        "samples-many": {"header.json": HEADER, **{f"samples/{i}.json": sample for i in range(300)}},
        "journal": {"_journal/start.json": HEADER, "samples/1.json": sample},
    }.items():
        yield case(f"eval-{name}", "log.eval", _zip(members))
    bomb_text = sample.replace(b"2 and 2", b"x" * (300 << 20))
    yield case("eval-bomb", "log.eval", _zip({"header.json": HEADER, "samples/1.json": bomb_text}), must="stop")
    lies = bytearray(_zip({"header.json": HEADER, "samples/1.json": sample.replace(b"2 and 2", b"x" * (2 << 20))}))
    at = lies.rfind(b"PK\x01\x02")
    lies[at + 24 : at + 28] = (100).to_bytes(4, "little")  # the size that the directory gives
    yield case("eval-size-lies", "log.eval", bytes(lies))
    for depth in (100, 900, 5000):
        nested = replaced(SAMPLE, ("messages", 0, "content"), "[" * depth + "]" * depth).encode()
        yield case(f"eval-nested-{depth}", "log.eval", _zip({"header.json": HEADER, "samples/1.json": nested}))
    chain = json.dumps({**SAMPLE, "attachments": {"abc": "attachment://abc"}}).encode()
    yield case("eval-attachment-loop", "log.eval", _zip({"header.json": HEADER, "samples/1.json": chain}))


def _sizes() -> Iterator[Case]:
    one = {k: [v] for k, v in ROWS[0].items() if v is not None}
    for megabytes in (1, 100):
        long = {**ROWS[0], "completion": "x" * (megabytes << 20)}
        yield case(f"completion-{megabytes}", "rows.jsonl", _jsonl([long]))
        yield case(f"prompt-{megabytes}", "rows.jsonl", _jsonl([{**ROWS[0], "prompt": "x " * (megabytes << 19)}]))
        yield case(f"parquet-bomb-{megabytes}", "rows.parquet", bomb(one, "completion", megabytes))
        yield case(f"parquet-bomb-aside-{megabytes}", "rows.parquet", bomb(one, "other", megabytes))
    yield case(
        "completion-20-builtin",
        "rows.jsonl",
        _jsonl([{**ROWS[0], "completion": "7 " * (10 << 20)}]),
        model="builtin:countdown",
    )
    yield case("parquet-rows", "rows.parquet", rows_bomb({k: v[0] for k, v in one.items()}, 5000))
    yield case("many-completions", "rows.jsonl", _jsonl([{**ROWS[0], "completion": ["<think>a</think>4"] * 3000}]))
    yield case(
        "many-tags", "rows.jsonl", _jsonl([{**ROWS[0], "completion": "<think>" * 20_000 + "</think>" * 20_000}])
    )
    yield case(
        "open-boxes", "rows.jsonl", _jsonl([{**ROWS[0], "completion": "<think>a</think>" + "\\boxed{" * 50_000}])
    )
    yield case("boxed-reference", "rows.jsonl", _jsonl([{**ROWS[0], "answer": "\\boxed{" * 20_000 + "4"}]))
    for kind, text in {
        "power": "9^{9^{9^{9}}}",
        "factorial": "\\boxed{99999999!}",
        "frac": "\\frac{" * 3000 + "1",
    }.items():
        bombs = [{**ROWS[0], "completion": f"<think>a</think>\\boxed{{{text}}}"}]
        yield case(f"math-{kind}", "rows.jsonl", _jsonl(bombs), "--grader", "math-verify")


def _options() -> Iterator[Case]:
    file, data = "rows.jsonl", SEEDS["rows.jsonl"]
    for column in ("prompt", "completion", "answer", "id", "reasoning"):
        for i, name in enumerate(("", "nowhere", "answer", "finish_reason", "a.b.c", "\u202e\x1b[31m")):
            yield case(f"column-{column}-{i}", file, data, f"--{column}-column", name)
    for i, tag in enumerate(("", " ", "</think>", "x", "\n", "\x00x", "<think>" * 500)):
        yield case(f"open-{i}", file, data, "--author-think-open", tag.replace("\0", ""))
        yield case(f"close-{i}", file, data, "--author-think-close", tag.replace("\0", ""))
    for i, options in enumerate((("--budget", "0"), ("--budget", "1"), ("--untagged", "x"), ("--grader", "gym"), ("--grader", "x"),
                                 ("--think-close", ""), ("--segment", "x"), ("--max-episodes", "0"), ("--seed", "-1"))):  # fmt: skip
        yield case(f"option-{i}", file, data, *options)
    for name in ("rows.txt", "rows", "rows.JSONL", "rows.jsonl.bak", "rows.xlsx", "rows.pkl"):
        yield case(f"suffix-{name}", name, data)
    yield case("eval-as-jsonl", "rows.jsonl", SEEDS["log.eval"], must="stop")
    yield case("jsonl-as-eval", "log.eval", data, must="stop")
    yield case("rows-as-json", "rows.json", data)
    yield case("empty", file, b"", must="stop")
    for kind, identity in (
        ("traversal", "../../../x"),
        ("absolute", "/etc/x"),
        ("nul", "a\0b"),
        ("long", "i" * 10_000),
    ):
        yield case(f"id-{kind}", file, _jsonl([{**ROWS[0], "id": identity}]))
    gym = {
        "id": "n_queens/0/0",
        "prompt": "q",
        "completion": '<think>x</think>\\boxed{[open("PWN","w").write("x")]}',
        "answer": "1",
    }
    for task in ("n_queens", "binary_matrix", "sudoku"):
        yield case(
            f"gym-{task}",
            file,
            _jsonl([{**gym, "id": f"{task}/0/0"}]),
            "--grader",
            "gym",
            must="either" if task == "sudoku" else "stop",
        )
