"""Options: declared once, checked wherever they come from, and looked up in tables that raise."""

import math
import operator
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from headway.types import HeadwayError

K = TypeVar("K", bound=str)
T = TypeVar("T")


class Option(NamedTuple):
    """What an annotation says of an option beside its type: its help text, and the bounds of a number."""

    help: str
    least: float | None = None
    above: float | None = None
    most: float | None = None


BOUNDS = (("at least", operator.ge), ("above", operator.gt), ("at most", operator.le))  # in the order of the fields


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of options, each declared once: `name: Annotated[type, Option(help, ...)] = default`."""

    def check(self) -> None:
        """Refuses values that cannot be used: see `check_options`."""
        check_options(self)


def declared(group: type) -> dict[str, Option]:
    """The `Option` of each field of a class that has one."""
    hints = get_type_hints(group, include_extras=True)
    return {n: m for n, hint in hints.items() for m in getattr(hint, "__metadata__", ()) if isinstance(m, Option)}


def lookup(table: Mapping[K, T], key: K, what: str) -> T:
    """The entry of a table of choices; without one, a HeadwayError that names the choices and the nearest one."""
    if key not in table:
        raise HeadwayError(f"{what} must be {_listed(list(table), key)}")
    return table[key]


def check_options(options: object, *, names: Iterable[str] | None = None) -> None:
    """A HeadwayError for a field (of all, or of `names`) of the wrong type or out of bounds; so are null and NaN."""
    hints, bounds = get_type_hints(type(options)), declared(type(options))
    for name in hints if names is None else names:
        value = getattr(options, name)
        _check_type(name, value, hints[name])
        if name not in bounds or value is None:
            continue
        _, *limits = bounds[name]
        for limit, (words, holds) in zip(limits, BOUNDS, strict=True):
            if limit is not None and not holds(value, limit):
                raise HeadwayError(f"{name} must be {words} {limit}, got {value}")


def _check_type(name: str, value: Any, hint: Any) -> None:
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
