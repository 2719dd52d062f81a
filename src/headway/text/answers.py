"""The answer in a text: what stands between its last answer tags, in its last box or boxes, or all of it."""

import re
from collections.abc import Callable

BOX = "\\boxed{"
TAG = "<answer>"
FAR = 80  # characters between two boxes of one answer
NESTED = 8  # boxes in boxes that are opened

Extract = Callable[[str], str | None]

_OPENS = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|<\|begin_of_box\|>")  # the last is GLM's, with its own end
_BRACE = re.compile(r"(?<!\\)[{}]")
_CLOSES = re.compile(r"<\|end_of_box\|>")
_TAGGED = re.compile(r"<(?:final_)?answer>", re.IGNORECASE)
_UNTAGGED = re.compile(r"</(?:final_)?answer>", re.IGNORECASE)
# special tokens of any family: `<|im_end|>`, `<｜end▁of▁sentence｜>`, `</s>`, `[|endofturn|]`, `<end_of_turn>`, ...
_SPECIAL = re.compile(
    r"<[|｜]/?[A-Za-z][\w▁ :.-]+[|｜]>|\[\|[a-z]+\|\]|<(?:start|end)_of_(?:turn|utterance)>|<\|turn>|<turn\|>"
    r"|</?(?:s|bos|eos|pad|seed:eos)>|\[/?INST\]|\[E(?:OS|OT)\]"
)
# what may stand between the parts of one answer: spaces, dollars, commas, "and", "or", a label such as `x =` or `(b)`
_BETWEEN = re.compile(
    r"(?:[\s$,;&*-]|\\[()\[\],;:! ]|\\q?quad|\\\\|\\(?:text|mathrm)\s*\{\s*(?:,?\s*and|,?\s*or|,)?\s*\}|\b(?:and|or)\b"
    r"|[A-Za-z](?:_\{?\w+\}?)?\s*=|\([a-z\d]\)|\\(?:text|mathrm)\{[^{}]{,3}\}\s*=)*"
)
_BLANK = re.compile(r"(?:[\s~$.…{}]|\\(?:[ ,;:!]|q?quad|text|mathrm|[lc]?dots))*")


def extract_answer(text: str) -> str | None:
    """The answer in a text: what stands between its last answer tags, and there in its last box; None if empty.

    A box goes up to its closing brace, over any number of lines; one that is never closed, to the end of its line. An
    empty box is none. Boxes with nothing but separators between them are parts of one answer. Without tags and boxes,
    the whole text. A special token that was left in the text ends it.
    """
    tagged = [piece for part in _TAGGED.split(text)[1:] if (piece := _UNTAGGED.split(part)[0]).strip()]
    text = _as_boxes(tagged[-1] if tagged else _UNTAGGED.split(text)[0])
    text = next((piece for piece in _SPECIAL.split(text) if piece.strip()), "")
    return _in_boxes(text)


def last_box(text: str) -> str | None:
    """The content of the last box in a text that is closed, or nothing."""
    text = _as_boxes(text)
    closed = [text[start:stop] for start, stop in _boxes(text) if stop < len(text)]
    return closed[-1] if closed else None


def _as_boxes(text: str) -> str:
    """A text whose boxes of every family are written in one way."""
    return _CLOSES.sub("}", _OPENS.sub(lambda _: BOX, text))


def _in_boxes(text: str, nested: int = 0) -> str | None:
    found: list[str] = []
    rest, last = "", 0
    for start, stop in _boxes(text):
        content = text[start:stop]
        closed = stop < len(text)
        if not closed:
            content = content.strip().partition("\n")[0]
            if not content:
                return None  # cut off before its answer
        between, last = text[last : start - len(BOX)], stop + 1
        rest += between
        if _BLANK.fullmatch(content):
            continue
        content = (_in_boxes(content, nested + 1) or "") if BOX in content and nested < NESTED else content.strip()
        if found and (content == found[-1] or len(rest) > FAR or not _BETWEEN.fullmatch(rest)):
            found = []
        found.append(content)
        rest = ""
    return ", ".join(found) or (rest + text[last:]).strip() or None


def _boxes(text: str) -> list[tuple[int, int]]:
    """Where the contents of a text's boxes are, without those in another box; one that is not closed is the last."""
    found, start = [], text.find(BOX)
    while start >= 0:
        start, depth = start + len(BOX), 1
        for brace in _BRACE.finditer(text, start):
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                found.append((start, brace.start()))
                break
        else:
            return [*found, (start, len(text))]
        start = text.find(BOX, found[-1][1])
    return found


def answer_after(forced: str, text: str, extract: Extract = extract_answer) -> str | None:
    """The answer in a text that continues a forced one, which may have opened the box or the answer tag."""
    opened = max(forced.rfind(BOX), forced.rfind(TAG))
    return extract((forced[opened:] if opened >= 0 else "") + text)
