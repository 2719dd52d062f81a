"""Graders: which answers are correct. They get the text after the thinking and nothing else.

`exact`, `numeric` and `countdown` are bounded by construction (a length limit and linear work) and run in place.
`math-verify` and the verifiers of `gym` parse free text, which can hang or exhaust the memory: they run in processes.
"""

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from operator import attrgetter

from headway.choices import lookup
from headway.problems import countdown, countdown_text, deepscaler, gym
from headway.problems.math_rules import judge_math
from headway.problems.workers import WALL_S, Judge, Workers
from headway.text.answers import last_box
from headway.text.known_answers import Candidates, written
from headway.types import Grader, HeadwayError, Problem

MAX_ANSWER_CHARS = 2000
CPU_S = 5.0  # of a worker's processor time for one answer
MATH_CPU_S = 0.5  # twice what the slowest right answers take; 5% bombs cost three times the time

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
    """A grader in worker processes, which start with the first call; one past its limits is killed and replaced.

    The judge gets the answer and the problem's `reference`. `cpu_s`: seconds of a worker's processor time for one
    answer; `wall_s`: seconds by the clock, for one that only waits. `compares`: the judge can also compare two wrong
    answers, and all correct answers to a problem are the same answer.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        workers: int = 2,
        cpu_s: float = CPU_S,
        wall_s: float = WALL_S,
        reference: Callable[[Problem], str] = attrgetter("answer"),
        compares: bool = False,
    ) -> None:
        self.compares = self.one_right = compares
        self._reference = reference
        self._workers = Workers(judge, workers=workers, cpu_s=cpu_s, wall_s=wall_s)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, as does the end of the program."""
        self._workers.close()

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        """Grades each distinct (answer, reference) once; None where the judge is undecided or failed."""
        keys = [(answer, self._reference(problem)) for problem, answer in items]
        rewards: dict[tuple[str, str], float | None] = {key: 0.0 for key in keys if len(key[0]) > MAX_ANSWER_CHARS}
        if judged := [key for key in dict.fromkeys(keys) if key not in rewards]:
            verdicts = self._workers.judge(judged)
            rewards |= {k: None if v is None else float(v) for k, v in zip(judged, verdicts, strict=True)}
        return [rewards[key] for key in keys]


class Boxed(Pooled):
    """A pooled grader whose answers are in the last box of a text, or nowhere."""

    extract = staticmethod(last_box)


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
    "math-verify": lambda: Pooled(judge_math, cpu_s=MATH_CPU_S, compares=True),
    "deepscaler": lambda: Boxed(deepscaler.judge, compares=True),
    "gym": _gym,
}
