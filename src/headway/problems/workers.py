"""Processes in which a judge may hang or crash: each answer has a limit of processor time and of memory.

The caller starts one fresh interpreter, the server, by a command of its own: it imports the judge, but never the
caller's `__main__`. The server forks the workers, judge and SymPy loaded, so that replacing one takes milliseconds; a
fork of the caller itself could hang, where torch's threads run.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NamedTuple

from headway.types import HeadwayError

Judge = Callable[[str, str], bool | None]
Key = tuple[str, str]  # an answer and its reference

WORKER_MEMORY_BYTES = 2 * 2**30
WALL_S = 60.0  # for an answer that waits and takes no processor time
ATTEMPTS = 4
WARM_UP = (  # not equal as texts, which needs no import
    ("x + 1", "1 + x"),
    ("The sum is $\\frac{1}{2} x^2 (x + 1)$, \\sin x", "(x + \\sqrt{3})^2"),
)
_COMMAND = "import sys; sys.path[:] = {path!r}; from headway.problems.workers import serve; serve({descriptor})"


class Workers:
    """`workers` processes that judge; they start with the first call, and end with `close`, the object, or the caller.

    An answer that takes more than `cpu_s` seconds of its worker's processor time, or `wall_s` seconds, is undecided.
    """

    def __init__(self, judge: Judge, *, workers: int, cpu_s: float, wall_s: float = WALL_S) -> None:
        self._start = judge, workers, cpu_s, wall_s
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._end: Callable[[], object] = lambda: None

    def close(self) -> None:
        """Ends the processes."""
        self._end()
        self._pipe = None

    def judge(self, keys: Sequence[Key]) -> list[bool | None]:
        """The verdict on each; a HeadwayError if a fresh process cannot import the judge."""
        with self._lock:
            for attempt in reversed(range(ATTEMPTS)):
                try:
                    pipe = self._opened()
                    pipe.send(list(keys))
                    verdicts: list[bool | None] = pipe.recv()
                    return verdicts
                except (EOFError, ConnectionError):  # someone killed the server
                    self.close()
                    if not attempt:
                        raise
                except BaseException:  # Ctrl-C as well: verdicts on their way belong to no later call
                    self.close()
                    raise
        raise AssertionError

    def _opened(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        judge, *limits = self._start
        try:
            message = pickle.dumps(judge)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _not_importable(judge, error) from error
        self._pipe, theirs = Pipe()
        path = [os.path.abspath(entry) for entry in sys.path]
        command = _COMMAND.format(path=path, descriptor=theirs.fileno())
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-c", command], pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._end = weakref.finalize(self, _end, server, self._pipe, os.getpid())
        self._pipe.send((message, *limits))
        if (failed := self._pipe.recv()) is not None:
            raise _not_importable(judge, failed)
        return self._pipe


def _not_importable(judge: Judge, error: object) -> HeadwayError:
    name = getattr(judge, "__qualname__", repr(judge))
    return HeadwayError(
        f"the judge {name} runs in a process of its own, which cannot import it ({error}); put it into a module, not "
        "into a script, a notebook or a lambda, or call it in place: graders.InPlace(judge)"
    )


def _end(server: "subprocess.Popen[bytes]", pipe: Connection, owner: int) -> None:
    pipe.close()
    if os.getpid() != owner:  # a fork of it
        return
    try:
        server.wait(timeout=1.0)  # it ends when its caller is gone
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class _Worker(NamedTuple):
    pid: int
    pipe: Connection


class _Task(NamedTuple):
    place: int
    key: Key
    since: float


def serve(descriptor: int) -> None:
    """The server: judges lists of (answer, reference) until the caller is gone."""
    caller = Connection(descriptor)
    message, workers, cpu_s, wall_s = caller.recv()
    logging.disable(logging.WARNING)  # math-verify warns that its own timeouts are off
    try:
        judge = pickle.loads(message)
    except Exception as error:
        caller.send(f"{type(error).__name__}: {error}")
        return
    # A judge imports at its first call; here that time does not count against an answer's limit.
    for answer, reference in WARM_UP:
        with suppress(Exception):
            judge(answer, reference)
    caller.send(None)
    pool: dict[_Worker, _Task | None] = {}
    with suppress(EOFError, ConnectionError):
        while True:
            keys = caller.recv()
            caller.send(_judged(keys, pool, lambda: _forked(judge, cpu_s, [caller, *(w.pipe for w in pool)]),
                                workers, wall_s, caller))  # fmt: skip
    for worker in pool:
        _stop(worker)


def _judged(
    keys: Sequence[Key], pool: dict[_Worker, _Task | None], fork: Callable[[], _Worker], workers: int, wall_s: float,
    caller: Connection,
) -> list[bool | None]:  # fmt: skip
    """The verdict on each; None where the judge was undecided, failed, took too long or ended its process."""
    verdicts: list[bool | None] = [None] * len(keys)
    todo = deque(enumerate(keys))
    while todo or any(pool.values()):
        while len(pool) < workers and todo:
            pool[fork()] = None
        for worker in [worker for worker, task in pool.items() if task is None]:
            if todo:
                try:
                    worker.pipe.send(todo[0][1])
                    pool[worker] = _Task(*todo.popleft(), time.monotonic())
                except ConnectionError:  # it ended while it had nothing to do
                    _stop(worker, pool)
        busy = {worker.pipe: (worker, task) for worker, task in pool.items() if task}
        for ready in wait([*busy, caller], timeout=wall_s / 4):
            if ready is caller:
                raise EOFError  # it sends nothing before it has its verdicts: it is gone
            worker, task = busy.pop(ready)  # type: ignore[call-overload]
            try:
                verdicts[task.place] = worker.pipe.recv()
                pool[worker] = None
            except (EOFError, ConnectionError):
                _stop(worker, pool)
        for worker, task in busy.values():
            if time.monotonic() - task.since > wall_s:
                _stop(worker, pool)
    return verdicts


def _stop(worker: _Worker, pool: dict[_Worker, Any] | None = None) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    os.waitpid(worker.pid, 0)
    worker.pipe.close()
    if pool is not None:
        del pool[worker]


def _forked(judge: Judge, cpu_s: float, inherited: Sequence[Connection]) -> _Worker:
    ours, theirs = Pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours)
    try:
        for pipe in (ours, *inherited):
            pipe.close()
        _work(judge, cpu_s, theirs)
    finally:
        os._exit(0)


def _work(judge: Judge, cpu_s: float, pipe: Connection) -> None:
    import resource

    # beyond what is in use: the judge's module may map gigabytes of addresses, as torch does
    most = WORKER_MEMORY_BYTES
    with suppress(OSError, ValueError):  # not every system says what is in use, or limits it
        most += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process, in C code too
    while True:
        answer, reference = pipe.recv()
        verdict = None
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        with suppress(Exception):
            verdict = judge(answer, reference)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(verdict if verdict is None else bool(verdict))
