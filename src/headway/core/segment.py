"""Segmenting: where episodes begin and end. Knows text and token offsets; no model and no tokenizer."""

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from headway.choices import Option, Options, lookup
from headway.types import Episode, Trace

PARAGRAPH = "\n\n"

# The delimiters of the authors' released analysis, case-sensitive, at a paragraph's start.
MARKERS = (
    "Wait", "But wait", "Alternatively", "Is there another way to think about this?", "But let me double-check",
    "But hold on",
)  # fmt: skip

# What the authors' backtracking models write when they backtrack: explicit commands, and two phrases.
BACKTRACK = re.compile(
    r"Backtrack to (?:Line \d+|beginning)\n?"
    r"|(?:Wait, )?[Tt]his seems off\. Let's (?:backtrack to [Ss]tep \d+|try something else)\.\n?"
)


def by_markers(
    text: str, *, min_paragraphs: int = 3, max_cuts: int | None = None, group_size: int = 1
) -> list[tuple[int, int]]:
    """Character spans of the episodes of a text, cut before paragraphs that open with one of the `MARKERS`.

    The rule of the authors' released analysis (`break_into_meta_steps.ipynb`): split at blank lines; a paragraph that
    starts with a marker opens an episode if at least `min_paragraphs` paragraphs came since the last cut; stop after
    `max_cuts` cuts; then merge each `group_size` episodes into one. The spans tile the text, separators included
    (the notebook drops and re-inserts them); an empty text has none.

    Raises:
        ValueError: a limit is below 1 (`max_cuts` below 0).
    """
    if min_paragraphs < 1 or group_size < 1 or (max_cuts is not None and max_cuts < 0):
        got = f"got {min_paragraphs}, {group_size}, {max_cuts}"
        raise ValueError(f"need min_paragraphs >= 1, group_size >= 1, max_cuts >= 0 or None; {got}")
    cuts, last, position = [0], 0, 0
    for i, paragraph in enumerate(text.split(PARAGRAPH)):
        if max_cuts is not None and len(cuts) > max_cuts:
            break
        if i - last >= min_paragraphs and paragraph.startswith(MARKERS):
            cuts.append(position)
            last = i
        position += len(paragraph) + len(PARAGRAPH)
    starts = [*cuts[::group_size], len(text)]
    return [(a, b) for a, b in itertools.pairwise(starts) if a < b]


def by_backtracks(text: str) -> list[tuple[int, int]]:
    """Character spans that tile a backtracking search: an attempt, a backtrack (`BACKTRACK`), an attempt..."""
    edges = [0, *(edge for found in BACKTRACK.finditer(text) for edge in found.span()), len(text)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b]


def to_tokens(spans: Sequence[tuple[int, int]], offsets: Sequence[int]) -> list[Episode]:
    """The token ranges of character spans that tile a text. A token belongs to the span its first character is in.

    `offsets` holds the position of each token's first character, never falling. A span without a token has no range.
    """
    cuts = sorted({0, *(bisect.bisect_left(offsets, start) for start, _ in spans), len(offsets)})
    return [Episode(start, stop) for start, stop in itertools.pairwise(cuts)]


def by_tokens(n_tokens: int, *, size: int) -> list[Episode]:
    """Episodes of `size` tokens each, the last one shorter.

    Raises:
        ValueError: `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"need size >= 1 token, got {size}")
    return [Episode(start, min(start + size, n_tokens)) for start in range(0, n_tokens, size)]


def spaced(episodes: Sequence[Episode], *, least: float) -> list[Episode]:
    """The episodes with only those cuts that end an episode of at least `least` tokens; the last may be shorter.

    Whether a cut stays is decided by the tokens before it, so a baseline for each episode leaves the expected gradient
    as it is. Merging by the number of episodes would not: then later choices move the boundaries of earlier tokens.
    """
    starts = [0]
    for episode in episodes[1:]:
        if episode.start - starts[-1] >= least:
            starts.append(episode.start)
    return [Episode(a, b) for a, b in itertools.pairwise([*starts, episodes[-1].stop])] if episodes else []


def block_boundaries(episodes: int, width: int) -> list[int]:
    """The boundaries of blocks of `width` episodes: 0, width, 2 width, ... and the last.

    Raises:
        ValueError: `width` is below 1.
    """
    if width < 1:
        raise ValueError(f"need width >= 1 episode, got {width}")
    return [*range(0, episodes, width), episodes]


def boundaries(episodes: Sequence[Episode]) -> list[int]:
    """Token positions of the boundaries 0..K of episodes that tile the thinking: `[0]` where there are none.

    Raises:
        ValueError: the episodes leave a gap, overlap or do not start at 0.
    """
    positions = [0]
    for episode in episodes:
        if episode.start != positions[-1] or episode.stop <= episode.start:
            raise ValueError(
                f"episodes must tile the thinking: got tokens {episode.start}..{episode.stop} after boundary "
                f"{positions[-1]}; cut with by_markers and to_tokens, or by_tokens"
            )
        positions.append(episode.stop)
    return positions


def _of_text(trace: Trace, spans: Sequence[tuple[int, int]]) -> list[Episode]:
    return to_tokens(spans, trace.offsets[: trace.thinking]) if trace.thinking else []


CUTS: dict[str, Callable[[Trace, "Cutting"], list[Episode]]] = {
    "markers": lambda trace, c: _of_text(trace, by_markers(trace.thought, min_paragraphs=c.min_paragraphs)),
    "tokens": lambda trace, c: by_tokens(trace.thinking, size=c.episode_tokens),
    "backtracks": lambda trace, _: _of_text(trace, by_backtracks(trace.thought)),
}
if TYPE_CHECKING:
    Segment = str
else:
    Segment = Literal[tuple(CUTS)]


class Cutting(Options, frozen=True):
    """How the thinking of a trace is cut into episodes."""

    segment: Annotated[Segment, Option("How thinking is cut into episodes.")] = "markers"
    min_paragraphs: Annotated[int, Option("Minimum paragraphs of an episode (markers).", least=1)] = 3
    episode_tokens: Annotated[int, Option("Tokens of an episode (tokens).", least=1)] = 128
    max_episodes: Annotated[
        int | None, Option("Episodes in a budget: none but the last is shorter than budget / this many.", least=1)
    ] = None


def cut(trace: Trace, cutting: Cutting, budget: int | None = None) -> list[Episode]:
    """The episodes of a trace's thinking.

    With `max_episodes` each but the last has at least `budget / max_episodes` tokens, so a trace within the budget has
    at most that many. Every cut is decided by what comes before it and by the words that open the episode.

    Raises:
        HeadwayError: there is no such way to cut.
        ValueError: `max_episodes` without a budget.
    """
    episodes = lookup(CUTS, cutting.segment, "segment")(trace, cutting)
    if cutting.max_episodes is None:
        return episodes
    if budget is None:
        raise ValueError(
            f"max_episodes is {cutting.max_episodes}; give the budget that they share, in thinking tokens"
        )
    return spaced(episodes, least=budget / cutting.max_episodes)
