"""Countdown: reach a target with given numbers, each used once, by + - * and /.

The task of Stream of Search (arXiv:2404.03683) and TinyZero. The reference answer is one correct expression; every
other one over the same numbers with the same value is also correct.
"""

import ast
import hashlib
import itertools
import operator
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

from headway.types import HeadwayError, Problem

Split = Literal["train", "heldout"]

LARGEST_OPERAND = 12
LARGEST_RESULT = 99
SMALLEST_TARGET = 10
HELDOUT_FRACTION = 0.1
MAX_EXPRESSION_CHARS = 200
MOST_NUMBERS = 4
MOST_SOLUTIONS = 64

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Term(NamedTuple):
    """A number and its expression."""

    value: int
    text: str


class Step(NamedTuple):
    """One combination of two terms: `left symbol right = result`."""

    left: Term
    symbol: str
    right: Term
    result: int

    def term(self) -> Term:
        """The result as a term, its expression in brackets."""
        return Term(self.result, f"({self.left.text} {self.symbol} {self.right.text})")

    def line(self) -> str:
        """The step as it is written in thinking, with values."""
        return f"{self.left.value} {self.symbol} {self.right.value} = {self.result}"


def steps(terms: tuple[Term, ...]) -> list[Step]:
    """Every step between two of the terms whose result is a whole number from 1 to `LARGEST_RESULT`."""
    found = []
    for a, b in itertools.combinations(sorted(terms, reverse=True), 2):
        big, small = a.value, b.value
        if big + small <= LARGEST_RESULT:
            found.append(Step(a, "+", b, big + small))
        if big > small:
            found.append(Step(a, "-", b, big - small))
        if big * small <= LARGEST_RESULT:
            found.append(Step(a, "*", b, big * small))
        if small > 1 and big % small == 0:
            found.append(Step(a, "/", b, big // small))
    return found


def take(terms: tuple[Term, ...], step: Step) -> tuple[Term, ...]:
    """The terms after a step: its result replaces its two terms."""
    left = list(terms)
    left.remove(step.left)
    left.remove(step.right)
    return (*left, step.term())


def outer(text: str) -> str:
    """An expression without the outermost brackets, which `Step.term` adds."""
    return text[1:-1] if text.startswith("(") else text


def split_of(numbers: tuple[int, ...], target: int) -> Split:
    """The split a problem belongs to, by a hash of its sorted numbers and target: the same on every machine."""
    key = f"{sorted(numbers)} {target}".encode()
    share = int.from_bytes(hashlib.sha256(key).digest()[:4], "big") / 2**32
    return "heldout" if share < HELDOUT_FRACTION else "train"


class Puzzle(NamedTuple):
    """Numbers, a target, and one expression that reaches it."""

    numbers: tuple[int, ...]
    target: int
    solution: str

    def prompt(self) -> str:
        """The question, as the user asks it."""
        return f"Reach {self.target} with {', '.join(map(str, self.numbers))}."

    def terms(self) -> tuple[Term, ...]:
        """The numbers as terms."""
        return tuple(Term(n, str(n)) for n in self.numbers)


def puzzle(rng: random.Random, split: Split) -> Puzzle:
    """One random puzzle of the split: 3 or 4 numbers; the target is the result of random steps, so it is solvable."""
    while True:
        numbers = tuple(rng.randint(1, LARGEST_OPERAND) for _ in range(rng.choice((3, 4))))
        terms = tuple(Term(n, str(n)) for n in numbers)
        while len(terms) > 1 and (choices := steps(terms)):
            terms = take(terms, rng.choice(choices))
        target, text = terms[0]
        if len(terms) == 1 and target >= SMALLEST_TARGET and split_of(numbers, target) == split:
            return Puzzle(numbers, target, outer(text))


def problems(n: int, *, split: Split, seed: int = 0) -> Iterator[Problem]:
    """`n` different problems of a split, the first ones the same whatever `n` is."""
    rng = random.Random(f"countdown {split} {seed}")
    seen: set[tuple[tuple[int, ...], int]] = set()
    while len(seen) < n:
        made = puzzle(rng, split)
        key = (tuple(sorted(made.numbers)), made.target)
        if key not in seen:
            seen.add(key)
            yield Problem(f"countdown-{split}-{seed}-{len(seen) - 1}", made.prompt(), made.solution)


def evaluate(expression: str) -> tuple[Fraction, tuple[int, ...]]:
    """The exact value and the sorted numbers of an expression over whole numbers with + - * / and brackets.

    Another text, a division by zero and more than `MAX_EXPRESSION_CHARS` are a ValueError.
    """
    if len(expression) > MAX_EXPRESSION_CHARS:
        raise ValueError(f"expression of {len(expression)} characters, at most {MAX_EXPRESSION_CHARS} are allowed")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError(f"not an expression: {expression!r}") from error
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return Fraction(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
        raise ValueError(f"only whole numbers, + - * / and brackets are allowed: {expression!r}")

    try:
        return value(tree), tuple(sorted(numbers))
    except ZeroDivisionError as error:
        raise ValueError(f"division by zero: {expression!r}") from error


def solutions(reference: str, *, most: int = MOST_SOLUTIONS) -> list[str]:
    """At most `most` correct expressions: the reference, then those that `steps` make of its numbers.

    Only the reference where it has more than `MOST_NUMBERS` numbers or is no expression.
    """
    try:
        target, numbers = evaluate(reference)
    except ValueError:
        return [reference]
    found = {reference: None}
    if len(numbers) <= MOST_NUMBERS:
        for text in expressions(numbers, target):
            if len(found) >= most:
                break
            found[text] = None
    return list(found)


def expressions(numbers: tuple[int, ...], target: Fraction | int) -> Iterator[str]:
    """The expressions over all of the numbers that `steps` make and that reach the target, each once or more."""
    seen: set[tuple[Term, ...]] = set()
    open_ends = [tuple(Term(n, str(n)) for n in numbers)]
    while open_ends:
        terms = tuple(sorted(open_ends.pop()))
        if terms in seen:
            continue
        seen.add(terms)
        if len(terms) == 1 and terms[0].value == target:
            yield outer(terms[0].text)
        open_ends += [take(terms, step) for step in steps(terms)]


def is_solution(expression: str, reference: str) -> bool:
    """Whether the numbers and the value are those of the reference, which is an expression or a HeadwayError."""
    try:
        expected = evaluate(reference)
    except ValueError as error:
        raise HeadwayError(f"the countdown grader needs an expression as reference answer: {error}") from error
    try:
        return evaluate(expression) == expected
    except ValueError:
        return False
