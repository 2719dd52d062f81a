"""When an answer is mathematically equal to a reference: the rule of the grader `math-verify`."""

import re

from headway.text.answers import BOX

# Adjacent words or a word before a colon, a unit after a number, a delimited formula, more than one line.
_WORDS = re.compile(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}|:)|\d\s+[A-Za-z]{2,}\W*$|\$|\\[(\[]|\n")
_COMMAND = re.compile(r"\\(?:text|textbf|mbox|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_E_NOTATION = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([-+]?\d{1,4})(?![\w.^])")
_POWER = r"\1 \\times 10^{\2}"


def judge_math(answer: str, reference: str) -> bool | None:
    """Whether math-verify finds the answer equal to the reference; None if it cannot read the reference.

    Both are parsed as expressions; `4.5e33` is a number. An answer in words is also searched for its number or
    formula; an expression is not, since the last number of `8n^2 + 1` is no answer. Math-verify's own timeouts are
    off: they use signals, and here the process is killed instead.
    """
    from math_verify import parse, verify

    gold = parse(f"{BOX}{_E_NOTATION.sub(_POWER, reference)}}}", parsing_timeout=None)
    if not gold:
        return None
    texts = [f"{BOX}{_E_NOTATION.sub(_POWER, answer)}}}"]
    if _WORDS.search(_COMMAND.sub(" ", answer)):
        texts.append(_E_NOTATION.sub(f"${_POWER}$", answer))
    found = (parse(text, parsing_timeout=None) for text in texts)
    return any(verify(gold, f, timeout_seconds=None) for f in found if f)
