"""A grader in a script that has taken many addresses already, as one that imports torch has."""

import mmap

from headway.problems.graders import Pooled
from headway.problems.workers import WORKER_MEMORY_BYTES
from headway.types import Problem

TAKEN = mmap.mmap(-1, WORKER_MEMORY_BYTES + 2**30)  # addresses, not memory; a worker has them too


def same(answer: str, reference: str) -> bool:
    room = bytearray(64 * 2**20)
    return len(room) > 0 and answer == reference


def hungry(answer: str, reference: str) -> bool:
    return answer == "1" or len(bytearray(2 * WORKER_MEMORY_BYTES)) > 0


def test_what_the_script_takes_is_not_the_answers() -> None:
    with Pooled(same, workers=1) as grader:
        assert grader.grade([(Problem("1", "2 + 2?", "4"), answer) for answer in ("4", "5")]) == [1.0, 0.0]


def test_an_answer_still_has_its_bound() -> None:
    with Pooled(hungry, workers=1) as grader:
        assert grader.grade([(Problem("1", "?", "1"), answer) for answer in ("2", "1")]) == [None, 1.0]
