"""Offsets: the text of tokens, and where each token's text begins."""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from headway.types import Tokenizer

UNFINISHED = "\ufffd"  # what a tokenizer decodes an incomplete character to


class Decoded(NamedTuple):
    """A text, and for each token the position of its first character."""

    text: str
    offsets: tuple[int, ...]


def token_at(offsets: Sequence[int], position: int) -> int:
    """The first token whose text begins at or after a position."""
    return bisect.bisect_left(offsets, position)


def decode_with_offsets(tokenizer: Tokenizer, token_ids: Sequence[int]) -> Decoded:
    """The text of tokens, special tokens included, and the offset of each token.

    Tokens that share one character (bytes of it) begin where it begins; offsets never decrease.
    """
    text = tokenizer.decode(token_ids, skip_special_tokens=False)
    alone = {t: tokenizer.decode([t], skip_special_tokens=False) for t in set(token_ids)}
    pieces = [alone[t] for t in token_ids]
    if "".join(pieces) != text:
        return _decode_in_context(tokenizer, token_ids)
    return Decoded(text, tuple(itertools.accumulate((len(p) for p in pieces[:-1]), initial=0)) if pieces else ())


def _decode_in_context(tokenizer: Tokenizer, token_ids: Sequence[int], *, window: int = 8) -> Decoded:
    """Text and offsets where the tokens' own texts do not add up: parts of characters, context-dependent spaces.

    Decodes a sliding window; a token's text is what it adds to the decoding so far. After an incomplete character
    (U+FFFD), the token continues the character unless it decodes the same alone. The window moves on at each complete
    character, and after `window` tokens without one.
    """

    def decode(first: int, last: int) -> str:
        return tokenizer.decode(token_ids[first:last], skip_special_tokens=False)

    parts: list[str] = []
    offsets: list[int] = []
    # `before` decodes the tokens from `start`; its first `base` characters, of the tokens up to `mark`, are in `parts`
    start, mark, base, done, before = 0, 0, 0, 0, ""
    for i in range(len(token_ids)):
        now, at = decode(start, i + 1), len(before)
        unfinished = before.endswith(UNFINISHED)
        beside = not unfinished or now == before + decode(i, i + 1)
        if not beside:
            same = (x == y for x, y in zip(before, now, strict=False))
            at = min(sum(itertools.takewhile(bool, same)), at - 1)
        offsets.append(done + at - base)
        if not unfinished or (beside and i - mark >= window):
            parts.append(before[base:])
            done += len(before) - base
            start, mark = mark, i
            base, now = len(decode(start, mark)), decode(start, i + 1)
        before = now
    # a character of several tokens begins with the first of them
    not_decreasing = list(itertools.accumulate(reversed(offsets), min))[::-1]
    return Decoded("".join([*parts, before[base:]]), tuple(not_decreasing))
