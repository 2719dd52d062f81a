"""Text around the tokens: chat template, think tags, forced termination, and where a token's text begins.

Prompts and suffixes are encoded here, once; what was sampled is never encoded again.
"""

import bisect
import itertools
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from headway.choices import lookup
from headway.text.answers import extract_answer
from headway.types import HeadwayError, Message, MetaProver, TokenIds, Tokenizer

TIME_IS_UP = "\n\nTime is up.\n"
FINAL_ANSWER = "\n\n**Final Answer**\n\n\\boxed{"
UNFINISHED = "\ufffd"  # what a tokenizer decodes half a character to

ThinkFormat = Literal["think", "harmony", "magistral"]


class ThinkTags(NamedTuple):
    """The texts that open and close the thinking.

    `open` is what the prompt ends with. Where it is empty the prompt does not open the thinking: the model writes the
    format's own tag, if it thinks, or (with a closing text of the user's) just starts.
    """

    open: str
    close: str


FORMATS: dict[ThinkFormat, ThinkTags] = {
    "think": ThinkTags("<think>\n", "</think>"),
    "harmony": ThinkTags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "magistral": ThinkTags("[THINK]", "[/THINK]"),
}
# What gives a format away: a token of the vocabulary, or a text in the chat template.
_SIGNS: dict[ThinkFormat, tuple[str, str]] = {
    "think": ("</think>", "<think>"),
    "harmony": ("<|channel|>", "<|channel|>"),
    "magistral": ("[/THINK]", "[THINK]"),
}
# Variables by which chat templates of models that can do both are told to think.
_SWITCHES = ("enable_thinking", "thinking")


class Decoded(NamedTuple):
    """A text, and for each token the position of its first character."""

    text: str
    offsets: tuple[int, ...]


class Thought(NamedTuple):
    """Where a completion's thinking is: characters `start` to `stop`, and where its answer begins.

    `answer` is None while the thinking is not closed.
    """

    start: int
    stop: int
    answer: int | None


def find_think_tags(
    tokenizer: Tokenizer,
    *,
    think_open: str | None,
    think_close: str | None,
    think_format: ThinkFormat | None = None,
) -> ThinkTags:
    """The think tags of a model: as given, else those of the format that its tokenizer and chat template show.

    A format is shown by its tag as one token of the vocabulary or by its tag in the chat template; the template
    decides where the vocabulary has several. `open` is what the prompt will end with, whoever writes it: the
    template's own opening counts even where `think_open` is empty.

    Raises:
        HeadwayError: the tokenizer has no chat template, no format or several are found, or the template closes the
            thinking in the prompt.
    """
    if not tokenizer.chat_template:
        raise HeadwayError(
            "this model's tokenizer has no chat template, and Headway asks problems through one; set "
            "tokenizer.chat_template (a chat_template.jinja file in the model's folder), or use the chat version of "
            "the model"
        )
    if think_close:
        tags = ThinkTags(think_open or "", think_close)
    else:
        tags = lookup(FORMATS, think_format or _detect(tokenizer), "think_format")
        tags = tags if think_open is None else tags._replace(open=think_open)
    prompt = _templated(tokenizer, "1 + 1?").rstrip()
    if prompt.endswith(tags.close.strip()):
        raise HeadwayError(
            f"this model's chat template ends the prompt with {tags.close!r}: it asks for an answer without thinking, "
            "and there is nothing to measure; use the template of the thinking mode"
        )
    opening = opening_of(tags)
    return tags._replace(open=opening) if not tags.open and opening and prompt.endswith(opening) else tags


def _detect(tokenizer: Tokenizer) -> ThinkFormat:
    template = str(tokenizer.chat_template)
    shown = [name for name, (_, text) in _SIGNS.items() if text in template]
    found = shown or [
        name for name, (token, _) in _SIGNS.items() if len(tokenizer.encode(token, add_special_tokens=False)) == 1
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{name} ({tags.open.strip()} {tags.close})" for name, tags in FORMATS.items())
    if found:
        raise HeadwayError(f"this model knows several think formats: {', '.join(found)}; say which with think_format")
    raise HeadwayError(
        f"this model has no think tags that Headway knows: neither its vocabulary nor its chat template has {known}; "
        "say what ends its thinking with --think-close (and what opens it with --think-open), e.g. "
        "--think-close 'The answer is'"
    )


def opening_of(tags: ThinkTags) -> str:
    """The opening tag as a model writes it itself; empty where no opening is known."""
    if tags.open:
        return tags.open.strip()
    return next((known.open.strip() for known in FORMATS.values() if known.close == tags.close), "")


def thinking_switches(tokenizer: Tokenizer) -> dict[str, bool]:
    """What a chat template that can ask for thinking or for none must be told, to ask for thinking."""
    return {name: True for name in _SWITCHES if re.search(rf"\b{name}\b", str(tokenizer.chat_template))}


def _templated(tokenizer: Tokenizer, prompt: str | Sequence[Message]) -> str:
    """A question through the chat template, up to where the model goes on."""
    conversation = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return tokenizer.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=False, **thinking_switches(tokenizer)
    )


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[Message], tags: ThinkTags) -> TokenIds:
    """The tokens of a question, ready for thinking: chat template, and the opening tag if the template left it out.

    The question is a user's turn, or a conversation that ends with one. Special tokens are those that the template
    writes; the tokenizer adds none, so there is never a second BOS.
    """
    text = _templated(tokenizer, prompt)
    if tags.open and not text.rstrip().endswith(tags.open.strip()):
        text += tags.open
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def question_of(prompt: str | Sequence[Message]) -> str:
    """A prompt as the text of a problem: the user's turn alone, or all turns with their roles."""
    if isinstance(prompt, str):
        return prompt
    if [m["role"] for m in prompt] == ["user"]:
        return prompt[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


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


def read_thought(text: str, tags: ThinkTags) -> Thought:
    """Where the thinking of a completion is. The prompt alone does not tell; what the model wrote does.

    - It wrote the closing tag: the thinking is what stands before the first one.
    - It did not, and the thinking was opened (by the prompt, by the model's own opening tag, or without a tag by a
      model that just starts): the thinking goes on to the end, and there is no answer.
    - Neither opened nor closed: there is no thinking, and all is answer.

    Where the prompt does not open the thinking, it begins after the opening tag that the model wrote.
    """
    opening = "" if tags.open else opening_of(tags)
    written = bool(opening) and text.lstrip().startswith(opening)
    start = text.index(opening) + len(opening) if written else 0
    closing = text.find(tags.close, start)
    if closing >= 0:
        return Thought(start, closing, closing + len(tags.close))
    if opening and not written:
        return Thought(0, 0, 0)
    return Thought(start, len(text), None)


def read_answer(text: str, thought: Thought) -> str | None:
    """The answer in what follows the thinking; None if there is none, or the thinking is not closed."""
    return None if thought.answer is None else extract_answer(text[thought.answer :])


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
