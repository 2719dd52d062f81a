"""Text around the tokens: chat template, think tags, forced termination, and where a token's text begins.

Prompts and suffixes are encoded here, once; what was sampled is never encoded again.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from headway.types import HeadwayError, MetaProver, TokenIds, Tokenizer

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
    if one_token or "</think>" in str(tokenizer.chat_template):
        return ThinkTags("<think>\n" if think_open is None else think_open, "</think>")
    raise HeadwayError(
        "this model has no think tags that Headway knows: '</think>' is not in its vocabulary or chat template; say "
        "what ends its thinking with --think-close (and what opens it with --think-open), e.g. "
        "--think-close 'The answer is'"
    )


def prompt_ids(tokenizer: Tokenizer, prompt: str, tags: ThinkTags) -> TokenIds:
    """The tokens of a question, ready for thinking: chat template, and the opening tag if the template left it out."""
    conversation = [{"role": "user", "content": prompt}]
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
        pieces = _pieces_in_context(tokenizer, token_ids)
        text = "".join(pieces)
    return Decoded(text, tuple(itertools.accumulate((len(p) for p in pieces[:-1]), initial=0)) if pieces else ())


def _pieces_in_context(tokenizer: Tokenizer, token_ids: Sequence[int], *, window: int = 8) -> list[str]:
    """The text that each token adds to those before it, "" while a character is unfinished.

    Each is the difference of two decodings that start at the same earlier token, so context-dependent spaces come out
    right; after `window` tokens an unfinished character is taken as it is.
    """
    pieces, start, read = [], 0, 0
    for i in range(len(token_ids)):
        before = tokenizer.decode(token_ids[start:read], skip_special_tokens=False)
        now = tokenizer.decode(token_ids[start : i + 1], skip_special_tokens=False)
        last = i + 1 == len(token_ids)
        if now.endswith(UNFINISHED) and not last and i - read < window:
            pieces.append("")
            continue
        pieces.append(now[len(before) :])
        start, read = read, i + 1
    return pieces
