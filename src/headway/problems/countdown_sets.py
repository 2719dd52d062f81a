"""Named sets of Countdown problems: those of training, validation and test, as they come and hard ones.

A problem is its numbers, in any order, and its target. Training sets are of the split `train`, all others of the split
`heldout`, so no other set shares a problem with one of training. A validation set has none of the first `TESTED`
problems of a test set.
"""

import random
from collections.abc import Iterator
from functools import cache
from itertools import combinations_with_replacement, islice
from typing import NamedTuple

from headway.problems.countdown import (
    LARGEST_OPERAND,
    MOST_NUMBERS,
    SMALLEST_TARGET,
    Puzzle,
    Split,
    Term,
    expressions,
    puzzle,
    split_of,
    steps,
)
from headway.types import HeadwayError, Problem

TESTED = 600  # problems of each test set that no validation set has
HARD_LUCK = 0.008  # a problem is hard if random steps reach its target less often

Key = tuple[tuple[int, ...], int]


class CountdownSet(NamedTuple):
    """Which problems a named set has."""

    split: Split
    hard: bool = False
    validation: bool = False


SETS: dict[str, CountdownSet] = {
    "countdown": CountdownSet("heldout"),
    "countdown-train": CountdownSet("train"),
    "countdown-validation": CountdownSet("heldout", validation=True),
    "countdown-hard": CountdownSet("heldout", hard=True),
    "countdown-hard-train": CountdownSet("train", hard=True),
    "countdown-hard-validation": CountdownSet("heldout", hard=True, validation=True),
}


def problems(name: str, n: int) -> list[Problem]:
    """The first `n` problems of a set of `SETS`, the same whatever `n` is; a HeadwayError where it has fewer."""
    of = SETS[name]
    tested = _tested() if of.validation else frozenset()
    made = (p for p in _puzzles(name) if _key(p) not in tested)
    prefix = f"countdown-{of.split}-0" if not (of.hard or of.validation) else name
    found = [Problem(f"{prefix}-{i}", p.prompt(), p.solution) for i, p in enumerate(islice(made, n))]
    if len(found) < n:
        raise HeadwayError(f"{name} has {len(found)} problems, got a limit of {n}; give a smaller one")
    return found


def luck(numbers: tuple[int, ...], target: int) -> float:
    """The probability that random steps, each chosen evenly among the possible ones, end on the target."""
    return _ends(tuple(sorted(numbers))).get(target, 0.0)


def _key(made: Puzzle) -> Key:
    return tuple(sorted(made.numbers)), made.target


@cache
def _ends(numbers: tuple[int, ...]) -> dict[int, float]:
    """The results of random steps over sorted numbers, with their probabilities."""
    if len(numbers) == 1:
        return {numbers[0]: 1.0}
    found: dict[int, float] = {}
    choices = steps(tuple(Term(n, str(n)) for n in numbers))
    for step in choices:
        left = list(numbers)
        left.remove(step.left.value)
        left.remove(step.right.value)
        for end, p in _ends(tuple(sorted((*left, step.result)))).items():
            found[end] = found.get(end, 0.0) + p / len(choices)
    return found


@cache
def _tested() -> frozenset[Key]:
    """The problems that test sets have."""
    tests = [name for name, of in SETS.items() if of.split == "heldout" and not of.validation]
    return frozenset(_key(p) for name in tests for p in islice(_puzzles(name), TESTED))


def _puzzles(name: str) -> Iterator[Puzzle]:
    """The puzzles of a set, each once; those of a validation set include tested ones."""
    of = SETS[name]
    return _hard(name, of.split) if of.hard else _different(name, of)


def _different(name: str, of: CountdownSet) -> Iterator[Puzzle]:
    """Random puzzles of a split as `puzzle` makes them; they do not end before all are found."""
    rng = random.Random(f"{name}" if of.validation else f"countdown {of.split} 0")
    seen: set[Key] = set()
    while True:
        made = puzzle(rng, of.split)
        if _key(made) not in seen:
            seen.add(_key(made))
            yield made


def _hard(name: str, split: Split) -> Iterator[Puzzle]:
    """All hard puzzles of a split in a random order, their numbers as well."""
    rng = random.Random(name)
    keys = [
        (numbers, target)
        for numbers in combinations_with_replacement(range(1, LARGEST_OPERAND + 1), MOST_NUMBERS)
        for target, p in sorted(_ends(numbers).items())
        if target >= SMALLEST_TARGET and p < HARD_LUCK and split_of(numbers, target) == split
    ]
    rng.shuffle(keys)
    for numbers, target in keys:
        solution = next(expressions(numbers, target))
        yield Puzzle(tuple(rng.sample(numbers, len(numbers))), target, solution)
