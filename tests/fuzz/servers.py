"""Servers of /v1/completions that answer wrongly, slowly, endlessly or not at all; each behaviour has its own path.

A behaviour gets the request and yields what is sent: bytes, or seconds to wait. Then the connection ends.
"""

import gzip
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fuzz.mutate import HOSTILE, damaged, paths, replaced, without
from fuzz.runner import SECRET, Case


class Request(NamedTuple):
    """What a client sent."""

    path: str
    headers: str
    body: dict[str, Any]


Behaviour = Callable[[Request], Iterator[bytes | float]]
IDS = [40, 41, 42, 43]
ASKED = ("--model", "m", "--engine", "api", "--tokenizer", "builtin:countdown", "--problems", "countdown", "--limit", "1",
         "--budget", "16", "--timeout", "2", "--traces", "1", "--branches", "1", "--answer-tokens", "8", "--out", "out")  # fmt: skip
MEASURED = ("good", "text-", "logprobs-")  # the start of names; others are sampled from


def answer(request: Request) -> dict[str, Any]:
    """A right answer: as many completions as asked for."""
    count = min(int(request.body.get("n") or 1), 64)
    each = {"text": "1+2</think>3", "finish_reason": "stop", "token_ids": None, "logprobs": None, "stop_reason": None}
    return {
        "id": "c",
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": i, **each} for i in range(count)],
        "usage": {},
    }


def http(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole response."""
    size = len(body) if length is None else length
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {size}",
        *(headers or ("Content-Type: application/json",)),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def of(made: Callable[[Request], bytes]) -> Behaviour:
    """A behaviour that answers a request for completions with these bytes."""

    def behave(request: Request) -> Iterator[bytes | float]:
        yield made(request)

    return behave


def body_of(made: Callable[[dict[str, Any]], Any], status: str = "200 OK", *headers: str) -> Behaviour:
    """A right response whose JSON is changed."""

    def changed(request: Request) -> bytes:
        content = made(answer(request))
        return http(content if isinstance(content, bytes) else json.dumps(content).encode(), status, *headers)

    return of(changed)


def each(**changes: Any) -> Behaviour:
    """A right response with other fields in each completion."""
    return body_of(lambda said: said | {"choices": [choice | changes for choice in said["choices"]]})


def good(request: Request) -> bytes:
    return http(json.dumps(answer(request)).encode())


def _drip(part: bytes, times: int, seconds: float, start: bytes = b"") -> Behaviour:
    def behave(request: Request) -> Iterator[bytes | float]:
        yield start
        for _ in range(times):
            yield part
            yield seconds

    return behave


def _flood(part: bytes, times: int, start: bytes) -> Behaviour:
    def behave(request: Request) -> Iterator[bytes | float]:
        yield start
        for _ in range(times):
            yield part

    return behave


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
MEGABYTE = b" " * 2**20


def _statuses() -> Iterator[tuple[str, Behaviour]]:
    said = json.dumps({"error": {"message": "no\x1b[31m\n" * 20}}).encode()
    for code in (
        201,
        204,
        206,
        299,
        300,
        304,
        400,
        401,
        402,
        403,
        404,
        405,
        408,
        409,
        413,
        418,
        422,
        429,
        451,
        500,
        501,
        502,
        503,
        504,
        529,
        599,
        600,
        999,
    ):
        yield f"status-{code}", of(lambda r, code=code: http(said, f"{code} X"))
    for code in (400, 401, 404, 422, 429, 500):
        echo = json.dumps({"error": {"message": f"bad header Authorization: Bearer {SECRET}"}}).encode()
        yield f"echo-key-{code}", of(lambda r, code=code, echo=echo: http(echo, f"{code} X"))
        yield (
            f"echo-key-plain-{code}",
            of(lambda r, code=code: http(f"token {SECRET} refused".encode(), f"{code} X", "Content-Type: text/plain")),
        )
    for name, body in {"html": b"<html>" + b"x" * 5000, "empty": b"", "null": b"null", "list": b"[1]", "number": b"4", "text": b'"no"',
                       "nested": b"[" * 100_000, "message-list": b'{"error": {"message": [1, {}]}}', "error-text": b'{"error": "no"}',
                       "detail": b'{"detail": [{"msg": "x", "loc": []}]}', "bytes": bytes(range(256))}.items():  # fmt: skip
        yield f"error-{name}", of(lambda r, body=body: http(body, "400 Bad"))
        yield f"error-{name}-500", of(lambda r, body=body: http(body, "500 Bad"))
    for charset in ("base64", "x", "utf-16", "rot13", "", "idna", "hex", "zlib", "undefined"):
        for code in ("400 X", "200 OK"):
            header = f"Content-Type: application/json; charset={charset}"
            yield (
                f"charset-{charset}-{code[:3]}",
                of(lambda r, h=header, c=code: http(json.dumps(answer(r)).encode(), c, h)),
            )
    yield "error-50MB", of(lambda r: http(b'{"error": {"message": "' + b"x" * (50 << 20) + b'"}}', "400 X"))
    for after in ("1", "99999999", "-1", "x", "Wed, 21 Oct 2099 07:28:00 GMT", "nan", "1e400"):
        yield f"retry-after-{after[:8]}", of(lambda r, a=after: http(b"{}", "429 X", f"Retry-After: {a}"))


def _redirects() -> Iterator[tuple[str, Behaviour]]:
    for code in (301, 302, 303, 307, 308):
        yield (
            f"redirect-{code}",
            of(lambda r, c=code: http(b"", f"{c} X", f"Location: http://localhost:{PORT[0]}/good/v1/completions")),
        )
    for name, target in {"itself": "", "nowhere": "http://127.0.0.1:9/", "file": "file:///etc/passwd", "bad": "http://[", "user": "http://u:p@localhost/",
                         "bytes": "/\xff\xfe"}.items():  # fmt: skip
        yield f"redirect-to-{name}", of(lambda r, t=target: http(b"", "307 X", f"Location: {t or r.path}"))


def _bodies() -> Iterator[tuple[str, Behaviour]]:
    one = answer(Request("", "", {"n": 1}))
    for i, path in enumerate(paths(one)):
        for kind in ("null", "list", "object", "nan", "huge", "nested-deep", "surrogate"):
            if (i + len(kind)) % 3 == 0:
                yield f"field-{i}-{kind}", of(lambda r, p=path, k=kind: http(replaced(one, p, HOSTILE[k]).encode()))
        if path:
            yield f"field-{i}-gone", of(lambda r, p=path: http(without(one, p).encode()))
    for i in range(16):
        yield f"damaged-{i}", of(lambda r, i=i: http(damaged(json.dumps(answer(r)).encode(), f"servers {i}")))
    for name, ids in {"far": [10**6], "edge": [2**31 - 1], "past": [2**31], "negative": [-1], "bool": [True], "many": [5] * 4000, "none": [],
                      "float": [1.0], "text": ["a"], "half": IDS}.items():  # fmt: skip
        yield f"ids-{name}", each(token_ids=ids)
    for name, words in {
        "none": None,
        "list": ["stop"],
        "abort": "abort",
        "tool": "tool_calls",
        "filter": "content_filter",
        "long": "x" * 10**6,
    }.items():
        yield f"finish-{name}", each(finish_reason=words)
    for name, text in {
        "long": "7 " * 400_000,
        "nul": "a\0b",
        "tags": "</think>" * 3000,
        "control": "\x1b[2J" * 30,
        "empty": "",
    }.items():
        yield f"text-{name}", each(text=text)
    for name, logprobs in {
        "nan": [float("nan")],
        "positive": [5.0],
        "short": [],
        "text": ["x"],
        "null": [None],
    }.items():
        yield f"logprobs-{name}", each(token_ids=IDS[:1], logprobs={"token_logprobs": logprobs})
    yield "too-few", body_of(lambda said: said | {"choices": []})
    yield "too-many", body_of(lambda said: said | {"choices": said["choices"] * 300})
    yield "same-index", each(index=0)
    yield "index-far", each(index=-(10**30))
    yield "bom", body_of(lambda said: b"\xef\xbb\xbf" + json.dumps(said).encode())
    yield "utf-16", body_of(lambda said: json.dumps(said).encode("utf-16"))
    yield "two-bodies", body_of(lambda said: json.dumps(said).encode() * 2)
    yield (
        "stream",
        body_of(
            lambda said: b"data: " + json.dumps(said).encode() + b"\n\ndata: [DONE]\n\n",
            "200 OK",
            "Content-Type: text/event-stream",
        ),
    )
    yield "html", body_of(lambda said: b"<html>login</html>", "200 OK", "Content-Type: text/html")
    yield "gzip", body_of(lambda said: gzip.compress(json.dumps(said).encode()), "200 OK", "Content-Encoding: gzip")
    yield "gzip-bomb", body_of(lambda said: gzip.compress(bytes(200 << 20)), "200 OK", "Content-Encoding: gzip")
    for coding in ("br", "zstd", "deflate", "x", "gzip, gzip"):
        yield f"coding-{coding}", body_of(lambda said: said, "200 OK", f"Content-Encoding: {coding}")


def _wires() -> Iterator[tuple[str, Behaviour]]:
    yield "closes", of(lambda r: b"")
    yield "never", _drip(b"", 1, 60)
    yield "garbage", of(lambda r: bytes(range(256)) * 40)
    yield "http-0.9", of(lambda r: b"<html>hi</html>")
    yield "http-9", of(lambda r: good(r).replace(b"HTTP/1.1", b"HTTP/9.9"))
    yield "status-text", of(lambda r: good(r).replace(b"200 OK", b"OK OK"))
    yield "half-header", of(lambda r: good(r)[:30])
    yield "half-body", of(lambda r: good(r)[:-40])
    yield "length-negative", of(lambda r: http(b"{}", length=-1))
    yield "length-text", of(lambda r: http(b"{}").replace(b"Length: 2", b"Length: x"))
    yield "length-twice", of(lambda r: http(b"{}").replace(b"Length: 2", b"Length: 2\r\nContent-Length: 3"))
    yield "length-short", of(lambda r: http(json.dumps(answer(r)).encode(), length=10))
    yield "length-huge", of(lambda r: http(b"{}", length=10**15))
    yield "chunk-bad", of(lambda r: CHUNKED + b"zz\r\nx")
    yield "chunk-huge", of(lambda r: CHUNKED + b"f" * 40 + b"\r\nx")
    yield "chunk-cut", of(lambda r: CHUNKED + b"10\r\n{}")
    yield "chunk-trailer", _drip(b"X: y\r\n", 40, 0.2, CHUNKED + b"2\r\n{}\r\n0\r\n")
    yield "header-drip", _drip(b"X-A: b\r\n", 60, 0.25, b"HTTP/1.1 200 OK\r\n")
    yield "header-drip-letters", _drip(b"x", 60, 0.25, b"HTTP/1.1 200 OK\r\nX: ")
    yield "body-drip", _drip(b" ", 60, 0.25, ENDLESS)
    yield "error-drip", _drip(b" ", 60, 0.25, ENDLESS.replace(b"200 OK", b"500 Bad"))
    yield "continue-drip", _drip(b"HTTP/1.1 100 Continue\r\n\r\n", 60, 0.25)
    yield "continues", _flood(b"HTTP/1.1 100 Continue\r\n\r\n", 200_000, b"")
    yield "headers-many", of(lambda r: b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200_000 + b"\r\n{}")
    yield "header-long", of(lambda r: b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 3_000_000 + b"\r\n\r\n{}")
    yield "header-nul", of(lambda r: b"HTTP/1.1 200 OK\r\nX-\0A: b\xff\r\n\r\n{}")
    yield "cookie", body_of(lambda said: said, "200 OK", "Content-Type: application/json", "Set-Cookie: a=b; Domain=.")
    yield "body-400MB", _flood(MEGABYTE, 400, ENDLESS)
    yield "error-400MB", _flood(MEGABYTE, 400, ENDLESS.replace(b"200 OK", b"400 Bad"))
    yield (
        "text-100MB",
        of(
            lambda r: http(
                b'{"choices": [{"index": 0, "finish_reason": "stop", "text": "' + b"x" * (100 << 20) + b'"}]}'
            )
        ),
    )


def behaviours() -> dict[str, Behaviour]:
    """All, by their paths."""
    return {"good": of(good)} | dict(
        pair for kind in (_statuses(), _redirects(), _bodies(), _wires()) for pair in kind
    )


PORT: list[int] = []
NO_LIST = "-list"  # at the end of a path: the behaviour is that of the list of models, too


def cases() -> Iterator[Case]:
    """All cases, in a fixed order; the first starts the server, in a process of its own."""
    if not PORT:
        PORT.append(_serve())
    known = behaviours()
    ids_far = {"ids-far", "ids-edge", "ids-past", "ids-negative", "ids-many"}
    for name in known:
        stops = name in ids_far or (name.startswith("redirect-") and name != "redirect-to-itself")
        must = "work" if name == "good" else "stop" if stops else "either"
        yield _case(name, f"http://127.0.0.1:{PORT[0]}/{name.replace(' ', '%20')}/v1", must)
    for name in (
        "good",
        "closes",
        "garbage",
        "redirect-307",
        "header-drip",
        "error-400MB",
        "body-400MB",
        "chunk-bad",
        "never",
        "echo-key-401",
    ):
        yield _case(f"{name}{NO_LIST}", f"http://127.0.0.1:{PORT[0]}/{name}{NO_LIST}/v1", "either")
    for i, url in enumerate(("http://127.0.0.1:9/v1", "http://nowhere.invalid/v1", "http://[::1]:9/v1", "ftp://x/v1", "http://", "x", "http://a b/v1",
                             "http://127.0.0.1:99999/v1", "http://u:p@127.0.0.1/v1", "https://127.0.0.1:%d/good/v1", "http://\udcff/v1",
                             "http://" + "a" * 300 + "/v1")):  # fmt: skip
        yield _case(f"url-{i}", url.replace("%d", str(PORT[0])), "stop")


def _case(name: str, url: str, must: Any) -> Case:
    safe = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    command, retries = "measure" if name.startswith(MEASURED) else "sample", "1" if name.startswith("retry") else "0"
    return Case(safe, (command, *ASKED, "--retries", retries, "--base-url", url), lambda folder: None, must)


def _serve() -> int:
    """Starts the server in a forked process, which ends with this one, and returns its port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listening.getsockname()[1]
    alive, ours = os.pipe()  # closed when this process ends
    if os.fork() == 0:
        os.close(ours)
        PORT.append(port)
        known = behaviours()
        while True:
            ready, _, _ = select.select([listening, alive], [], [])
            if alive in ready:
                os._exit(0)
            client, _ = listening.accept()
            threading.Thread(target=_handle, args=(client, known), daemon=True).start()
    os.close(alive)
    os.set_inheritable(ours, False)
    listening.close()
    return port


def _handle(client: socket.socket, known: dict[str, Behaviour]) -> None:
    try:
        with client:
            request = _read(client)
            name = request.path.split("/")[1].replace("%20", " ")
            listed = request.path.endswith("/models") and not name.endswith(NO_LIST)
            parts: Any = [http(b'{"data": [{"id": "m"}]}')] if listed else known[name.removesuffix(NO_LIST)](request)
            for part in parts:
                if isinstance(part, float | int):
                    time.sleep(part)
                else:
                    client.sendall(part)
            if name == "closes":  # resets the connection
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, KeyError, IndexError, ValueError):
        """A client that hung up, or asks for nothing that is there."""


def _read(client: socket.socket) -> Request:
    client.settimeout(30)
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := client.recv(65536)):
            raise OSError("no request")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    headers = head.decode("latin-1")
    sizes = [
        int(line.partition(":")[2]) for line in headers.splitlines() if line.lower().startswith("content-length:")
    ]
    while sizes and len(body) < sizes[0]:
        body += client.recv(65536)
    return Request(headers.split(" ")[1], headers, json.loads(body or b"{}"))
