"""Prompts: a question as tokens, and the meta-prover's forced texts."""

from collections.abc import Sequence

from headway.text.tags import ThinkTags, templated
from headway.types import Message, MetaProver, TokenIds, Tokenizer

TIME_IS_UP = "\n\nTime is up.\n"
FINAL_ANSWER = "\n\n**Final Answer**\n\n\\boxed{"


def prompt_ids(tokenizer: Tokenizer, prompt: str | Sequence[Message], tags: ThinkTags) -> TokenIds:
    """The tokens of a question: through the chat template, with the opening tag if the template does not write it.

    The question is a user's turn, or a conversation that ends with one. The tokenizer adds no special tokens to those
    of the template, so there is no second BOS.
    """
    text = templated(tokenizer, prompt)
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
    tags: ThinkTags, *, suffix: str | None = None, end_suffix: str | None = None, branches: int, max_tokens: int,
    temperature: float = 1.0, top_p: float = 1.0,
) -> MetaProver:  # fmt: skip
    """The meta-prover whose suffix says that time is up, closes the thinking and opens the answer's box.

    After complete thinking, `end_suffix` only closes and opens.
    """
    suffix = TIME_IS_UP + tags.close + FINAL_ANSWER if suffix is None else suffix
    end_suffix = tags.close + FINAL_ANSWER if end_suffix is None else end_suffix
    return MetaProver(suffix, end_suffix, branches, max_tokens, temperature, top_p)
