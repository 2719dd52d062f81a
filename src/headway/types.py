"""The nouns, and the two protocols behind which models and graders stand.

Axes, as suffixes of names and in array annotations: P problems, G traces of a problem (a group), K episodes,
J = K + 1 boundaries, B branches at a boundary, T tokens, C budgets.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

TokenIds = tuple[int, ...]
Message = dict[str, str]  # one turn of a conversation: `role` and `content`
End = Literal["stop", "length", "reopened"]  # of a forced answer: by itself, cut, or in thinking again
Outcome = Literal["correct", "wrong", "no_answer", "undecided", "truncated"]


class HeadwayError(ValueError):
    """An input cannot be used; the text says what was got, what was expected and what to do."""


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question with a reference answer."""

    id: str
    prompt: str
    answer: str

    def __post_init__(self) -> None:
        for field in ("id", "prompt", "answer"):
            if not getattr(self, field).strip():
                raise ValueError(f"a problem needs a non-empty '{field}'")


class Episode(NamedTuple):
    """One piece of the thinking, as a token range of the completion."""

    start: int
    stop: int


class SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to sample; the names are vLLM's. A temperature of 0 is greedy."""

    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.n < 1 or self.max_tokens < 1:
            raise ValueError(f"n and max_tokens must be at least 1, got {self.n} and {self.max_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"need temperature >= 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}")


class Prompt(msgspec.Struct, frozen=True):
    """What a model is given: the first `stop` tokens of `base`, then `tail`; at least one token."""

    base: TokenIds  # one for all prompts of a trace, so that an engine computes it only once
    stop: int
    tail: TokenIds = ()

    def __post_init__(self) -> None:
        if not 0 <= self.stop <= len(self.base):
            raise ValueError(f"a prompt stops within its base of {len(self.base)} tokens, got stop {self.stop}")
        if not len(self):
            raise ValueError("a prompt needs at least one token")

    @classmethod
    def of(cls, token_ids: TokenIds) -> "Prompt":
        """A prompt of these tokens alone."""
        return cls(token_ids, len(token_ids))

    @property
    def ids(self) -> TokenIds:
        """All its tokens."""
        return self.base[: self.stop] + self.tail

    def __len__(self) -> int:
        return self.stop + len(self.tail)


Prompts = Sequence[Prompt]


class Continuation(NamedTuple):
    """What may follow a prompt: tokens, and then one token whose text begins with `rest` and an end.

    An end is a text, spaces aside, such as `}`. Without a rest, the end of the completion is an end as well.
    """

    token_ids: TokenIds
    rest: str = ""

    def ended_by(self, text: str, ends: tuple[str, ...]) -> bool:
        """Whether the text of the token after `token_ids` begins with the rest and one of these ends."""
        return text.startswith(self.rest) and text[len(self.rest) :].lstrip(" ").startswith(ends)


Continuations = Sequence[Sequence[Continuation]]  # [i][k]: continuation k of prompt i


class Completion(NamedTuple):
    """The tokens that an engine returned for one prompt, without the one that ends the text, and why they ended.

    `logprob` is the natural logarithm of the completion's probability under the distribution it was sampled from
    (after temperature and top-p), the token that ended it included; None where the engine does not know it.
    """

    token_ids: TokenIds
    stop: Literal["stop", "length"]
    logprob: float | None = None


class Keyed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of one trace (or chain) of a problem."""

    problem_id: str
    index: int

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the trace in a run."""
        return self.problem_id, self.index

    @property
    def name(self) -> str:
        """The trace as messages and pages name it."""
        return f"{self.problem_id}/{self.index}"


class Trace(Keyed, frozen=True):
    """A policy's completion for a problem, with its thinking and its outcome.

    `text[offsets[t]:]` begins with token t of `token_ids`. The thinking is tokens 0 to `thinking`; the closing tag and
    the answer follow. A trace that is not `closed` ran into its budget while it thought (`stop` is "length") or ended
    without closing its thinking; it has no answer. `reward` is 1, 0, or None if the grader could not decide.
    """

    prompt_ids: TokenIds
    token_ids: TokenIds
    text: str
    offsets: tuple[int, ...]
    thinking: int
    closed: bool
    stop: Literal["stop", "length"]
    answer: str | None = None
    reward: float | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.token_ids) or not 0 <= self.thinking <= len(self.token_ids):
            raise ValueError(
                f"trace {self.name}: {len(self.token_ids)} tokens, {len(self.offsets)} offsets, {self.thinking} "
                "tokens of thinking; expected one offset a token and thinking within the tokens"
            )

    @property
    def thought(self) -> str:
        """The text of the thinking."""
        return self.text if self.thinking == len(self.token_ids) else self.text[: self.offsets[self.thinking]]

    @property
    def outcome(self) -> Outcome:
        """What became of the trace."""
        if not self.closed and self.stop == "length":
            return "truncated"
        if self.reward is None:
            return "undecided"
        if self.reward > 0:
            return "correct"
        return "wrong" if self.answer else "no_answer"


class Branch(Keyed, frozen=True):
    """One completion by the meta-prover from a boundary of a trace, with its reward.

    `tokens` is its budget: the thinking before the boundary, the forced suffix and the `sampled` tokens, without the
    prompt. `logprob` is that of its completion `token_ids`; `known`: it wrote a form that counts in a `Score`.
    """

    boundary: int
    branch: int
    text: str
    tokens: int
    sampled: int
    answer: str | None = None
    reward: float | None = None
    logprob: float | None = None
    token_ids: TokenIds = ()
    known: bool = False
    end: End | None = None  # None in runs of older versions


class Score(Keyed, frozen=True):
    """The likelihood of the known correct answers at a boundary of a trace, under the meta-prover; nothing is sampled.

    `probability` is summed over their `forms`, None where none is known.
    """

    boundary: int
    tokens: int  # the budget of the likeliest
    forms: int
    probability: float | None


class BranchHead(Keyed, frozen=True, forbid_unknown_fields=False):
    """What numbers need of a branch, without text and token ids."""

    boundary: int
    branch: int
    sampled: int
    reward: float | None = None


class Attempt(Keyed, frozen=True):
    """One round of a chain in the linearized evaluation: its text, and its answer if that is in a box."""

    round: int
    text: str
    tokens: int  # all completion tokens of the chain so far, including those outside the window
    answer: str | None = None
    reward: float | None = None


Graded = TypeVar("Graded", Trace, Branch, Attempt)  # what has an answer and its reward


class MetaProver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The policy forced to answer: by `suffix` within its thinking, by `end_suffix` after complete thinking.

    The paper's mu(. | x, z_{0:j}) asks for a whole solution, this one for the bare answer (docs/deviations.md).
    """

    suffix: str
    end_suffix: str
    branches: int = 4  # answers sampled at a boundary
    max_tokens: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ("\n",)

    def sampling(self) -> SamplingParams:
        """The sampling of one boundary's branches."""
        return SamplingParams(self.max_tokens, self.branches, self.temperature, self.top_p, self.stop)


@runtime_checkable
class Tokenizer(Protocol):
    """What Headway asks of a tokenizer: a transformers tokenizer is one."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids."""

    def apply_chat_template(
        self, conversation: list[Message], *, add_generation_prompt: bool, tokenize: bool, **switches: bool
    ) -> str:
        """A conversation as the text that the model expects; `switches` are variables that the template names."""


@runtime_checkable
class Engine(Protocol):
    """Samples completions of prompts. It knows tokens, never problems, episodes or rewards."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The policy's own tokenizer."""

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """`out[i][s]` is sample s of prompt i: `len(out) == len(prompts)` and `len(out[i]) == params.n`.

        A prompt's samples depend on its tokens and its own seed alone. Prompts of one base stand side by side.
        """


@runtime_checkable
class Likelihood(Protocol):
    """An engine that can also evaluate given text."""

    def logprobs(
        self, prompts: Prompts, continuations: Continuations, *, ends: tuple[str, ...], temperature: float = 1.0
    ) -> list[list[float]]:
        """`out[i][k]` is the log-probability that prompt i is followed by its continuation k, ended by one of `ends`.

        An engine may return -inf for a continuation that is negligible beside another of its prompt.
        """


@runtime_checkable
class Grader(Protocol):
    """Decides which texts answer their problems."""

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[float | None]:
        """For each (problem, answer): 1.0 correct, 0.0 wrong, None (never 0.0) where it cannot be decided."""
