"""Numbers and foreign text in print: estimates with their errors, and no hidden characters."""

import functools
import itertools
import math
import re
import sys
import unicodedata
from typing import Any, TypeGuard

UNKNOWN = "–"
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidi, zero width, tags), surrogate, line, paragraph
# letters and marks without a glyph: joiners, fillers, variation selectors (Unicode's Default_Ignorable)
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether a number of a report is known: an unknown one is NaN, and None when read from disk."""
    return value is not None and not math.isnan(value)


def known(**numbers: float | None) -> dict[str, float | None]:
    """Numbers as JSON and tables hold them: None where one is unknown."""
    return {name: float(x) if is_known(x) else None for name, x in numbers.items()}


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with so many digits after the point; a dash where it is unknown."""
    if not is_known(value):
        return UNKNOWN
    return f"{value:{'+' if signed else ''}z.{digits}f}".replace("-", "−")


def digits_of(entry: dict[str, Any], digits: int) -> int:
    """The digits after the point with which the standard error has two that count; `digits` without an error."""
    stderr = entry.get("stderr")
    return min(6, max(0, 1 - math.floor(math.log10(stderr)))) if is_known(stderr) and stderr > 0 else digits


def plus_minus(entry: dict[str, Any], digits: int = 3, *, name: str = "value", signed: bool = False) -> str:
    """An estimate with its standard error, rounded by it: `0.412 ± 0.018`, `148 ± 12`."""
    digits = digits_of(entry, digits)
    return f"{number(entry[name], digits, signed=signed)} ± {number(entry['stderr'], digits)}"


def interval(entry: dict[str, Any], digits: int = 3, *, signed: bool = False) -> str:
    """An estimate's 95% interval, rounded by its standard error: `0.377 to 0.447`."""
    low, high = entry["ci95"]
    if not is_known(low):
        return UNKNOWN
    digits = digits_of(entry, digits)
    return f"{number(low, digits, signed=signed)} to {number(high, digits, signed=signed)}"


def visible(text: str) -> str:
    r"""The text with invisible and reordering characters escaped, as in `\u202e`; newlines and tabs stay."""
    return _hidden().sub(lambda found: _escape(found[0]), text)


@functools.cache
def _hidden() -> re.Pattern[str]:
    """A pattern for one character that `visible` escapes."""
    escaped = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in HIDDEN and c not in "\n\t"]
    # consecutive characters have the same distance to their place
    runs = [[c for _, c in run] for _, run in itertools.groupby(enumerate(escaped), lambda at: ord(at[1]) - at[0])]
    spans = "".join(f"{_escape(run[0])}-{_escape(run[-1])}" for run in runs)
    return re.compile(f"[{spans}{BLANK}]")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
