"""Known answers: the ways to write a correct answer, as the tokens that a forced answer would have."""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from headway.text.answers import BOX, answer_after
from headway.types import Grader, HeadwayError, MetaProver, Problem, TokenIds, Tokenizer

Candidates = Callable[[Problem], list[str]]

_WHOLE = re.compile(r"[-+]?\d+")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")


class Forms(NamedTuple):
    """The known correct answers after one forced text: their tokens and their texts."""

    token_ids: tuple[TokenIds, ...]
    answers: tuple[str, ...]

    def wrote(self, token_ids: TokenIds, answer: str | None) -> bool:
        """Whether a completion is one of those whose probability is counted: a form's tokens, and then its end."""
        forms = zip(self.token_ids, self.answers, strict=True)
        return any(answer == text and token_ids[: len(form)] == form for form, text in forms)


def written(problem: Problem) -> list[str]:
    """The reference answer as models may write it: numbers with and without commas, fractions in three ways."""
    forms = [reference := problem.answer.strip()]
    if _WHOLE.fullmatch(plain := reference.replace(",", "")):
        forms += [plain, f"{int(plain):,}"]
    if match := _FRACTION.fullmatch(reference):
        above, below = match.groups()
        forms += [f"\\frac{{{above}}}{{{below}}}", f"\\dfrac{{{above}}}{{{below}}}", f"{above}/{below}"]
    return list(dict.fromkeys(forms))


def ends_of(prover: MetaProver, forced: str) -> tuple[str, ...]:
    """What ends an answer after a forced text, apart from the end of the completion: its box closed, or a new line."""
    boxed = BOX in forced
    return (*(["}"] if boxed else []), *(["\n"] if boxed or "\n" in prover.stop else []))


def known_forms(tokenizer: Tokenizer, prover: MetaProver, forced: str, problem: Problem, grader: Grader) -> Forms:
    """The correct answers to a problem as tokens after a forced text: the candidates that the grader calls correct.

    The candidates are those that `grader.candidates` lists for the problem, or else `written`. A form is encoded
    together with the forced text, or alone if the tokenizer merges across the boundary. Forms that do not round-trip
    through the tokenizer, that would be read as another answer, or that leave no token for the end within
    `prover.max_tokens` are dropped.

    Raises:
        HeadwayError: the prover does not sample from the policy's own distribution, so a likelihood is not the
            probability of its answer.
    """
    if prover.top_p < 1 or prover.temperature <= 0:
        raise HeadwayError(
            f"likelihood values need branches sampled at top-p 1 and a temperature above 0, got {prover.top_p} and "
            f"{prover.temperature}; use values 'branches'"
        )
    before = tokenizer.encode(forced, add_special_tokens=False)
    # after a box an answer follows at once, after words it follows a space
    spaces = ("",) if BOX in forced or not forced or forced[-1].isspace() else (" ", "")
    candidates: Candidates = getattr(grader, "candidates", written)
    texts = [space + text for text in candidates(problem) for space in spaces]
    texts = [text for text in texts if answer_after(forced, text) == text.strip()]
    verdicts = grader.grade([(problem, text.strip()) for text in texts])
    found: dict[TokenIds, str] = {}
    for text, verdict in zip(texts, verdicts, strict=True):
        together = tokenizer.encode(forced + text, add_special_tokens=False)
        merged = together[: len(before)] != before
        ids = tuple(tokenizer.encode(text, add_special_tokens=False) if merged else together[len(before) :])
        round_trips = tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()
        if verdict == 1.0 and round_trips and 0 < len(ids) < prover.max_tokens:
            found.setdefault(ids, text.strip())
    return Forms(tuple(found), tuple(found.values()))


class KnownAnswers:
    """The known correct answers to problems after each forced text, each found once."""

    def __init__(self, tokenizer: Tokenizer, prover: MetaProver, grader: Grader) -> None:
        self._find = cache(lambda problem, forced: known_forms(tokenizer, prover, forced, problem, grader))

    def forms(self, problem: Problem, forced: str) -> Forms:
        """The known correct answers to a problem after a forced text; none where the grader accepts no candidate."""
        return self._find(problem, forced)
