"""Known answers: the ways to write a right answer, as the tokens that a forced answer would have."""

import re
from collections.abc import Callable
from typing import NamedTuple

from headway.text.answers import BOX, answer_after
from headway.types import Grader, HeadwayError, MetaProver, Problem, TokenIds, Tokenizer

Candidates = Callable[[Problem], list[str]]

_WHOLE = re.compile(r"[-+]?\d+")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")


class Forms(NamedTuple):
    """The known right answers after one forced text: their tokens and their texts."""

    token_ids: tuple[TokenIds, ...]
    answers: tuple[str, ...]

    def wrote(self, token_ids: TokenIds, answer: str | None) -> bool:
        """Whether a completion is one of those whose probability is counted: a form's tokens, and then its end."""
        return any(
            answer == text and token_ids[: len(form)] == form
            for form, text in zip(self.token_ids, self.answers, strict=True)
        )


def written(problem: Problem) -> list[str]:
    """The reference answer as models write it: as it is, numbers with and without commas, fractions in three ways."""
    reference = problem.answer.strip()
    forms = [reference]
    plain = reference.replace(",", "")
    if _WHOLE.fullmatch(plain):
        forms += [plain, f"{int(plain):,}"]
    if match := _FRACTION.fullmatch(reference):
        above, below = match.groups()
        forms += [f"\\frac{{{above}}}{{{below}}}", f"\\dfrac{{{above}}}{{{below}}}", f"{above}/{below}"]
    return list(dict.fromkeys(forms))


def ends_of(prover: MetaProver, forced: str) -> tuple[str, ...]:
    """What ends an answer after a forced text, beside the end of the completion: its box closed, or a new line."""
    boxed = BOX in forced
    return (*(["}"] if boxed else []), *(["\n"] if boxed or "\n" in prover.stop else []))


def known_forms(tokenizer: Tokenizer, prover: MetaProver, forced: str, problem: Problem, grader: Grader) -> Forms:
    """The right answers to a problem as tokens after the forced text: the grader's candidates that it calls right.

    The candidates are what `grader.candidates` lists for the problem, or else the ways to write the reference answer.

    A form is encoded together with the forced text, as a model that goes on from it would write it; if the tokenizer
    merges across the boundary, the form is encoded alone. Forms that do not round-trip, that would be read as another
    answer, or that leave no token for the end within `prover.max_tokens` are dropped.

    Raises:
        HeadwayError: the prover does not draw from the policy's own distribution, so a likelihood is not its chance.
    """
    if prover.top_p < 1 or prover.temperature <= 0:
        raise HeadwayError(
            f"likelihood values need branches drawn at top-p 1 and a temperature above 0, got {prover.top_p} and "
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
    """The known right answers of problems after each forced text, each found once."""

    def __init__(self, tokenizer: Tokenizer, prover: MetaProver, grader: Grader) -> None:
        self._tokenizer, self._prover, self._grader = tokenizer, prover, grader
        self._found: dict[tuple[Problem, str], Forms] = {}

    def forms(self, problem: Problem, forced: str) -> Forms:
        """The known right answers to a problem after a forced text; none where the grader accepts no candidate."""
        key = problem, forced
        if key not in self._found:
            self._found[key] = known_forms(self._tokenizer, self._prover, forced, problem, self._grader)
        return self._found[key]
