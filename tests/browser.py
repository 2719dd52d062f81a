"""Headless Chromium over its debugging pipe: opens a page, runs JavaScript in it, keeps what it complains about."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --disable-background-networking
    --disable-component-update --remote-debugging-pipe""".split()


class Page:
    """One tab. `complaints` are console errors and warnings, exceptions and violations; `requests` all addresses asked
    for."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._seen, self._last = read, write, b"", 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Loads a page, anew even if only the part after # differs, and waits until its explorer shows a trace."""
        self._call("Page.navigate", url="about:blank")
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript condition holds."""
        held = self.run(
            f"""new Promise((done) => {{
                const end = Date.now() + 20000;
                const test = () => {{ try {{ return {condition}; }} catch {{ return false; }} }};
                const go = () => (test() ? done(true) : Date.now() < end ? setTimeout(go, 20) : done(false));
                go();
            }})"""
        )
        assert held, f"never true: {condition}"

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._seen:
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium has gone"
            self._seen += chunk
        message, _, self._seen = self._seen.partition(b"\0")
        return json.loads(message)

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page in a Chromium of its own; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # it reads descriptor 3 and writes descriptor 4; copies above 9 cannot be in the way of these
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_read, from_write)]
    process = os.posix_spawn(
        chromium,
        [chromium, *FLAGS, f"--user-data-dir={profile}"],
        os.environ,
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, end, number) for end, number in zip(theirs, (3, 4), strict=True)),
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (1, 2)),
        ],
    )
    for end in (to_read, from_write, *theirs):
        os.close(end)
    try:
        yield Page(from_read, to_write)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(to_write)
        os.close(from_read)
