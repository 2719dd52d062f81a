"""Text around the tokens: chat template, think tags, forced termination, and where a token's text begins.

Prompts and suffixes are encoded here, once; what was sampled is never encoded again.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from headway.types import HeadwayError, Message, MetaProver, TokenIds, Tokenizer

TIME_IS_UP = "\n\nTime is up.\n"
FINAL_ANSWER = "\n\n**Final Answer**\n\n\\boxed{"
UNFINISHED = "\ufffd"  # what a tokenizer decodes half a character to


class ThinkTags(NamedTuple):
    """The texts that open and close the thinking; `open` may be empty (the model just starts)."""

    open: str
    close: str


class Decoded(NamedTuple):
    """A text, and for each token the position of its first character."""

    text: str
    offsets: tuple[int, ...]


def find_think_tags(tokenizer: Tokenizer, *, think_open: str | None, think_close: str | None) -> ThinkTags:
    """The think tags of a model: as given, else `<think>` and `</think>` where its tokenizer or template has them.

    Raises:
        HeadwayError: the tokenizer has no chat template, or no tags were given and none are known.
    """
    if not tokenizer.chat_template:
        raise HeadwayError(
            "this model's tokenizer has no chat template, and Headway asks problems through one; set "
            "tokenizer.chat_template (a chat_template.jinja file in the model's folder), or use the chat version of "
            "the model"
        )
    if think_close:
        return ThinkTags(think_open or "", think_close)
    one_token = len(tokenizer.encode("</think>", add_special_tokens=False)) == 1
    if one_token or "<think>" in str(tokenizer.chat_template):
        return ThinkTags("<think>\n" if think_open is None else think_open, "</think>")
    raise HeadwayError(
        "this model has no think tags that Headway knows: '</think>' is not in its vocabulary or chat template; say "
        "what ends its thinking with --think-close (and what opens it with --think-open), e.g. "
        "--think-close 'The answer is'"
    )


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[Message], tags: ThinkTags) -> TokenIds:
    """The tokens of a question, ready for thinking: chat template, and the opening tag if the template left it out.

    The question is a user's turn, or a conversation that ends with one.
    """
    conversation = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    if tags.open and not text.rstrip().endswith(tags.open.strip()):
        text += tags.open
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def meta_prover(
    tags: ThinkTags, *, suffix: str | None = None, end: str | None = None, branches: int, max_tokens: int
) -> MetaProver:
    """The meta-prover that says time is up, closes the thinking and opens the answer's box.

    After a thought that ended by itself it only closes and opens: `end`.
    """
    return MetaProver(
        suffix=TIME_IS_UP + tags.close + FINAL_ANSWER if suffix is None else suffix,
        end=tags.close + FINAL_ANSWER if end is None else end,
        branches=branches,
        max_tokens=max_tokens,
    )


def answer_part(text: str, tags: ThinkTags) -> str | None:
    """What follows the first closing tag, or None if the thinking is not closed."""
    _, closing, answer = text.partition(tags.close)
    return answer if closing else None


def token_at(offsets: Sequence[int], position: int) -> int:
    """The first token whose text begins at or after a position."""
    return bisect.bisect_left(offsets, position)


def decode_with_offsets(tokenizer: Tokenizer, token_ids: Sequence[int]) -> Decoded:
    """The text of tokens, specials included, and where each token's text begins.

    Tokens that share one character (bytes of it) begin where it begins; offsets never fall.
    """
    text = tokenizer.decode(token_ids, skip_special_tokens=False)
    pieces = [tokenizer.decode([t], skip_special_tokens=False) for t in token_ids]
    if "".join(pieces) != text:
        return _decode_in_context(tokenizer, token_ids)
    return Decoded(text, tuple(itertools.accumulate((len(p) for p in pieces[:-1]), initial=0)) if pieces else ())


def _decode_in_context(tokenizer: Tokenizer, token_ids: Sequence[int], *, window: int = 8) -> Decoded:
    """Text and offsets where tokens alone do not add up to it: parts of characters, context-dependent spaces.

    What a token adds is the difference of two decodings that start at the same earlier token. Where the first ends
    in an unfinished character, the token goes on with it unless both parts stand side by side in the second. The
    start moves up with the finished characters, and after `window` tokens without one with the unfinished.
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
    # a character that several tokens make begins with the first of them
    never_falling = list(itertools.accumulate(reversed(offsets), min))[::-1]
    return Decoded("".join([*parts, before[base:]]), tuple(never_falling))
