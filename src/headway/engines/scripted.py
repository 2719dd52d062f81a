"""A policy that follows a script with known success probabilities; to try and to test everything.

A thought has as many episodes as the script has values less one, three paragraphs each. Forced to answer after j of
them, the policy is right with probability values[j]; a thought that ends by itself answers with the last.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Literal

from headway.types import Completion, Problem, Prompt, SamplingParams, TokenIds

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
    """The scripted policy on some problems.

    Args:
        problems: What it knows.
        values: The success probability at each boundary, by problem id; at least one each.
    """

    def __init__(self, problems: Sequence[Problem], values: Mapping[str, Sequence[float]]) -> None:
        self.tokenizer = Characters()
        self.values = values
        self._problems = {problem.prompt: problem for problem in problems}

    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Samples by the script.

        Raises:
            ValueError: a prompt asks none of the problems.
        """
        return [
            [self._complete(prompt.ids, params, Random(f"{seed} {s}")) for s in range(params.n)]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def logprobs(
        self,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[TokenIds]],
        *,
        ends: tuple[str, ...],
        temperature: float = 1.0,
    ) -> list[list[float]]:
        """The logarithms of the probabilities in the script; after a forced suffix it says one of two answers.

        Raises:
            ValueError: a prompt asks none of the problems.
        """
        return [
            [self._logprob(prompt.ids, self.tokenizer.decode(c, skip_special_tokens=False)) for c in some]
            for prompt, some in zip(prompts, continuations, strict=True)
        ]

    def _logprob(self, prompt: TokenIds, answer: str) -> float:
        problem, thought = self._read(prompt)
        p = self._chance(problem, thought)
        chance = {problem.answer: p, f"not {problem.answer}": 1 - p}.get(answer, 0.0)
        return math.log(chance) if CLOSE in thought and chance > 0 else -math.inf

    def _read(self, prompt: TokenIds) -> tuple[Problem, str]:
        """The problem that a prompt asks, and the thought so far."""
        text = self.tokenizer.decode(prompt, skip_special_tokens=False)
        question, opened, thought = text.partition("<assistant><think>")
        problem = self._problems.get(question.removeprefix("<user>"))
        if problem is None or not opened:
            raise ValueError(f"the scripted engine has no script for this prompt: {text[:80]!r}")
        return problem, thought

    def _chance(self, problem: Problem, thought: str) -> float:
        """The success probability after a thought: where it stands, if it was forced to stop, else at its end."""
        values = self.values[problem.id]
        return values[min(thought.count("step "), len(values) - 1) if CLOSE in thought else -1]

    def _complete(self, prompt: TokenIds, params: SamplingParams, rng: Random) -> Completion:
        problem, thought = self._read(prompt)
        p = self._chance(problem, thought)
        told, last = thought.count("step "), len(self.values[problem.id]) - 1
        forced = CLOSE in thought
        right = rng.random() < p
        answer = problem.answer if right else f"not {problem.answer}"
        more = "".join((EPISODE if j else FIRST).format(j + 1) for j in range(told, last))
        says = f"{answer}}}" if forced else f"{more}{CLOSE}\n\n\\boxed{{{answer}}}"
        ids = tuple(self.tokenizer.encode(says, add_special_tokens=False))
        stop: Literal["stop", "length"] = "stop" if len(ids) <= params.max_tokens else "length"
        return Completion(ids[: params.max_tokens], stop, math.log(p if right else 1 - p))


def ramps(problems: Sequence[Problem], *, episodes: int = 6) -> dict[str, list[float]]:
    """A script for each problem: values that rise evenly, from and to where a hash of its id says."""

    def ramp(problem: Problem) -> list[float]:
        low, high = sorted(byte / 255 for byte in hashlib.sha256(problem.id.encode()).digest()[:2])
        return [low + (high - low) * j / episodes for j in range(episodes + 1)]

    return {problem.id: ramp(problem) for problem in problems}
