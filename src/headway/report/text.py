"""How numbers and foreign text are written for people: estimates with their errors, and no character that hides."""

import math
import unicodedata
from typing import Any, TypeGuard

UNKNOWN = "–"
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidi, zero width, tags), surrogate, line, paragraph


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether a number of a report is there: it is NaN where nothing is known, None once it has been on disk."""
    return value is not None and not math.isnan(value)


def number(value: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """A number with that many decimals, a dash where it is unknown."""
    if not is_known(value):
        return UNKNOWN
    return f"{value:{'+' if signed else ''}z.{digits}f}".replace("-", "−")


def plus_minus(entry: dict[str, Any], digits: int = 3, *, name: str = "value", signed: bool = False) -> str:
    """An estimate with its standard error: `0.412 ± 0.018`."""
    return f"{number(entry[name], digits, signed=signed)} ± {number(entry['stderr'], digits)}"


def interval(entry: dict[str, Any], digits: int = 2, *, signed: bool = False) -> str:
    """An estimate's 95% interval: `0.37 to 0.45`."""
    low, high = entry["ci95"]
    if not is_known(low):
        return UNKNOWN
    return f"{number(low, digits, signed=signed)} to {number(high, digits, signed=signed)}"


def visible(text: str) -> str:
    r"""The text with what hides or reorders characters written out, as in `\u202e`; line ends and tabs stay."""
    written = (c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else _escape(c) for c in text)
    return "".join(written)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
