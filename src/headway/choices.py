"""Options: declared once, checked wherever they come from, and looked up in tables that raise."""

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from headway.types import HeadwayError

K = TypeVar("K", bound=str)
T = TypeVar("T")


class Option(NamedTuple):
    """What an annotation says of an option beside its type: its help text, and the bounds of its number."""

    help: str
    least: float | None = None
    above: float | None = None
    most: float | None = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of options, each declared once: `name: Annotated[type, Option(help, ...)] = default`."""

    def check(self) -> None:
        """Refuses values that cannot be used.

        Raises:
            HeadwayError: names the option, what was got and what is expected.
        """
        check_options(self)


def declared(group: type) -> dict[str, Option]:
    """The `Option` of each field of a class that has one."""
    hints = get_type_hints(group, include_extras=True)
    return {n: m for n, hint in hints.items() for m in getattr(hint, "__metadata__", ()) if isinstance(m, Option)}


def lookup(table: Mapping[K, T], key: K, what: str) -> T:
    """The entry of a table of choices.

    Raises:
        HeadwayError: there is no such entry; names the choices and the nearest one.
    """
    if key not in table:
        raise HeadwayError(f"{what} must be {_listed(list(table), key)}")
    return table[key]


def check_options(options: object, *, names: Iterable[str] | None = None) -> None:
    """Refuses values that are not of their declared type or out of bounds: an unknown choice, null, NaN, a text.

    Args:
        options: An instance of a class with annotated fields.
        names: The fields to check; all by default.

    Raises:
        HeadwayError: names the option, what was got and what is expected.
    """
    hints, bounds = get_type_hints(type(options)), declared(type(options))
    for name in hints if names is None else names:
        value = getattr(options, name)
        _check(name, value, hints[name])
        if name in bounds and value is not None:
            _check_bounds(name, value, bounds[name])


def _check_bounds(name: str, value: Any, bounds: Option) -> None:
    for words, bound, holds in (
        ("at least", bounds.least, bounds.least is None or value >= bounds.least),
        ("above", bounds.above, bounds.above is None or value > bounds.above),
        ("at most", bounds.most, bounds.most is None or value <= bounds.most),
    ):
        if not holds:
            raise HeadwayError(f"{name} must be {words} {bound}, got {value}")


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
