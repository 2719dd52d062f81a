"""A policy that follows a script with known success probabilities; to try and to test everything.

The thinking has as many episodes as the script has values less one, three paragraphs each. Forced to answer after j of
them, the policy is correct with probability values[j]; after complete thinking with the last.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from random import Random

from headway.types import Completion, Continuation, Continuations, Problem, Prompts, SamplingParams, TokenIds

CLOSE = "</think>"
FIRST = "Okay\n\nThis is step {}.\n\nHm.\n\n"
EPISODE = "Wait\n\nThis is step {}.\n\nHm.\n\n"


class Characters:
    """A tokenizer of one token a character, with a chat template that opens the thinking."""

    chat_template = "<user>{content}<assistant><think>"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Code points."""
        return [ord(c) for c in text]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of code points."""
        return "".join(map(chr, token_ids))

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool, **switches: bool
    ) -> str:
        """The last message as a prompt."""
        return self.chat_template.format(content=conversation[-1]["content"])


class ScriptedEngine:
    """The scripted policy on some problems; `values` has the success probability at each boundary, by problem id.

    A prompt that asks none of the problems raises ValueError.
    """

    def __init__(self, problems: Sequence[Problem], values: Mapping[str, Sequence[float]]) -> None:
        self.tokenizer, self.values = Characters(), values
        self._problems = {problem.prompt: problem for problem in problems}

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """Samples by the script."""
        each = zip(prompts, seeds, strict=True)
        return [[self._complete(p.ids, params, Random(f"{seed} {s}")) for s in range(params.n)] for p, seed in each]

    def logprobs(
        self, prompts: Prompts, continuations: Continuations, *, ends: tuple[str, ...], temperature: float = 1.0
    ) -> list[list[float]]:
        """The log-probabilities by the script: after a forced suffix there are two possible answers."""
        each = zip(prompts, continuations, strict=True)
        return [self._logprobs(prompt.ids, some) for prompt, some in each]

    def _logprobs(self, prompt: TokenIds, continuations: Sequence[Continuation]) -> list[float]:
        problem, thinking, p = self._read(prompt)
        probability = {problem.answer: p, f"not {problem.answer}": 1 - p} if CLOSE in thinking else {}
        texts = [
            None if c.rest else self.tokenizer.decode(c.token_ids, skip_special_tokens=False) for c in continuations
        ]
        likely = [probability.get(text or "", 0.0) for text in texts]  # no token is longer than a character
        return [math.log(chance) if chance > 0 else -math.inf for chance in likely]

    def _read(self, prompt: TokenIds) -> tuple[Problem, str, float]:
        """The problem of a prompt, its thinking, and the success probability: here if forced, else at the end."""
        text = self.tokenizer.decode(prompt, skip_special_tokens=False)
        question, opened, thinking = text.partition("<assistant><think>")
        problem = self._problems.get(question.removeprefix("<user>"))
        if problem is None or not opened:
            raise ValueError(f"the scripted engine has no script for this prompt: {text[:80]!r}")
        values = self.values[problem.id]
        return problem, thinking, values[min(thinking.count("step "), len(values) - 1) if CLOSE in thinking else -1]

    def _complete(self, prompt: TokenIds, params: SamplingParams, rng: Random) -> Completion:
        problem, thinking, p = self._read(prompt)
        correct = rng.random() < p
        answer = problem.answer if correct else f"not {problem.answer}"
        steps = range(thinking.count("step "), len(self.values[problem.id]) - 1)
        more = "".join((EPISODE if j else FIRST).format(j + 1) for j in steps)
        text = f"{answer}}}" if CLOSE in thinking else f"{more}{CLOSE}\n\n\\boxed{{{answer}}}"
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        logprob, most = math.log(p if correct else 1 - p), params.max_tokens
        return Completion(ids[:most], "stop" if len(ids) <= most else "length", logprob)


def ramps(problems: Sequence[Problem], *, episodes: int = 6) -> dict[str, list[float]]:
    """A script for each problem: values that rise evenly between two that are a hash of its id."""
    ends = {p.id: sorted(byte / 255 for byte in hashlib.sha256(p.id.encode()).digest()[:2]) for p in problems}
    return {name: [a + (b - a) * j / episodes for j in range(episodes + 1)] for name, (a, b) in ends.items()}
