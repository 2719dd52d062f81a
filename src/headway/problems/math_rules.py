"""When an answer is mathematically equal to a reference: the rule of the grader `math-verify`."""

import re
from functools import cache, lru_cache
from math import floor
from typing import Any

from headway.text.answers import BOX
from headway.text.latex import as_latex, unmarked
from headway.text.letters import choice_of, is_choice
from headway.text.numbers import rational

DECIMALS = 6  # that numbers agree to; significant digits where a power of ten is below the smallest
SMALLEST_POWER = -3
MOST_DECIMALS = 10_000

# Adjacent words or a word before a colon, a unit after a number, a delimited formula, more than one line.
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}|:)|\d\s+[A-Za-z]{2,}\W*$|\$|\\[(\[]|\n")
_SPACES = re.compile(r"^\s+|\s+$|(?<!\w)\s+|\s+(?!\w)")
_COMMAND = re.compile(r"\\(?:text|textbf|mbox|mathrm|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_STATED = re.compile(
    r"\b(?:answer|result|value|solution)\b[^\n.]{0,60}?(?:\bis\b|\bare\b|:|=)[:\s]*([^\n]+?)[.\s]*$", re.I | re.M
)
_TEXT = r"\\(?:text|textrm|mathrm|mbox|rm|mathsf)\s*\{\s*(?!(?:and|or)\b|million|billion|base|dots)~?[^{}]*\}"
_POWER = r"(?:\^\s*(?:\{-?\d\}|-?\d))?"
_GAP = r"(?:\\[ ,;:!]|~|[\s/*]|\\cdot|\\times)*"
_SET_UNIT = re.compile(rf"(?<=[\w)}}!\]]){_GAP}{_TEXT}{_POWER}(?:{_GAP}{_TEXT}{_POWER})*\s*\.?$")
_NUMERAL = re.compile(
    r"(?<![\w\\])\(?([\dA-F]*\d[\dA-F]*|[A-F]+(?=_\{?16))\)?_\s*(?:\{([^{}]*(?:\{[^{}]*\})?)\}|(\d))"
)
_GREATER = r"\s*(>=?|\\g(?:eq?|t)(?:slant)?(?![a-z]))\s*"
_FALLING = re.compile(rf"([^<>=]+?){_GREATER}([^<>=]+?){_GREATER}([^<>=]+)")  # 3 > x > 1
_RELATION = re.compile(r"[<>]|\\(?:[lg](?:eq?|t)|neq?)(?:slant)?(?![a-z])")
_OR = re.compile(r",?\s*(?:\\(?:text|mathrm)\s*\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z])|\\(?:lor|vee)(?![a-z]))\s*")
_BASES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def judge_math(answer: str, reference: str) -> bool | None:
    """Whether math-verify finds the answer equal to the reference; None if it cannot read the reference.

    Equal texts and integers need no parser. Where the reference is a letter of a choice, the answer must choose it.
    An answer in words is also searched for what it says the answer is, and for its number or formula; an expression
    is not, since the last number of `8n^2 + 1` is no answer. Math-verify's own timeouts are off: they use signals,
    and here the process is killed instead.
    """
    answer, reference = unmarked(answer), unmarked(reference)
    if (verdict := _at_once(answer, reference)) is not None:
        return verdict
    if is_choice(reference):
        return choice_of(answer) == choice_of(reference)
    both = bool(_NUMERAL.search(answer) and _NUMERAL.search(reference))
    if not (gold := _expression(reference, both)):
        return None
    if _WORDS.search(_COMMAND.sub(" ", answer)):  # first: as one expression, words are many letters to solve for
        stated = _STATED.findall(answer)[-1:]
        if any(_at_once(s.strip("$ "), reference) or _equal(gold, _expression(s, both)) for s in stated):
            return True
        if _equal(gold, _in_words(answer)):
            return True
    return _equal(gold, _expression(answer, both))


def _at_once(answer: str, reference: str) -> bool | None:
    """What needs no parser: equal texts are equal, and two integers are equal or not."""
    if _SPACES.sub("", answer) == _SPACES.sub("", reference):
        return True
    a, b = rational(answer), rational(reference)
    if a is None or b is None or "%" in answer + reference:
        return None
    return a == b or (False if a.denominator == b.denominator == 1 else None)


@lru_cache(maxsize=4096)
def _expression(text: str, numerals: bool) -> list[Any]:
    """A text as one expression. Letters are variables; a unit is what is set as text, or a word after a number.

    `numerals`: numbers with a base are numbers of their own, equal if digits and base are.
    """
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    if numerals:
        text = _NUMERAL.sub(_numeral, text)
    latex = as_latex(_without_unit(text))
    if match := _FALLING.fullmatch(latex):
        largest, first, middle, second, least = match.groups()
        latex = f"{least}{_rising(second)}{middle}{_rising(first)}{largest}"
    if _OR.search(latex) and all(_RELATION.search(part) for part in _OR.split(latex)):
        return _union([_expression(part, False) for part in _OR.split(latex)])
    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    config = LatexExtractionConfig(normalization_config=rules)
    return parse(f"{BOX}{latex}}}", [config], parsing_timeout=None)


def _union(parts: list[list[Any]]) -> list[Any]:
    """The numbers for which one of several relations holds."""
    from sympy import Union

    try:
        return [Union(*(part[0].as_set() for part in parts))]
    except (AttributeError, IndexError, NotImplementedError, ValueError):  # no relation in one variable
        return []


def _in_words(text: str) -> list[Any]:
    """The number or formula that math-verify finds in words."""
    from math_verify import parse

    return parse(text, parsing_timeout=None)


def _without_unit(text: str) -> str:
    return _bare_unit().sub("", _SET_UNIT.sub("", text.strip().strip("$")))


@cache
def _bare_unit() -> re.Pattern[str]:
    """Math-verify's units of three letters and more, after a number or a lone letter, and a few shorter ones."""
    from latex2sympy2_extended.math_normalization import units

    words = "|".join(sorted((u for u in units if u.isalpha() and len(u) > 2), key=len, reverse=True))
    after = r"(?:(?<=[\d)}\]])\s*|(?<=[^A-Za-z\\][A-Za-z])\s+)"
    return re.compile(rf"{after}(?:(?:{words}|cm|mm|km|kg|mg|ft|hr|lb|dollar)s?|inches|feet)\s*\.?$")


def _rising(sign: str) -> str:
    return r" < " if sign in (">", r"\gt") else r" \le "


def _numeral(match: re.Match[str]) -> str:
    digits, named, digit = match.groups()
    base = re.sub(r"\\text|[{}\s]|base", "", named or digit)
    base = str(_BASES.index(base) + 2) if base in _BASES else base
    return str(int(digits, 36) * 1000 + int(base)) if base.isdigit() else match[0]


def _equal(gold: list[Any], found: list[Any]) -> bool:
    """Whether math-verify finds two parsed answers equal, numbers to `DECIMALS`, the smaller ones relative."""
    from math_verify import verify

    if not found:
        return False
    least = min((power for one in (*gold, *found) for power in _powers(one)), default=0)
    decimals = min(DECIMALS - 1 - least, MOST_DECIMALS) if least < SMALLEST_POWER else DECIMALS
    return bool(verify(
        gold, found, float_rounding=decimals, numeric_precision=15 + decimals - DECIMALS,
        allow_set_relation_comp=True, timeout_seconds=None,
    ))  # fmt: skip


def _powers(parsed: Any) -> list[int]:
    """The powers of ten of the numbers that a parsed answer is, or has as its parts, without zero."""
    from sympy import Expr, Float, N, log

    if not isinstance(parsed, Expr):
        return [power for part in getattr(parsed, "args", ()) for power in _powers(part)]
    size = abs(N(parsed, 15)) if parsed.is_number else None
    return [floor(float(log(size, 10).evalf()))] if isinstance(size, Float) and 0 < size < 1 else []
