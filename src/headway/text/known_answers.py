"""Known answers: the ways to write a correct answer, as the tokens that a forced answer would have.

An end of an answer is a text, not a token: one token may hold the last characters of an answer and its end, as `}}`
and `)}` of many vocabularies do. So each way to write an answer is a `Continuation` for each of its last characters:
the tokens of what is before, as the tokenizer makes them, and then any token that begins with the rest and an end. No
two of them begin alike, so their probabilities add up.
"""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from headway.text.answers import BOX, answer_after
from headway.text.numbers import rational, ways_to_write
from headway.text.offsets import Decoded
from headway.types import Continuation, Grader, HeadwayError, MetaProver, Problem, TokenIds, Tokenizer

Candidates = Callable[[Problem], list[str]]

LONGEST_REST = 16  # characters of an answer that one token has together with its end

_FRAC = re.compile(r"\\[dt]?frac")
_FRACTION = re.compile(r"\\frac\{([^{}]+)\}\{([^{}]+)\}")
_BRACED = re.compile(r"\^\{(\w+)\}")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}")
_LIST = re.compile(r"(\(|\[|\\\{|)([^()\[\]]+,[^()\[\]]+?)(\)|\]|\\\}|)")


class Forms(NamedTuple):
    """The known correct answers after one forced text, each once, and how tokens may write them."""

    answers: tuple[str, ...]
    continuations: tuple[Continuation, ...]
    ends: tuple[str, ...]

    def wrote(self, token_ids: TokenIds, decoded: Decoded) -> bool:
        """Whether a completion, which `decoded` is the text of, is one of those whose probability is counted."""
        begins = [*decoded.offsets, len(decoded.text)]
        next_text = [decoded.text[a:b] for a, b in pairwise(begins)]
        for continuation in self.continuations:
            n = len(continuation.token_ids)
            if token_ids[:n] == continuation.token_ids:
                ended = continuation.ended_by(next_text[n], self.ends) if n < len(token_ids) else not continuation.rest
                if ended:
                    return True
        return False


def written(problem: Problem) -> list[str]:
    """The reference answer as models may write it; the grader decides which of the texts are correct.

    A number in all of `ways_to_write`, a power also without braces; other fractions with `frac`, `dfrac` and a slash;
    lists with and without spaces and parentheses; words without `text`.
    """
    forms = [reference := problem.answer.strip()]
    if (number := rational(reference)) is not None:
        forms += [*ways_to_write(number), _BRACED.sub(r"^\1", reference)]
        forms += ways_to_write(100 * number) if reference.endswith("%") else []
    elif _FRAC.search(reference):
        forms += [_FRAC.sub(rf"\\{frac}", reference) for frac in ("frac", "dfrac")]
        forms += ["/".join(match.groups())] if (match := _FRACTION.fullmatch(forms[1])) else []
    elif match := _LIST.fullmatch(reference):
        begin, inner, end = match.groups()
        parts = [part.strip() for part in inner.split(",")]
        brackets = dict.fromkeys([(begin, end), ("", ""), ("(", ")")])
        forms += [b + comma.join(parts) + e for b, e in brackets for comma in (",", ", ")]
    return list(dict.fromkeys([*forms, _TEXT.sub(r"\1", reference)]))


def ends_of(prover: MetaProver, forced: str) -> tuple[str, ...]:
    """What ends an answer after a forced text, apart from the end of the completion: its box closed, or a new line."""
    boxed = BOX in forced
    return (*(["}"] if boxed else []), *(["\n"] if boxed or "\n" in prover.stop else []))


def known_forms(tokenizer: Tokenizer, prover: MetaProver, forced: str, problem: Problem, grader: Grader) -> Forms:
    """The correct answers to a problem as tokens after a forced text: the candidates that the grader calls correct.

    The candidates are those that `grader.candidates` lists for the problem, or else `written`. Forms that would be
    read as another answer are dropped, and so are tokens that do not round-trip through the tokenizer or leave no
    token for the end within `prover.max_tokens`.

    Raises:
        HeadwayError: the prover does not sample from the policy's own distribution, so a likelihood is not the
            probability of its answer.
    """
    if prover.top_p < 1 or prover.temperature <= 0:
        raise HeadwayError(
            f"likelihood and hybrid values need branches at top-p 1 and a temperature above 0, got {prover.top_p:g} "
            f"and {prover.temperature:g}; use values 'branches' or other sampling of the branches"
        )
    ends, encode = ends_of(prover, forced), _Encoder(tokenizer, forced)
    words = not (BOX in forced or not forced or forced[-1].isspace())
    candidates: Candidates = getattr(grader, "candidates", written)
    texts = [
        space + text
        for text in dict.fromkeys(t.strip() for t in candidates(problem))
        # after words an answer follows a space; so it may within a box, where it would merge with the brace
        for space in ((" ", "") if words else ("", " ") if encode.merges(text) else ("",))
    ]
    texts = [text for text in texts if answer_after(forced, text) == text.strip() and "\n" not in text]
    verdicts = grader.grade([(problem, text.strip()) for text in texts])
    found: dict[Continuation, str] = {}
    for text, verdict in zip(texts, verdicts, strict=True):
        whole = encode(text) if verdict == 1.0 else None
        if whole is None or not 0 < len(whole) < prover.max_tokens:
            continue
        found.setdefault(Continuation(whole), text.strip())
        for cut in range(max(0, len(text) - LONGEST_REST), len(text)):
            if (before := encode(text[:cut])) is not None and len(before) < prover.max_tokens:
                found.setdefault(Continuation(before, text[cut:]), text.strip())
    return Forms(tuple(dict.fromkeys(found.values())), tuple(found), ends)


class _Encoder:
    """The tokens of texts after a forced one."""

    def __init__(self, tokenizer: Tokenizer, forced: str) -> None:
        self._tokenizer = tokenizer
        # where the tokenizer merges a text with the forced one, it is encoded as after a new line, or alone
        self._before = [(text, self._ids(text)) for text in dict.fromkeys([forced, "\n", ""])]

    def _ids(self, text: str) -> TokenIds:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def merges(self, text: str) -> bool:
        """Whether the tokenizer makes one token of the end of the forced text and the beginning of this one."""
        before, ids = self._before[0]
        return self._ids(before + text)[: len(ids)] != ids

    def __call__(self, text: str) -> TokenIds | None:
        """The tokens of a text; None if they have another text, spaces at its ends aside."""
        for before, ids in self._before:
            together = self._ids(before + text)
            if together[: len(ids)] == ids:
                found = together[len(ids) :]
                same = self._tokenizer.decode(found, skip_special_tokens=True).strip() == text.strip()
                return found if same else None
        return None


class KnownAnswers:
    """The known correct answers to problems after each forced text, each found once."""

    def __init__(self, tokenizer: Tokenizer, prover: MetaProver, grader: Grader) -> None:
        self._find = cache(lambda problem, forced: known_forms(tokenizer, prover, forced, problem, grader))

    def forms(self, problem: Problem, forced: str) -> Forms:
        """The known correct answers to a problem after a forced text; none where the grader accepts no candidate."""
        return self._find(problem, forced)
