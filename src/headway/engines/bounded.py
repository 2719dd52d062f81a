"""The HTTP client of the api engine: what a server sends is bounded in time and size, and stays on its address."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

ANSWER_BYTES = 2**28  # of one response; a token takes some 50 with its logprob
ERROR_BYTES = 2**16  # of what a server says is wrong; the rest is not read
REDIRECTS = 3

_request = threading.local()  # of each thread: when its request has to be over


def client() -> httpx2.Client:
    """A client whose time limit is that of a whole response, headers included; httpx's is that of each read."""
    hooks: dict[str, list[Any]] = {"request": [_begin], "response": [_bound]}
    return openai.DefaultHttpxClient(event_hooks=hooks, max_redirects=REDIRECTS)


def _begin(request: httpx2.Request) -> None:
    _request.end = time.monotonic() + request.extensions["timeout"]["read"]
    request.extensions["trace"] = _limit_reads


def _limit_reads(event: str, info: dict[str, Any]) -> None:
    if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
        return
    stream = info["return_value"]
    read = stream.read

    def limited(size: int, timeout: float | None = None) -> bytes:
        if (left := _request.end - time.monotonic()) <= 0:
            raise httpx2.ReadTimeout("an answer without end")
        return bytes(read(size, left))

    stream.read = limited


def _bound(response: httpx2.Response) -> None:
    if "content-encoding" in response.headers:
        raise httpx2.DecodingError("a compressed answer that was not asked for")
    response.encoding = "utf-8"  # whatever the server names
    if response.has_redirect_location and not _stays(response):
        del response.headers["location"]  # is not followed then
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, response.is_success)


def _stays(response: httpx2.Response) -> bool:
    """Whether a redirect leads to the same scheme, host and port."""
    here = response.url
    try:
        to = here.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError):
        return False
    return (to.scheme, to.host, to.port) == (here.scheme, here.host, here.port)


class _Bounded(httpx2.SyncByteStream):
    """A response body with a limit in size: a longer answer is refused, of a longer error the start is read."""

    def __init__(self, stream: httpx2.SyncByteStream, success: bool) -> None:
        self._stream, self._success = stream, success

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if self._success and size > ANSWER_BYTES:
                raise httpx2.ReadError(f"an answer of more than {ANSWER_BYTES >> 20} MiB")
            yield part
            if not self._success and size > ERROR_BYTES:
                return

    def close(self) -> None:
        self._stream.close()
