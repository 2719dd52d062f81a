"""Numbers as answers write them: a rational number from a text, and the texts of a rational number."""

import re
from fractions import Fraction

PLACES = 8  # of a decimal number

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{1,40})?|\.\d{1,40}"
_FRACTION = r"\\[dt]?frac(?:\{(?P<above>-?\d{1,40})\}\{(?P<below>\d{1,40})\}|(?P<digits>\d\d))"
_RATIO = r"(?P<over>\d{1,40})/(?P<under>\d{1,40})"
_POWER = r"(?P<base>\d{1,4})\^(?:\{(?P<exponent>\d\d?)\}|(?P<digit>\d))"
_NUMBER = re.compile(rf"(?P<sign>[-+]?)(?:{_FRACTION}|{_RATIO}|{_POWER}|(?P<decimal>{_DECIMAL}))(?P<percent>\\?%)?")
_THIN = re.compile(
    r"\\[!,;:]|\{(?=,\})|(?<=\{,)\}|^\$|\$$"
)  # spaces within a number, braces around its commas, dollars


def rational(text: str) -> Fraction | None:
    r"""The number that a text is: `1,234.50`, `-.5`, `1/2`, `\frac{-1}{2}`, `\frac12`, `2^{10}`, `50\%`; else None."""
    if not (match := _NUMBER.fullmatch(_THIN.sub("", text.strip()))):
        return None
    part = match.groupdict()
    if part["decimal"]:
        above, below = Fraction(part["decimal"].replace(",", "")), 1
    elif part["base"]:
        above, below = Fraction(part["base"]) ** int(part["exponent"] or part["digit"]), 1
    else:
        above = Fraction(part["above"] or part["over"] or part["digits"][0])
        below = int(part["below"] or part["under"] or part["digits"][1])
    if not below:
        return None
    number = above / below / (100 if part["percent"] else 1)
    return -number if part["sign"] == "-" else number


def ways_to_write(number: Fraction) -> list[str]:
    r"""The usual texts of a number, each once, the same for every text it may come from.

    With and without commas and the zero before the point; decimal numbers also with two places; what is not whole also
    as a fraction and, if it has a decimal form, as a percentage.
    """
    minus, size = "-" if number < 0 else "", abs(number)
    plain = [minus + text for text in _decimals(size)]
    if size.denominator == 1:
        return plain
    above, below = size.numerator, size.denominator
    fractions = [f"{minus}\\{frac}{{{above}}}{{{below}}}" for frac in ("frac", "dfrac")]
    if minus:
        fractions += [f"\\{frac}{{-{above}}}{{{below}}}" for frac in ("frac", "dfrac")]
    percentages = [f"{minus}{text}{sign}" for text in _decimals(100 * size)[:1] for sign in ("\\%", "%")]
    return [*fractions, f"{minus}{above}/{below}", *plain, *percentages]


def _decimals(number: Fraction) -> list[str]:
    """A number of at most `PLACES` places as decimals, the shortest first; none if it has more."""
    exact = next((k for k in range(PLACES + 1) if (number * 10**k).denominator == 1), None)
    if exact is None:
        return []
    found = []
    for places in dict.fromkeys([exact, *([1] if exact == 0 else []), max(exact, 2)]):
        whole, part = divmod(int(number * 10**places), 10**places)
        point = f".{part:0{places}d}" if places else ""
        found += [f"{whole}{point}", f"{whole:,}{point}", *([point] if point and not whole else [])]
    return list(dict.fromkeys(found))
