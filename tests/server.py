"""A real server of `/v1/completions` on loopback, over an engine of this process; it can be told to misbehave.

python tests/server.py PORT     serves the built-in model until it is killed
"""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from headway.types import Completion, Engine, Prompt, SamplingParams

Fault = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers like vLLM (token ids in and out) or, with `ids=False`, like a server that knows text only."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, engine: Engine, *, port: int = 0, ids: bool = True, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine, self.ids, self.key = engine, ids, key
        self.asked: list[dict[str, Any]] = []
        self.faults: deque[Fault | None] = deque()  # of the next requests; None is none
        self.dies_after: int | None = None  # requests
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.asked.append(body)
            fault = self.server.faults.popleft() if self.server.faults else None
            if self.server.dies_after is not None and len(self.server.asked) > self.server.dies_after:
                self.close_connection = True
                return
        if fault is not None:
            fault(self)
        elif self.server.key and self.headers["authorization"] != f"Bearer {self.server.key}":
            self.send(401, {"error": {"message": "bad key"}})
        elif body["model"] == "unknown":
            self.send(404, {"error": {"message": "The model `unknown` does not exist."}})
        elif not self.server.ids and not isinstance(body["prompt"], str):
            self.send(422, {"error": {"message": "prompt: expected a string"}})
        elif len(body["prompt"]) + body["max_tokens"] > 4096:
            self.send(400, {"error": {"message": "maximum context length is 4096\x1b[31m tokens"}})
        else:
            self.send(200, {"choices": list(self.choices(body))})

    def choices(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        prompt, tokenizer = body["prompt"], self.server.engine.tokenizer
        if isinstance(prompt, str):
            prompt = tokenizer.encode(prompt, add_special_tokens=False)
        names = ("n", "max_tokens", "temperature", "top_p")
        params = SamplingParams(**{k: body[k] for k in names}, stop=tuple(body.get("stop") or ()))
        with self.server.lock:
            [completions] = self.server.engine.sample([Prompt.of(tuple(prompt))], params, seeds=[body["seed"]])
        for index, completion in reversed(list(enumerate(completions))):
            yield {"index": index, **self.choice(completion, params)}

    def choice(self, completion: Completion, params: SamplingParams) -> dict[str, Any]:
        """As vLLM has it: an end of text is among the ids, and a stop string is named."""
        tokenizer, ids = self.server.engine.tokenizer, list(completion.token_ids)
        text = tokenizer.decode(ids, skip_special_tokens=False)
        said: dict[str, Any] = {"text": text, "finish_reason": completion.stop}
        if not self.server.ids:
            return said
        stopped_by = next((s for s in params.stop if s in text), None)
        if completion.stop == "stop" and stopped_by is None:
            ids.append(getattr(tokenizer, "eos_token_id", 0))
        each = [completion.logprob, *[0.0] * (len(ids) - 1)][: len(ids)]
        return {**said, "token_ids": ids, "stop_reason": stopped_by, "logprobs": {"token_logprobs": each}}

    def send(self, status: int, body: Any, **headers: str) -> None:
        self.send_bytes(status, json.dumps(body).encode(), **headers)

    def send_bytes(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(engine: Engine, **options: Any) -> Iterator[Server]:
    """A server in a thread of this process."""
    server = Server(engine, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(status: int, body: bytes, **headers: str) -> Fault:
    return lambda handler: handler.send_bytes(status, body, **headers)  # type: ignore[attr-defined]


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def waits(seconds: float) -> Fault:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def drips(handler: BaseHTTPRequestHandler) -> None:
    """An answer without end, a byte at a time."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def drips_headers(handler: BaseHTTPRequestHandler) -> None:
    """Headers without end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        handler.wfile.write(b"X-A: b\r\n")
        time.sleep(0.02)
    handler.close_connection = True


if __name__ == "__main__":
    from headway.engines import hf
    from headway.engines.loading import model_path

    Server(hf.load(model_path("builtin:countdown")), port=int(sys.argv[1])).serve_forever()
