"""Graders: which answers are correct. They get the text after the thinking and nothing else.

`exact`, `numeric` and `countdown` are bounded by construction (a length limit and linear work) and run in place.
`math-verify` and the verifiers of `gym` parse free text, which can hang or exhaust the memory: they run in processes.
"""

import logging
import math
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, suppress
from operator import attrgetter
from pathlib import Path

from pebble import ProcessPool

from headway.choices import lookup
from headway.problems import countdown, countdown_text, deepscaler, gym
from headway.problems.math_rules import judge_math
from headway.text.answers import last_box
from headway.text.known_answers import Candidates, written
from headway.types import Grader, HeadwayError, Problem

logger = logging.getLogger(__name__)
Judge = Callable[[str, str], bool | None]

MAX_ANSWER_CHARS = 2000
DEADLINE_S = 5.0
WORKER_MEMORY_BYTES = 2 * 2**30
ATTEMPTS = 4

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d{1,3})?")


def exact(answer: str, reference: str) -> bool:
    """Whether the two are the same text, spaces aside."""
    return "".join(answer.split()) == "".join(reference.split())


def numeric(answer: str, reference: str) -> bool:
    """Whether the last number in the answer equals the reference, to a relative 1e-9; thousands commas are allowed."""
    if (found := _last_number(answer)) is None:
        return False
    if (expected := _last_number(reference)) is None:
        raise HeadwayError(f"the numeric grader needs a number as reference, got {reference!r}; try --grader exact")
    return math.isclose(found, expected)


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


class InPlace:
    """A grader of a plain function of the answer and the reference, which is bounded by construction.

    `one_right`: all correct answers to a problem are the same. `candidates`: those that values by likelihood score.
    `competence`: shares, from 0 to 1, of what thoughts with these rewards do well; training logs them.
    """

    def __init__(
        self,
        is_right: Callable[[str, str], bool],
        *,
        one_right: bool = False,
        candidates: Candidates = written,
        competence: Callable[[Sequence[str], Sequence[float | None]], dict[str, float]] | None = None,
    ) -> None:
        self._is_right, self.one_right, self.candidates, self.competence = is_right, one_right, candidates, competence

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        """1.0 or 0.0 for each (problem, answer); too long an answer is wrong."""
        return [float(len(answer) <= MAX_ANSWER_CHARS and self._is_right(answer, p.answer)) for p, answer in items]


class Pooled(AbstractContextManager["Pooled"]):
    """A grader in worker processes, which start with the first call; one past its deadline is killed and replaced.

    The judge gets the answer and the problem's `reference`. `compares`: it can also compare two wrong answers, and all
    correct answers to a problem are the same answer.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        workers: int = 2,
        deadline_s: float = DEADLINE_S,
        reference: Callable[[Problem], str] = attrgetter("answer"),
        compares: bool = False,
    ) -> None:
        self.compares = self.one_right = compares
        self._judge, self._reference, self._deadline_s, self._workers = judge, reference, deadline_s, workers
        self._pool: ProcessPool | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        """Grades each distinct (answer, reference) once; None where the judge is undecided or failed."""
        keys = [(answer, self._reference(problem)) for problem, answer in items]
        rewards: dict[tuple[str, str], float | None] = {key: 0.0 for key in keys if len(key[0]) > MAX_ANSWER_CHARS}
        for attempt in reversed(range(ATTEMPTS)):
            try:
                self._judge_all([key for key in dict.fromkeys(keys) if key not in rewards], rewards)
                break
            except BrokenProcessPool:
                # pebble's pool breaks if a worker ends while it takes an answer, or while idle
                self.close()
                if not attempt:
                    raise
        return [rewards[key] for key in keys]

    def _judge_all(self, keys: Sequence[tuple[str, str]], rewards: dict[tuple[str, str], float | None]) -> None:
        """Puts the verdict on each (answer, reference) into `rewards`, until the pool breaks."""
        if not keys:
            return
        if self._pool is None or not self._pool.active:
            self.close()
            spawn = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads can hang
            self._pool = ProcessPool(self._workers, initializer=_start_worker, initargs=[self._judge], context=spawn)
        futures = [self._pool.schedule(self._judge, args=key, timeout=self._deadline_s) for key in keys]
        for key, future in zip(keys, futures, strict=True):
            try:
                verdict = future.result()
                rewards[key] = None if verdict is None else float(verdict)
            except BrokenProcessPool:
                raise
            except Exception as error:  # too slow, out of memory, ended, or failed at this answer: undecided
                logger.debug("undecided answer %r: %r", key[0][:80], error)
                rewards[key] = None


class Boxed(Pooled):
    """A pooled grader whose answers are in the last box of a text, or nowhere."""

    extract = staticmethod(last_box)


def _start_worker(judge: Judge) -> None:
    import resource

    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (open for the worker's life) judges print
    logging.disable(logging.WARNING)  # math-verify warns in each worker that its own timeouts are off
    # A judge imports at its first call; here that time does not count against an answer's deadline.
    with suppress(Exception):
        judge("x + 1", "1 + x")  # not equal as texts, which needs no import
    # beyond what is in use: a worker imports the script that started it, and torch maps gigabytes of addresses
    most = WORKER_MEMORY_BYTES
    with suppress(OSError, ValueError):  # not every system says what is in use
        most += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def load_grader(name: str) -> Grader:
    """The grader of a name; a HeadwayError if there is none, or if its library is not installed."""
    return lookup(GRADERS, name, "grader")()


def _gym() -> Pooled:
    gym.check_installed()
    return Pooled(gym.judge, reference=gym.entry_id)


GRADERS: dict[str, Callable[[], Grader]] = {
    "exact": lambda: InPlace(exact, one_right=True),
    "numeric": lambda: InPlace(numeric, one_right=True),
    "countdown": lambda: InPlace(
        countdown.is_solution,
        candidates=lambda p: countdown.solutions(p.answer),
        competence=countdown_text.competence,
    ),
    "math-verify": lambda: Pooled(judge_math, compares=True),
    "deepscaler": lambda: Boxed(deepscaler.judge, compares=True),
    "gym": _gym,
}
