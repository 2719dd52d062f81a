"""Options: checked against their type and choices wherever they come from, and looked up in tables that raise."""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from headway.types import HeadwayError

K = TypeVar("K", bound=str)
T = TypeVar("T")


def lookup(table: Mapping[K, T], key: K, what: str) -> T:
    """The entry of a table of choices.

    Raises:
        HeadwayError: there is no such entry; names the choices and the nearest one.
    """
    if key not in table:
        raise HeadwayError(f"{what} must be {_listed(list(table), key)}")
    return table[key]


def check_options(options: object, *, names: Iterable[str] | None = None) -> None:
    """Refuses option values that are not of their declared type: a choice that is none, null, NaN, text for a number.

    Args:
        options: An instance of a class with annotated fields.
        names: The fields to check; all by default.

    Raises:
        HeadwayError: names the option, what was got and what is expected.
    """
    hints = get_type_hints(type(options))
    for name in hints if names is None else names:
        _check(name, getattr(options, name), hints[name])


def _check(name: str, value: Any, hint: Any) -> None:
    choices = [choice for part in (hint, *get_args(hint)) if get_origin(part) is Literal for choice in get_args(part)]
    optional = type(None) in get_args(hint)
    if choices and not (value in choices or (value is None and optional)):
        raise HeadwayError(f"{name} must be {_listed(choices, value)}")
    plain = float(value) if isinstance(value, float) else value  # NumPy's is one
    try:
        msgspec.convert(plain, hint, strict=True)
    except msgspec.ValidationError as error:
        raise HeadwayError(f"{name}: {str(error)[:1].lower()}{str(error)[1:]} ({value!r:.60})") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise HeadwayError(f"{name} must be a finite number, got {value}")


def _listed(choices: list[Any], got: Any) -> str:
    near = get_close_matches(got, map(str, choices), n=1) if isinstance(got, str) else []
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return f"one of {', '.join(map(str, choices))}; got {got!r:.60}{meant}"
