"""The rule by which DeepScaleR and MRT grade mathematics: stricter than math-verify, so that their tables can be met.

The rule is public: `grade_answer_mathd or grade_answer_sympy` of `rllm/rewards/math_utils/utils.py` (rllm-org/rllm),
whose parts come from Hendrycks' MATH and from OpenAI's PRM800K. An answer is right if its text equals the reference
after a normalization of its LaTeX, or if SymPy simplifies their difference to 0. Only the rule is taken from there;
docs/measuring.md says where this one may differ.
"""

import re
import unicodedata
from contextlib import suppress

_UNITS = (
    "degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard"  # this order
).split("|")
_SYMBOLS = {
    "pi": "pi", "infty": "inf", "cup": "u", "cdot": "*", "times": "*",
    "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "pm": "±", "in": "∈", "circ": "∘",
}  # fmt: skip
_FUNCTIONS = frozenset("sin cos tan ln log exp max min".split())
DOUBLE = "\\\\"
_BRACED = r"\{([^{}]*)\}"
_FRAC = re.compile(rf"\s*\\frac\s*{_BRACED}\s*{_BRACED}")
_ROOT = re.compile(rf"\\sqrt\s*(?:\[([^\]]*)\])?{_BRACED}")
_COMMAND = re.compile(rf"\\(?!frac|sqrt|begin|end)[A-Za-z]+\s*{_BRACED}|(?<=[\^_]){_BRACED}")
_MATRIX = re.compile(r"\\begin\{[a-z]*matrix\}(.*?)\\end\{[a-z]*matrix\}", re.DOTALL)
_EVALUATED = re.compile(r"[\w.+\-*/^()!,]*")  # what is given to SymPy's parser, which evaluates
_FORBIDDEN = re.compile(r"\^\{|\^\(|\^[0-9]+\^|\^[0-9][0-9]+|__")
_BRACKETS = "()[]"


def judge(answer: str, reference: str) -> bool:
    """Whether the rule finds the content of an answer's last box equal to the reference."""
    return _strip(answer) == _strip(reference) or _equal(_normal(reference), _normal(answer))


def _unwrapped(text: str) -> str:
    """What is in a text that is `\\text{...}` and nothing else."""
    match = re.search(r"^\\text\{(.+?)\}$", text)
    return match[1] if match else text


def _strip(text: str) -> str:
    """Hendrycks' normalization: LaTeX without sizes, spaces, units on the right, degrees and dollars."""
    text = original = _unwrapped(text.strip()).strip()
    for old, new in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
        ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(old, new)
    if text.count("\\text{ ") > 1 or text.endswith(("\\sqrt", "\\frac")):
        return original  # the rule fails at these and leaves the text
    text = text.split("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    text = "0" + text if text.startswith(".") else text
    name, equals, value = text.partition("=")
    if equals and "=" not in value and len(name) <= 2:
        text = value
    text = re.sub(r"\\sqrt(?!\{)(.)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac(?!\{)(.)(?:(\{)|(.))", lambda m: f"\\frac{{{m[1]}}}{m[2] or '{' + m[3] + '}'}", text)
    text = "\\frac{1}{2}" if text == "0.5" else text
    return re.sub(r"^(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))$", r"\\frac{\1}{\2}", text)


def _normal(text: str) -> str:
    """The text that SymPy is given: without units, dollars, percent signs, spaces and capitals."""
    text = _unwrapped(text).replace("\\%", "%").replace("\\$", "$").replace("$", "").replace("%", "")
    text = text.replace(" or ", " , ").replace(" and ", " , ")
    for word, power in (("million", 6), ("billion", 9), ("trillion", 12)):
        text = text.replace(word, f"*10^{power}")
    for unit in _UNITS:
        text = re.sub(rf"{unit}(es)?(s)? *(\^[0-9]+)?", "", text)
    text = re.sub(r"\^ *\\circ", "", text)
    text = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    text = re.sub(r",\\! *", "", text)
    number = _number(text)
    text = str(round(number)) if number is not None and _whole(number) else text
    if "\\" in text:
        text = _plain(text)
    text = re.sub(r"([0-9]) +([0-9])", r"\1+\2", re.sub(r"- *", "-", text))  # 7 3/4 is 7+3/4
    text = re.sub(r"[ {}]", "", text).lower()
    return str(round(whole)) if (whole := _integer(text)) is not None else text


def _plain(text: str) -> str:
    """LaTeX as plain text: `a/b`, `sqrt(a)`, `[a b; c d]`, letters and signs; other commands vanish."""
    text = text.replace("\\tfrac", "\\frac").replace("\\dfrac", "\\frac")
    text = _MATRIX.sub(lambda m: f"[{m[1].replace('&', ' ').replace(DOUBLE, ';')}]", text)
    text = re.sub(
        r"\\frac\s*(\w)\s*(?:(\w)|(?=\{))", lambda m: f"\\frac{{{m[1]}}}" + (f"{{{m[2]}}}" if m[2] else ""), text
    )
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    before = ""
    while text != before:
        before, text = text, _COMMAND.sub(lambda m: m[1] or m[2] or "", text)
        text = _ROOT.sub(lambda m: f"{m[1] or ''}sqrt({m[2]})", _FRAC.sub(r" \1/\2", text))
    text = re.sub(r"\\!|\\(?:left|right)(?![a-z])", "", re.sub(r"\\[,;: ]", " ", text))
    return re.sub(r"\\([A-Za-z]+)\s*|\\(.)", lambda m: m[2] or _sign(m[1]), text).strip()


def _sign(name: str) -> str:
    if name in _SYMBOLS or name in _FUNCTIONS:
        return _SYMBOLS.get(name, name)
    with suppress(KeyError):
        return unicodedata.lookup(f"Greek small letter {name}")
    return ""


def _equal(reference: str, answer: str) -> bool:
    if reference == answer:
        return True
    if not answer:
        return False
    parts, given = _parts(reference), _parts(answer)
    if len(parts) > 1 and (reference[0], reference[-1]) != (answer[0], answer[-1]):
        return False
    return len(parts) == len(given) and all(_part_equal(a, b) for a, b in zip(parts, given, strict=True))


def _part_equal(reference: str, answer: str) -> bool:
    fractions = [re.search(r"^-?[0-9]+.?/0*[1-9][0-9]*.?$", text) for text in (reference, answer)]
    if all(fractions):
        return reference == answer  # a fraction must be reduced as the reference is
    if (_integer(reference) is None) != (_integer(answer) is None):
        return False  # where the reference is an integer, so must be the answer
    return _difference_is_zero(f"({reference})-({answer})")


def _difference_is_zero(difference: str) -> bool:
    letters = set(filter(str.isalpha, difference.replace("sqrt", "").replace("frac", "")))
    if len(letters) > 2 or _FORBIDDEN.search(difference) or not _EVALUATED.fullmatch(difference):
        return False
    from sympy import simplify
    from sympy.parsing import sympy_parser as parser

    rules = (*parser.standard_transformations, parser.implicit_multiplication_application)
    try:
        return bool(simplify(parser.parse_expr(difference.replace("^", "**"), transformations=rules)) == 0)
    except Exception:  # whatever SymPy cannot parse or simplify is not equal
        return False


def _parts(text: str) -> list[str]:
    """The elements of a tuple or an interval; other texts have one."""
    text = _without_commas(text)
    inner = text[1:-1]
    if len(text) > 2 and text[0] in _BRACKETS and text[-1] in _BRACKETS and not set(inner) & set(_BRACKETS):
        return [part.strip() for part in inner.split(",")]
    return [text] if text else []


def _without_commas(text: str) -> str:
    """A text without the commas of thousands."""
    while (fewer := re.sub(r"(\d),(\d\d\d)($|\D)", r"\1\2\3", text)) != text:
        text = fewer
    return text


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(number: float) -> bool:
    return abs(number) < 1e300 and abs(number - round(number)) <= 1e-7


def _integer(text: str) -> float | None:
    """The number that a text is, if it is an integer."""
    number = _number(_without_commas(text))
    return number if number is not None and _whole(number) else None
