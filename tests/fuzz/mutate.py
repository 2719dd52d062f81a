"""Values, texts and bytes that break readers; everything follows from the seed of a generator."""

import json
import random
from collections.abc import Iterator
from typing import Any

# JSON texts: what Python cannot hold, or would not write, is here too
HOSTILE: dict[str, str] = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "minus": "-1",
    "fraction": "0.1",
    "nan": "NaN",
    "infinity": "Infinity",
    "minus-infinity": "-Infinity",
    "overflow": "1e999",
    "huge": "1" + "0" * 400,
    "digits": "9" * 5000,
    "empty": '""',
    "blank": '" \\n\\t "',
    "nul": '"a\\u0000b"',
    "surrogate": '"a\\ud800b"',
    "surrogates": '"\\udfff\\ud800"',
    "emoji": '"\\ud83d\\ude00"',
    "control": '"\\u001b[31mred\\u0007"',
    "right-to-left": '"\\u202etxet"',
    "bom": '"\\ufefftext"',
    "lines": json.dumps("a\nb\r\nc\u2028d\u0085e"),
    "long": json.dumps("x" * 200_000),
    "long-words": json.dumps("so it is " * 20_000),
    "path": '"../../../../etc/passwd"',
    "script": '"<script>alert(1)</script>"',
    "percent": '"%s%n{0}{problem}{{x}}"',
    "jinja": '"{% for x in range(9) %}{{ x }}{% endfor %}"',
    "date": '"2020-01-01T00:00:00Z"',
    "base64": '"' + "QUJD" * 2000 + '"',
    "list": "[]",
    "list-of-null": "[null]",
    "list-of-text": '["stop"]',
    "list-of-lists": "[[[]]]",
    "list-mixed": '[1, "a", null, {}]',
    "list-long": "[" + "1," * 5000 + "1]",
    "object": "{}",
    "object-of-null": '{"content": null}',
    "object-of-role": '{"role": "assistant", "content": {"role": 1}}',
    "messages": '[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]',
    "messages-of-number": '[{"role": "user", "content": 4}]',
    "messages-of-robot": '[{"role": "robot", "content": "4"}]',
    "messages-without-role": '[{"content": "4"}]',
    "parts": '[{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]',
    "parts-of-image": '[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]',
    "nested": "[" * 900 + "]" * 900,
    "nested-objects": '{"a":' * 900 + "1" + "}" * 900,
    "nested-deep": "[" * 100_000 + "]" * 100_000,
    "broken": '{"a": ',
    "word": "stop",
}


def records(rows: list[dict[str, Any]], at: int, field: str | None, text: str) -> str:
    """JSONL of the rows, with this JSON text as a field of one of them, or as the whole of it."""
    lines = [json.dumps(row) for row in rows]
    if field is None:
        lines[at] = text
    else:
        others = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows[at].items() if k != field]
        lines[at] = "{" + ", ".join([*others, f"{json.dumps(field)}: {text}"]) + "}"
    return "\n".join(lines) + "\n"


def damaged(data: bytes, seed: str) -> bytes:
    """The bytes with one or a few accidents: cut, flipped, doubled, lost, filled, moved."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, other = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(9):
            case 0:
                data = data[:at]
            case 1:
                data = data[other:]
            case 2:
                data = data[:at] + data[other:]
            case 3:
                data = data[:other] + data[at:]
            case 4:
                data = data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40))) + data[at:]
            case 5:
                data = data[:at] + bytes(rng.randrange(1, 300)) + data[at:]
            case 6:
                for spot in (rng.randrange(len(data)) for _ in range(20) if data):
                    data = data[:spot] + bytes([data[spot] ^ (1 << rng.randrange(8))]) + data[spot + 1 :]
            case 7:
                data = data.replace(
                    rng.choice((b'"', b",", b"{", b"}", b"\n", b":")), rng.choice((b"", b" ", b"[")), 3
                )
            case 8:
                data = data[at:] + data[:at]
    return data


def encodings(text: str) -> Iterator[tuple[str, bytes]]:
    """A text as bytes in the encodings and line ends that files come in."""
    for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp500"):
        yield name, text.encode(name)
    yield "latin-1", text.replace("?", "é?").encode("latin-1")
    yield "cp1252", text.replace("?", "“é”?").encode("cp1252")
    yield "crlf", text.replace("\n", "\r\n").encode()
    yield "cr", text.replace("\n", "\r").encode()
    yield "two-boms", b"\xef\xbb\xbf" * 2 + text.encode()
    yield "nul-end", text.encode() + b"\0" * 4096
    yield "blank-start", b"\n" * 5000 + text.encode()


def paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON tree."""
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from paths(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], text: str) -> str:
    """The JSON of a tree with this JSON text in place of the value at a path."""
    if not path:
        return text
    key, rest = path[0], path[1:]
    if isinstance(tree, dict):
        parts = (f"{json.dumps(k)}: {replaced(v, rest, text) if k == key else json.dumps(v)}" for k, v in tree.items())
        return "{" + ", ".join(parts) + "}"
    return "[" + ", ".join(replaced(v, rest, text) if i == key else json.dumps(v) for i, v in enumerate(tree)) + "]"


def without(tree: Any, path: tuple[Any, ...]) -> str:
    """The JSON of a tree without the value at a path."""
    copy = json.loads(json.dumps(tree))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return json.dumps(copy)
