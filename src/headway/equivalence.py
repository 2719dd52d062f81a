"""Equivalence: which answers to a problem are the same answer, so that they vote together.

Not by their verdict: two wrong answers may differ. By their text in one form (`canonical`), as one number, or, where
forms of mathematics need it, by a grader that is asked whether one answer equals the other.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

from headway.types import Grader, Problem
from headway.votes import NO_VOTE

ROUNDS = 16  # distinct answers to a problem, the most frequent first, that others are compared with

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}")
_SPACING = re.compile(r"\\left|\\right|\\displaystyle|\\[!,;:]|[\s$]")

Item = tuple[str, str | None, float | None]  # problem, answer, reward
Key = tuple[str, bool, str]  # problem, verdict, text in one form


def canonical(text: str) -> str:
    """An answer's text in one form: without spaces, sizes, dollars and final full stop; a number as a fraction."""
    plain = _SPACING.sub("", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")
    return str(Fraction(plain.replace(",", ""))) if _NUMBER.fullmatch(plain) else plain


def answer_classes(items: Sequence[Item], *, one_right: bool, same: Grader | None = None) -> list[int]:
    """The class of each answer: equal numbers are equivalent answers to the same problem. `NO_VOTE` is none.

    An answer that the grader could not decide does not vote, since nobody knows if its class is right.

    Args:
        items: Problem, answer and reward of each.
        one_right: Whether a problem has one right answer, so that all right ones are equivalent. It has where the
            grader compares with a reference, and not where it checks (an expression that reaches a target).
        same: A grader that may be asked if two wrong answers are equal; the texts that are no numbers go through it,
            each problem's `ROUNDS` most frequent against the rest.
    """
    keys = [_key(item, one_right) for item in items]
    merged = _merged(keys, same) if same else {}
    numbers: dict[Key, int] = {}
    return [NO_VOTE if k is None else numbers.setdefault(merged.get(k, k), len(numbers)) for k in keys]


def _key(item: Item, one_right: bool) -> Key | None:
    """Problem, verdict and text in one form: what is equal here is one answer."""
    problem, answer, reward = item
    if answer is None or reward is None:
        return None
    return (problem, reward > 0, "" if reward > 0 and one_right else canonical(answer))


def _merged(keys: Sequence[Key | None], same: Grader) -> dict[Key, Key]:
    """The key that stands for each key that is equal to a more frequent one by the grader."""
    counts: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for key in keys:
        if key is not None:
            counts[key[:2]][key[2]] += 1
    waiting = {group: [text for text, _ in texts.most_common() if text] for group, texts in counts.items()}
    stands_for: dict[Key, Key] = {}
    for _ in range(ROUNDS):
        asked: list[tuple[tuple[str, bool], str, str]] = []
        for group, texts in waiting.items():
            if texts:
                head, *rest = texts
                waiting[group] = rest
                asked += [(group, head, text) for text in rest if not (_is_number(head) and _is_number(text))]
        if not asked:
            break
        verdicts = same.grade([(Problem(group[0], group[0], head), text) for group, head, text in asked])
        for (group, head, text), verdict in zip(asked, verdicts, strict=True):
            if verdict:
                stands_for[*group, text] = (*group, head)
                waiting[group].remove(text)
    return stands_for


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(?:/\d+)?", text) is not None
