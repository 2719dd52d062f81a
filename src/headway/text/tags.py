"""Think tags: the texts that open and close a model's thinking."""

import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from headway.choices import lookup
from headway.types import HeadwayError, Message, Tokenizer

RENDER_SECONDS = 10.0  # that a chat template may take
LONGEST = 1000  # characters of a closing text


class ThinkTags(NamedTuple):
    """The texts that open and close the thinking.

    `open` is what the prompt ends with. Where it is empty, the model writes the format's own tag or, with a closing
    text of the user's, starts to think without a tag.
    """

    open: str
    close: str


# by what models write; `headway.text.thoughts` has the variants of those whose tags vary
FORMATS: dict[str, ThinkTags] = {
    "think": ThinkTags("<think>\n", "</think>"),
    "harmony": ThinkTags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "magistral": ThinkTags("[THINK]", "[/THINK]"),
    "openthoughts": ThinkTags("<|begin_of_thought|>\n\n", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    "seed": ThinkTags("<seed:think>", "</seed:think>"),
    "kimi": ThinkTags("◁think▷", "◁/think▷"),
    "cohere": ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),
    "gemma": ThinkTags("<|channel>thought\n", "<channel|>"),
    "apertus": ThinkTags("<|inner_prefix|>", "<|inner_suffix|>"),
    "thinking": ThinkTags("<thinking>\n", "</thinking>"),
    "thought": ThinkTags("<thought>\n", "</thought>"),  # EXAONE Deep
    "marco": ThinkTags("<Thought>\n", "</Thought>"),
    "reasoning": ThinkTags("<reasoning>\n", "</reasoning>"),  # by prompts that ask for it
    "granite": ThinkTags("Here is my thought process:\n", "Here is my response:"),
}
# what shows a format: a token of the vocabulary, or a text in the chat template
_SIGNS = {name: (tags.close, tags.open.strip()) for name, tags in FORMATS.items()}
_SIGNS["harmony"] = ("<|channel|>", "<|channel|>")
_SWITCHES = ("enable_thinking", "thinking")  # variables with which chat templates switch thinking on
if TYPE_CHECKING:
    ThinkFormat = str
else:
    ThinkFormat = Literal[tuple(FORMATS)]


def find_think_tags(
    tokenizer: Tokenizer,
    *,
    think_open: str | None = None,
    think_close: str | None = None,
    think_format: ThinkFormat | None = None,
) -> ThinkTags:
    """The think tags of a model: as given, else those of the format that its tokenizer and chat template show.

    A format is detected by its tag in the chat template, else by its tag as one token of the vocabulary. An opening
    tag that the template writes counts even where `think_open` is empty.

    Raises:
        HeadwayError: the tokenizer has no chat template, no format or several are detected, or the template closes the
            thinking in the prompt.
    """
    if not tokenizer.chat_template:
        raise HeadwayError(
            "this model's tokenizer has no chat template; set tokenizer.chat_template (a chat_template.jinja file in "
            "the model's folder), or use the chat version of the model"
        )
    if think_close:
        if len(think_close) > LONGEST:
            raise HeadwayError(f"think_close has {len(think_close)} characters, at most {LONGEST} are looked for")
        tags = ThinkTags(think_open or "", think_close)
    else:
        tags = lookup(FORMATS, think_format or _detect(tokenizer), "think_format")
        tags = tags if think_open is None else tags._replace(open=think_open)
    prompt = templated(tokenizer, "1 + 1?").rstrip()
    if prompt.endswith(tags.close.strip()):
        raise HeadwayError(
            f"this model's chat template ends the prompt with {tags.close!r}: it asks for an answer without thinking, "
            "and there is nothing to measure; use the template of the thinking mode"
        )
    opening = opening_of(tags)
    return tags._replace(open=opening) if not tags.open and opening and prompt.endswith(opening) else tags


def _detect(tokenizer: Tokenizer) -> ThinkFormat:
    template = str(tokenizer.chat_template)
    tokens = {name: tokenizer.encode(token, add_special_tokens=False) for name, (token, _) in _SIGNS.items()}
    found = [name for name, (_, text) in _SIGNS.items() if text in template]
    found = found or [name for name, ids in tokens.items() if len(ids) == 1]
    if len(found) == 1:
        return found[0]
    if found:
        raise HeadwayError(f"this model knows several think formats: {', '.join(found)}; say which with think_format")
    known = ", ".join(f"{name} ({tags.open.strip()} {tags.close})" for name, tags in FORMATS.items())
    raise HeadwayError(
        f"no think tags detected: neither the model's vocabulary nor its chat template has {known}; give the text "
        "that closes its thinking with --think-close (and the one that opens it with --think-open), e.g. "
        "--think-close 'The answer is'"
    )


def opening_of(tags: ThinkTags) -> str:
    """The opening tag as the model itself writes it; empty where none is known."""
    if tags.open:
        return tags.open.strip()
    return next((known.open.strip() for known in FORMATS.values() if known.close == tags.close), "")


def thinking_switches(tokenizer: Tokenizer) -> dict[str, bool]:
    """The variables that switch thinking on in a chat template that has such a switch."""
    return {name: True for name in _SWITCHES if re.search(rf"\b{name}\b", str(tokenizer.chat_template))}


def templated(tokenizer: Tokenizer, prompt: str | Sequence[Message]) -> str:
    """A question through the chat template, up to where the model's turn begins.

    Raises:
        HeadwayError: the template, a program that comes with the model, fails or takes more than `RENDER_SECONDS`.
    """
    conversation = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    options = {"add_generation_prompt": True, "tokenize": False, **thinking_switches(tokenizer)}
    try:
        with _within(RENDER_SECONDS):
            return tokenizer.apply_chat_template(conversation, **options)
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise HeadwayError(
            f"the model's chat template fails ({said}); mend its chat_template.jinja, or use another model"
        ) from error


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer, in the main thread of a system with timers; elsewhere no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    late = TimeoutError(f"it takes more than {seconds:.0f} seconds")
    passed: list[bool] = []

    def stop(*_: object) -> None:
        passed.append(True)
        raise late

    before = signal.signal(signal.SIGALRM, stop)
    running = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception:
        if passed:  # Jinja may have made another error of it
            raise late from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, *running)
        signal.signal(signal.SIGALRM, before)
