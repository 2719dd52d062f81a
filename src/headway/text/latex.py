"""Plain text as LaTeX: what people and models type for mathematics, in the one notation that parsers read."""

import re
import unicodedata
from fractions import Fraction

_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "₀₁₂₃₄₅₆₇₈₉"
_LEVEL = str.maketrans(_RAISED + _LOWERED, "0123456789+-n0123456789")
_SIGNS = {
    **dict.fromkeys("−–—‐‑‒", "-"), "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/",
    "⁄": "/", "∕": "/",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∞": r"\infty ", "°": r"^{\circ}", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "√": "sqrt", "∛": "cbrt", "∖": r"\setminus ", "ℝ": r"\mathbb{R}",
}  # fmt: skip
_NAMES = "pi|theta|alpha|beta|phi|exp|ln|log|sinh|cosh|tanh|(?:arc)?(?:sin|cos|tan)|sec|csc|cot|infty|gcd|lcm"
_NAME = re.compile(rf"\\(?:operatorname|mathrm|text)\{{({_NAMES})\}}|(?<![\\A-Za-z])({_NAMES})(?![A-Za-z])")
_ROOT = re.compile(r"\\?(sqrt|cbrt)\s*(?=[({\dA-Za-z\\])")
_E_NOTATION = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([-+]?\d{1,4})(?![\w.^])")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX*]\s*10\s*\^\s*(?=[-+{\d])")
_EXPONENT = re.compile(r"\^\s*([-+]\d+(?:\.\d+)?|\d{2,})(?![\d.])")
_REPEATING = re.compile(r"(?<![\w.])(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|\((\d+)\))(?!\d)")
_GOES_ON = re.compile(r"(?<![\w.])(\d*)\.(\d*?)(?:(\d)\3{2,}|(\d{2,6}?)\4+)\s*(?:\.\.\.|\\[lc]?dots)")
_DECIMAL_GOES_ON = re.compile(r"(\d*\.\d+)\s*(?:\.\.\.|\\[lc]?dots)\s*$")
_ELLIPSIS = re.compile(r"\.\.\.|\\[lc]?dots(?:[bcmio])?(?![A-Za-z])")
_MIXED = re.compile(r"(?<![\w.^/}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\w.])")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:\s|\\[ ,;:]|\{,\})+\d{3})+(?![\d])")
_APART = re.compile(r"(\\[A-Za-z]+\s*\d+\s+\d+)|(?<=\d)\s+(?=\d)")
_UPRIGHT = re.compile(r"\\(?:mathrm|text|textrm|rm)\s*\{([ei])\}")
_TWO_SIGNS = re.compile(r"([-+])\s*([-+])(?=\s*[\d.A-Za-z\\(])")
_BOLD = re.compile(r"(?<![\w)*])(\*\*|__)(?=\S)(.+?)(?<=\S)\1(?![\w(*])", re.DOTALL)
_MARKS = re.compile(r"^\s*(?:#+|>)\s+|`+|^\s*\*(?=[^*\s][^*]*\*\s*$)|(?<=[^*\s])\*\s*$", re.MULTILINE)


def unmarked(text: str) -> str:
    """A text without Markdown: bold and italic letters, headings, quotations, code."""
    return _MARKS.sub("", _BOLD.sub(r"\2", text)).strip()


def as_latex(text: str) -> str:
    r"""A text with signs, roots, names of functions and numbers as LaTeX has them; LaTeX itself stays as it is.

    `3√7`, `x²`, `pi/3`, `exp(4)`, `2**3`, `–6`, `∞`, `30°`; `1.2e-5` and `1.2x10^-5`; repeating decimals
    (`0.\overline{3}`, `0.(3)`, `0.333...`), mixed numbers (`1 2/3`), thousands after a thin space.
    """
    text = re.sub(f"[{_RAISED}]+", lambda m: f"^{{{m[0].translate(_LEVEL)}}}", text)
    text = re.sub(f"[{_LOWERED}]+", lambda m: f"_{{{m[0].translate(_LEVEL)}}}", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda m: f" {unicodedata.normalize('NFKC', m[0])}", text)
    text = unicodedata.normalize("NFKC", "".join(_SIGNS.get(c, c) for c in text)).replace("⁄", "/")
    text = re.sub("[α-ω]", lambda m: f"\\{unicodedata.name(m[0]).split()[-1].lower()} ", text)
    text = _with_roots(_NAME.sub(lambda m: f"\\{m[1] or m[2]}", text.replace("**", "^")))
    text = _GOES_ON.sub(_repeating, _REPEATING.sub(_repeating, text))
    text = _ELLIPSIS.sub(r"\\text{dots}", _DECIMAL_GOES_ON.sub(r"\1", text))
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", _E_NOTATION.sub(r"\1 \\times 10^{\2}", text))
    text = _THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = _APART.sub(lambda m: m[1] or ", ", _UPRIGHT.sub(r"\1", text)).rstrip(" .,;:")
    text = re.sub(r"(?<=\d)\s*\*?\s*i\b", " i", text)  # math-verify takes a single i for the imaginary unit
    text = _EXPONENT.sub(r"^{\1}", _TIMES_TEN.sub(r" \\times 10^", text))
    return _TWO_SIGNS.sub(lambda m: "+" if m[1] == m[2] else "-", text)


def _repeating(match: re.Match[str]) -> str:
    """The fraction of a repeating decimal."""
    whole, before, *repeated = match.groups()
    block = next(filter(None, repeated))
    head = Fraction(int((whole or "0") + before), 10 ** len(before))
    number = head + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(before))
    return f"\\frac{{{number.numerator}}}{{{number.denominator}}}"


def _with_roots(text: str) -> str:
    """Roots with braces: `sqrt(7)`, `\\sqrt(7)` and `sqrt7` are `\\sqrt{7}`."""
    while match := next((m for m in _ROOT.finditer(text) if not re.match(r"\\sqrt\s*[{\\]", text[m.start() :])), None):
        head = r"\sqrt" + ("[3]" if match[1] == "cbrt" else "")
        rest, size = text[match.end() :], 1
        if rest[0] in "({":
            size, inner = _bracket(rest)
        else:
            inner = re.match(r"\d+|\\?[A-Za-z]+|.", rest)[0]  # type: ignore[index]
            size = len(inner)
        text = f"{text[: match.start()]}{head}{{{inner}}}{rest[size:]}"
    return text


def _bracket(text: str) -> tuple[int, str]:
    """How many characters a bracket at the beginning of a text takes, and what is in it."""
    opening, closing, depth = text[0], {"(": ")", "{": "}"}[text[0]], 0
    for i, character in enumerate(text):
        depth += (character == opening) - (character == closing)
        if not depth:
            return i + 1, text[1:i]
    return len(text), text[1:]
