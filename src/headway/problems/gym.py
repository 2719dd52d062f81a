"""Generated problems of reasoning-gym, graded by its own verifiers.

A problem's id (task, seed and number) generates its entry again, which its verifier needs.
Some verifiers evaluate the model's text as Python. Those of one version were reviewed for that: they get only text
that matches the patterns below, other answers are wrong without being evaluated, and other versions are refused.
"""

import functools
import io
import math
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import metadata
from typing import Any

from headway.types import HeadwayError, Problem

CHECKED_VERSION = "0.1.25"
INSTALL = f"pip install 'reasoning-gym=={CHECKED_VERSION}'"
TEMPLATE = "{problem}\n\nPut your final answer within \\boxed{}."
SIZE = 2000  # entries of a set; those of some tasks depend on it, so it is the same for all
TOLERANCE = 1e-9  # of a full score

_ID = re.compile(r"\w+/\d{1,9}/\d{1,9}", re.ASCII)

_ARITHMETIC = re.compile(r"(?s)(?!.*\*\*)[\d\s+\-*/().]*")
_ALGEBRA = re.compile(
    r"(?:[\d\s+\-*/^(),]|\.(?=\d)|\b(?:[A-Za-z]|a?(?:sin|cos|tan)h?|sec|csc|cot|exp|log|ln|sqrt|pi|Abs)\b)*"
)
# The text that evaluating verifiers may get: no names but variables and mathematical functions, no attributes. Every
# right answer matches; an integral that is only restated does not.
EVALUATED = {
    "countdown": _ARITHMETIC,
    "intermediate_integration": _ALGEBRA,
    "polynomial_multiplication": _ALGEBRA,
    "simple_integration": _ALGEBRA,
    "spiral_matrix": re.compile(r"[\d\s]*"),
    "string_insertion": re.compile(r"[A-Z]*"),
}
REFUSED = {
    "composite": "it is a mixture of other tasks; name one of those",
    "game_of_life_halting": "its verifier takes any text as right",
    "puzzle24": "its verifier does not look at which numbers were used",
}


def problems(task: str, n: int, *, seed: int = 0) -> Iterator[Problem]:
    """The first `n` problems that a task generates from a seed; a task that cannot be graded is a HeadwayError."""
    if n > SIZE:
        raise HeadwayError(f"a gym: set has at most {SIZE} problems, got --limit {n}; other seeds have others")
    for number in range(n):
        entry = _entry(task, seed, number)
        answer = entry["answer"]
        if not isinstance(answer, str) or not answer.strip():
            raise HeadwayError(f"gym:{task} cannot be measured: it has problems without a reference answer")
        if "\n" in answer.strip():
            raise HeadwayError(f"gym:{task} cannot be measured: its answers have several lines, a forced answer one")
        yield Problem(f"{task}/{seed}/{number}", entry["question"], answer)


def entry_id(problem: Problem) -> str:
    """The id of a problem of a `gym:` set (of another, a HeadwayError), which generates its entry again."""
    if not _ID.fullmatch(problem.id):
        raise HeadwayError(f"the gym grader needs the problems of a gym: set, got one with the id '{problem.id}'")
    return problem.id


def judge(answer: str, problem_id: str) -> bool:
    """Whether a verifier gives the answer to the problem of this id its full score.

    A partial score is wrong, and so is an answer at which the verifier raises: some raise on text they cannot parse.
    A score out of range is a HeadwayError, so that the answer counts as undecided.
    """
    _library()  # imports at a worker's first call, whatever its arguments
    task, seed, number = problem_id.split("/")
    if task in EVALUATED and not EVALUATED[task].fullmatch(answer):
        return False
    made, entry = _made(task, int(seed)), _entry(task, int(seed), int(number))
    try:
        score = float(made.score_answer(answer, entry))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError):
        return False
    if not (math.isfinite(score) and 0 <= score <= 1 + TOLERANCE):
        raise HeadwayError(f"the verifier of gym:{task} gave {score}; expected a score from 0 to 1")
    return score >= 1 - TOLERANCE


def check_installed() -> None:
    """Raises a HeadwayError where reasoning-gym is missing or not of the checked version."""
    try:
        version = metadata.version("reasoning-gym")
    except metadata.PackageNotFoundError as error:
        raise HeadwayError(f"gym: problems need reasoning-gym; {INSTALL}") from error
    if version != CHECKED_VERSION:
        need = f"gym: problems need reasoning-gym {CHECKED_VERSION}, got {version}"
        raise HeadwayError(f"{need}: verifiers may run a model's text, and were checked in that version; {INSTALL}")


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    check_installed()
    from reasoning_gym import factory

    return factory


@functools.lru_cache(maxsize=4)
def _made(task: str, seed: int) -> Any:
    library = _library()
    if task not in library.DATASETS:
        raise HeadwayError(f"reasoning-gym has no task '{task}'; there are {', '.join(sorted(library.DATASETS))}")
    if task in REFUSED:
        raise HeadwayError(f"gym:{task} cannot be measured: {REFUSED[task]}")
    return library.create_dataset(task, seed=seed, size=SIZE)


@functools.lru_cache(maxsize=SIZE)
def _entry(task: str, seed: int, number: int) -> Any:
    made = _made(task, seed)
    with redirect_stdout(io.StringIO()):  # some tasks print
        return made[number]
