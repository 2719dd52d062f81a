"""Multiple choice: which letter an answer chooses, from A to J."""

import re

_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|(?:text|math)(?:bf|it|rm|sf)|boldsymbol|bf|rm)\s*\{([^{}]*)\}")
_NO_TEXT = re.compile(r"\\[ ,;:!()\[\]]|\\q?quad|[~${}*_`]")
_BARE = re.compile(r"\(?([A-J])\)?[.)]?")
_LETTER = r"(?:\(([A-J])\)|(?<![\w'])([A-J])(?![\w'’]))"
# `C`, `(C)`, `C.`, `C) 14`, `Option C: the third`, `(C) 14`; not `C - 1`, `A triangle`, `AC`
_LABEL = re.compile(
    r"(?:(?:the|final|correct|my|answer|option|choice|is)\b[\s:]*)*"
    r"(?:\(([A-J])\)|([A-J])(?=$|[.):,]|\s*[–—]|\s+-\s+[a-z]|\s+[\d\\]))[.):]*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_SAID = re.compile(
    r"\b(?i:answer|choice|option)\b[^.\n]{0,40}?(?i:\bis\b|\bbe\b|:|=)\s*(?i:(?:option|choice|letter)\s*)?" + _LETTER
    + r"|(?i:\b(?:choose|choosing|select|pick|go with)\s*(?:(?:option|choice|letter)\s*)?)" + _LETTER
    + r"|" + _LETTER + r"(?=\s+(?:is|must be|should be)\s+(?:the\s+)?(?:correct|right|best|answer))"
)  # fmt: skip
_DENIED = re.compile(r"\bnot\b|n't|n’t|\bwrong\b|\bincorrect\b|\bmistake|\bexcept\b|\bnever\b", re.IGNORECASE)
_ANOTHER = re.compile(r"[\s.)]*(?:,|/|&|;|\band\b|\bor\b)[\s,]*(?:and|or)?\s*(?:option|choice)?\s*\(?[A-J]\b(?!['’])")


def is_choice(reference: str) -> bool:
    """Whether a reference answer is a letter of a choice."""
    return bool(_BARE.fullmatch(_plain(reference)))


def choice_of(answer: str) -> str | None:
    """The letter that an answer chooses: what it says its answer is, last, or else its label; None if not just one."""
    text = _plain(answer)
    if bare := _BARE.fullmatch(text.upper()):
        return bare[1]
    said = [m for m in _SAID.finditer(text) if not _DENIED.search(text, _sentence(text, m.start()), m.end())]
    if said:
        return None if _ANOTHER.match(text, said[-1].end()) else next(filter(None, said[-1].groups()))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in (text, *lines[-1:], *lines[:1]):
        label = _LABEL.fullmatch(line)
        letter = label and (label[1] or label[2])
        if label and letter and letter.isupper():
            return None if _ANOTHER.match(label[3]) else letter
    return None


def _sentence(text: str, position: int) -> int:
    return max(text.rfind(end, 0, position) for end in (".", "\n", ";")) + 1


def _plain(text: str) -> str:
    """A text without LaTeX and Markdown around its words."""
    while (inner := _WRAPPED.sub(r" \1 ", text)) != text:
        text = inner
    lines = _NO_TEXT.sub(" ", text).strip().splitlines()
    return "\n".join(" ".join(line.split()) for line in lines)
