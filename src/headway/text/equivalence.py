"""Equivalence: which answers to a problem are the same answer, so that they vote together.

Two answers are the same by their text in one form (`canonical`), as one number, or by a grader that is asked whether
one answer equals the other.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

from headway.core.votes import NO_VOTE
from headway.types import Grader, Problem

ROUNDS = 8  # distinct answers to a problem, the most frequent first, that others are compared with
MOST_CHARS = 200  # of an answer that a grader is asked about: longer ones are no expression that two traces share

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{1,40})?|[-+]?\.\d{1,40}")
_IS_NUMBER = re.compile(r"-?\d+(?:/\d+)?").fullmatch  # of a canonical text
_SPACING = re.compile(r"\\left|\\right|\\displaystyle|\\[!,;:]|[\s$]")

Item = tuple[str, str | None, float | None]  # problem, answer, reward
Key = tuple[str, bool, str]  # problem, verdict, text in one form


def canonical(text: str) -> str:
    """An answer's text in one form: without spaces, sizes, dollars and final full stop; a number as a fraction."""
    plain = _SPACING.sub("", text).replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")
    return str(Fraction(plain.replace(",", ""))) if _NUMBER.fullmatch(plain) else plain


def answer_classes(items: Sequence[Item], *, one_right: bool, same: Grader | None = None) -> list[int]:
    """The class of each answer: equivalent answers to a problem have equal numbers. Without an answer, `NO_VOTE`.

    An answer that the grader could not decide does not vote, since it is unknown if its class is correct.

    Args:
        items: Problem, answer and reward of each.
        one_right: Whether all correct answers to a problem are equivalent: where the grader compares with a reference,
            not where it checks (an expression that reaches a target).
        same: Is asked if two wrong answers that are not both numbers are equal: each problem's `ROUNDS` most frequent
            against the rest.
    """
    keys = [_key(item, one_right) for item in items]
    merged = _merged(keys, [answer or "" for _, answer, _ in items], same) if same else {}
    numbers: dict[Key, int] = {}
    return [NO_VOTE if k is None else numbers.setdefault(merged.get(k, k), len(numbers)) for k in keys]


def _key(item: Item, one_right: bool) -> Key | None:
    """Problem, verdict and text in one form: what is equal here is one answer."""
    problem, answer, reward = item
    if answer is None or reward is None:
        return None
    return (problem, reward > 0, "" if reward > 0 and one_right else canonical(answer))


def _merged(keys: Sequence[Key | None], answers: Sequence[str], same: Grader) -> dict[Key, Key]:
    """For each key whose answer the grader finds equal to that of a more frequent one, the latter's key."""
    wrote = {key: answer for key, answer in zip(keys, answers, strict=True) if key is not None}
    waiting: dict[tuple[str, bool], list[Key]] = defaultdict(list)
    for key, _ in Counter(key for key in keys if key is not None).most_common():
        if key[2] and len(wrote[key]) <= MOST_CHARS:
            waiting[key[:2]].append(key)
    stands_for: dict[Key, Key] = {}
    for _ in range(ROUNDS):
        heads = [group.pop(0) for group in waiting.values() if group]
        asked = [(h, key) for h in heads for key in waiting[h[:2]] if not (_IS_NUMBER(h[2]) and _IS_NUMBER(key[2]))]
        # as written, since an expression without its spaces may be another one
        verdicts = same.grade([(Problem(head[0], head[0], wrote[head]), wrote[key]) for head, key in asked])
        for (head, key), verdict in zip(asked, verdicts, strict=True):
            if verdict:
                stands_for[key] = head
                waiting[key[:2]].remove(key)
    return stands_for
