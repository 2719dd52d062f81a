"""Forced answers: the text that makes the meta-prover answer at each boundary of a trace, and the prompt it makes."""

from collections.abc import Callable
from typing import NamedTuple

from headway.core.segment import boundaries
from headway.procedures.sample import TraceKey
from headway.text.answers import BOX
from headway.text.thoughts import opens_thinking
from headway.types import Completion, End, Episode, MetaProver, Prompt, TokenIds, Tokenizer, Trace

Segmenter = Callable[[Trace], list[Episode]]


class Forced(NamedTuple):
    """One boundary of a trace, `position` tokens into its completion, and what is forced there: a text and its tokens.

    `base` is the trace's prompt and completion: the prompts of its boundaries share it.
    """

    trace: Trace
    base: TokenIds
    boundary: int
    position: int
    text: str
    ids: TokenIds

    @property
    def key(self) -> TraceKey:
        """That of the trace."""
        return self.trace.key

    @property
    def prompt(self) -> Prompt:
        """The trace's prompt, its tokens before the boundary, and the forced ones."""
        return Prompt(self.base, len(self.trace.prompt_ids) + self.position, self.ids)

    @property
    def tokens(self) -> int:
        """The budget of an answer here without the answer's own tokens."""
        return self.position + len(self.ids)


def forced_answers(trace: Trace, prover: MetaProver, tokenizer: Tokenizer, segmenter: Segmenter) -> list[Forced]:
    """What is forced at each boundary of a trace: the suffix, or the end suffix after complete thinking.

    Only the meta-prover's texts are encoded.
    """
    texts = prover.suffix, prover.end_suffix
    suffix, end = ((text, tuple(tokenizer.encode(text, add_special_tokens=False))) for text in texts)
    base = trace.prompt_ids + trace.token_ids
    return [
        Forced(trace, base, j, e, *(end if trace.closed and e == trace.thinking else suffix))
        for j, e in enumerate(boundaries(segmenter(trace)))
    ]


def end_of(forced: str, completion: Completion, text: str) -> End:
    """How a forced answer ended; `text` is that of the completion, special tokens included.

    An answer whose box is closed ended there, whatever follows it.
    """
    if opens_thinking(text):
        return "reopened"
    depth = 1
    for character in text if BOX in forced else "":
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return "stop"
    return completion.stop
