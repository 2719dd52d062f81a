"""The vocabulary as texts: which tokens end an answer."""

from bisect import bisect_left
from functools import lru_cache
from typing import Any

from headway.types import Continuation

LAST = chr(0x10FFFF)  # after every other character


class Vocabulary:
    """The text of each of the first `rows` tokens, as it continues a text.

    A token alone may have another text: some tokenizers drop the space that a text begins with.
    """

    def __init__(self, tokenizer: Any, rows: int, end_ids: list[int]) -> None:
        *_, before = tokenizer.encode("x", add_special_tokens=False)
        ids = range(min(rows, len(tokenizer)))
        options: dict[str, Any] = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        begin, *texts = tokenizer.batch_decode([[before], *([before, i] for i in ids)], **options)
        self._texts = sorted((text.removeprefix(begin), i) for text, i in zip(texts, ids, strict=True))
        self._end_ids = [i for i in end_ids if i < rows]
        self.closing = lru_cache(maxsize=2**16)(self._closing)

    def _closing(self, rest: str, ends: tuple[str, ...]) -> tuple[int, ...]:
        """The tokens that end a continuation with this rest, the end of the text among them, in order."""
        continuation = Continuation((), rest)
        first, last = bisect_left(self._texts, (rest, -1)), bisect_left(self._texts, (rest + LAST, -1))
        found = [i for text, i in self._texts[first:last] if continuation.ended_by(text, ends)]
        return tuple(sorted({*found, *(() if rest else self._end_ids)}))
