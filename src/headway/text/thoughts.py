"""Reading a completion: where its thinking is and where its answer begins, by the tags that it writes."""

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from headway.text.answers import Extract, extract_answer
from headway.text.tags import FORMATS, ThinkTags, opening_of

# gpt-oss as its tokenizer decodes it without special tokens; no model is prompted so
BARE_HARMONY = ThinkTags("analysis", "assistantfinal")
WRITTEN = (*FORMATS.values(), BARE_HARMONY)
# patterns of formats whose tags vary, by the closing tag: opening, closing
_VARIANTS = {
    FORMATS["harmony"].close: (
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)[^<\n]*(?:<\|constrain\|>\w+)?<\|message\|>",
        r"(?:<\|(?:end|call)\|>)?(?:<\|start\|>assistant)?<\|channel\|>final[^<\n]*(?:<\|constrain\|>\w+)?<\|message\|>",
    ),
    FORMATS["gemma"].close: (r"<\|channel>(?:thought\n)?", r"<channel\|>"),
    FORMATS["granite"].close: (r"Here(?:'s| is) my thought process:", r"Here(?:'s| is) my response:"),
    BARE_HARMONY.close: (r"\Aanalysis(?=[A-Z]|(?s:.*)assistantfinal)", "assistantfinal"),
}
# what stands around an answer and is no part of it: tags of the format, and closing tags that close nothing
_BEFORE = re.compile(r"\s*(?:<\|begin_of_solution\|>|<\|START_RESPONSE\|>|<Output>|<output>)")
_AFTER = re.compile(
    r"\s*(?:<\|end_of_solution\|>|<\|END_RESPONSE\|>|</Output>|</output>|<\|return\|>|<\|end\|>|"
    + "|".join(re.escape(tags.close) for tags in WRITTEN if not tags.close[0].isalpha())
    + r")\s*\Z"
)
_OPENING, _CLOSING = "“‘«\"'`", "”’»\"'`"  # quotation marks
_ROLE = re.compile(r"(?:\s|<[|｜][^<>\n]*[|｜]>|<s>|<bos>|assistant\b)*")
_LIKE_A_TAG = re.compile(
    r"[<\[{◁]\s*\|?\s*/?\s*(?:(?:begin|end)_of_|start_|end_|/)?"
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis)\s*\|?\s*[>\]}▷]",
    re.IGNORECASE,
)


class Thought(NamedTuple):
    """Where a completion's thinking is: characters `start` to `stop`."""

    start: int
    stop: int
    answer: int | None  # where the answer begins; None while the thinking is not closed


class Written(NamedTuple):
    """A completion by the tags that it writes."""

    tags: ThinkTags
    opened: bool  # whether it opens its thinking itself
    begins: bool  # with the opening tag, special tokens and roles before it aside
    thinking: str
    answer: str | None  # None while the thinking is not closed


class _Tag(NamedTuple):
    start: int
    stop: int
    opens: bool
    in_sentence: bool  # as in "the <think> tag": it may be spoken of


def read_thought(text: str, tags: ThinkTags) -> Thought:
    """Where the thinking of a sampled completion is.

    It begins after the opening tag if the model wrote that, words before it or not, and ends at the first closing tag,
    which no later token may move. The answer follows the last one: a model may think again. Without a closing tag the
    thinking is the rest of the text, and there is no answer. Neither opened (by the prompt, the model's own tag, or a
    model that thinks without one) nor closed, there is no thinking, and all text is the answer.
    """
    opening = opening_of(tags)
    first = _patterns(tags)[1].search(text)
    before = text[: first.start()] if first else text
    found = [] if tags.open or not opening else [t for t in _tags(before, tags) if t.opens and not t.in_sentence]
    start = _after_openings(before, found)
    if first is None:
        return Thought(start, len(text), None) if start or tags.open or not opening else Thought(0, 0, 0)
    return Thought(start, first.start(), _answers(text, tags, first.end()))


def read_answer(text: str, thought: Thought, extract: Extract = extract_answer) -> str | None:
    """The answer in the text after the thinking; None if there is none or the thinking is not closed."""
    return None if thought.answer is None else extract(bare(text[thought.answer :]))


def read_written(text: str, formats: Sequence[ThinkTags]) -> Written | None:
    """A completion by the tags of the format it begins with, else of the first it has; None where it has none.

    What is before an opening tag (a BOS, words) is left out, and so are repeated tags, tags in quotation marks and
    tags within a sentence where the same thinking has others. Several thoughts are one, up to the last closing tag;
    one that is opened again and not closed has no answer.
    """
    read = [found for tags in formats if (found := _written(text, tags))]
    return next((r for r in read if r.begins), read[0] if read else None)


def unknown_tag(text: str) -> str | None:
    """The first text that looks like a think tag and is none of a format that Headway knows."""
    known = {tag.strip() for tags in FORMATS.values() for tag in tags}
    return next((m[0] for m in _LIKE_A_TAG.finditer(text) if m[0] not in known), None)


def opens_thinking(text: str) -> bool:
    """Whether a text has the opening tag of a format, not in quotation marks."""
    return any(tag.opens for tags in FORMATS.values() for tag in _tags(text, tags))


def bare(answer: str) -> str:
    """An answer without the tags that its format puts around it."""
    if opening := _BEFORE.match(answer):
        answer = answer[opening.end() :]
    while closing := _AFTER.search(answer):
        answer = answer[: closing.start()]
    return answer


@cache
def _patterns(tags: ThinkTags) -> tuple[re.Pattern[str] | None, re.Pattern[str]]:
    opening = opening_of(tags)
    opens, closes = _VARIANTS.get(tags.close, (re.escape(opening), re.escape(tags.close)))
    return re.compile(opens) if opens else None, re.compile(closes)


def _tags(text: str, tags: ThinkTags) -> list[_Tag]:
    """The tags in a text that are not in quotation marks, in their order."""
    opens, closes = _patterns(tags)
    found = [(m, True) for m in opens.finditer(text)] if opens else []
    found += [(m, False) for m in closes.finditer(text)]
    made = []
    for start, stop, opening in sorted((m.start(), m.end(), opening) for m, opening in found):
        before, after = text[max(0, start - 2) : start], text[stop : stop + 1]
        quoted = before[-1:] in _OPENING and after in _CLOSING and before and after and not before[:-1].isalnum()
        if not quoted:
            in_sentence = before[-1:] == " " and (before[0].isalnum() or before[0] == ",") and after in " .,;:!?)"
            made.append(_Tag(start, stop, opening, in_sentence))
    return made


def _after_openings(text: str, opens: Sequence[_Tag]) -> int:
    """Where the thinking begins: after the first opening tag and those that repeat it at once; 0 without one."""
    start = opens[0].stop if opens else 0
    for tag in opens[1:]:
        if not text[start : tag.start].strip():
            start = tag.stop
    return start


def _answers(text: str, tags: ThinkTags, first: int) -> int:
    """Where the answer begins, the first closing tag ending there: at the end of the text if there is none."""
    if not _paired(tags):
        return first
    _, closes, reopened = _walk(text, tags)
    return len(text) if reopened else max(first, closes[-1].stop if closes else 0)


def _paired(tags: ThinkTags) -> bool:
    """Whether the closing text is a tag, which may come again, not a text such as "The answer is"."""
    return tags.close in _VARIANTS or (bool(opening_of(tags)) and not tags.close[0].isalnum())


def _walk(text: str, tags: ThinkTags) -> tuple[list[_Tag], list[_Tag], bool]:
    """The tags that open and close thinking, and whether it is open at the end though it was closed before.

    Between two openings, tags within a sentence close only where no other does. A closing tag at the very end that
    closes nothing is none: what is before it is the answer.
    """
    found = _tags(text, tags)
    opens: list[_Tag] = []
    closes: list[_Tag] = []
    own: list[_Tag] = []
    for tag in [*found, _Tag(len(text), len(text), True, False)]:
        if not tag.opens:
            own.append(tag)
        elif not tag.in_sentence:
            own = [t for t in own if not t.in_sentence] or own
            while len(own) > 1 and not text[own[-1].stop :].strip() and text[own[-2].stop : own[-1].start].strip():
                own.pop()
            closes, own = closes + own, []
            opens.append(tag)
    opens.pop()
    if closes and closes[0].in_sentence and not opens:  # this model writes its tags so
        opens = [t for t in found if t.opens and t.start < closes[0].start]
    reopened = bool(opens and closes and opens[-1].start > closes[-1].start)
    return opens, closes, reopened


def _written(text: str, tags: ThinkTags) -> Written | None:
    """A completion by the tags of one format; None where it has none of them."""
    if not _paired(tags):
        before, closing, answer = text.partition(tags.close)
        opened = bool(tags.open) and before.lstrip().startswith(tags.open)
        thinking = before.lstrip().removeprefix(tags.open) if opened else before
        return (
            Written(tags, opened, opened, _thinking(thinking), answer if closing else None)
            if closing or opened
            else None
        )
    opens, closes, reopened = _walk(text, tags)
    opens = [t for t in opens if not closes or t.start < closes[0].start]
    if not opens and not closes:
        return None
    start, begins = _after_openings(text, opens), bool(opens and _ROLE.fullmatch(text, 0, opens[0].start))
    if not closes or reopened:
        return Written(tags, bool(opens), begins, _thinking(text[start:]), None)
    stop = closes[-1].start
    for tag in closes[-2::-1]:
        stop = stop if text[tag.stop : stop].strip() else tag.start
    return Written(tags, bool(opens), begins, _thinking(text[start:stop]), bare(text[closes[-1].stop :]))


def _thinking(text: str) -> str:
    """Thinking without the newline after its tag; none where it is blank."""
    return text.removeprefix("\n") if text.strip() else ""
