import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.segment import (
    MARKERS,
    PARAGRAPH,
    block_boundaries,
    boundaries,
    by_backtracks,
    by_markers,
    by_tokens,
    spaced,
    to_tokens,
)
from headway.types import Episode

# Paragraphs of a thought: markers, near-misses (a space before, another case, mid-sentence), plain lines, empty ones.
PARAGRAPHS = st.sampled_from(
    [
        *(m + " so" for m in MARKERS),
        *MARKERS,
        " Wait",
        "wait",
        "But",
        "So Wait",
        "x",
        "2 + 2 = 4\n",
        "",
        "\n",
        "Waiter",
    ]
)
THOUGHTS = st.lists(PARAGRAPHS, max_size=40).map(PARAGRAPH.join)


def pieces(text, spans):
    return [text[a:b] for a, b in spans]


def notebook(text, *, max_steps, group_size):
    """The rule of the authors' analysis, from its description in words: blocks of text, separators dropped."""
    steps = text.split("\n\n")
    blocks, prev_i, left = [], 0, max_steps
    for i, step in enumerate(steps):
        if left == 0:
            break
        if not any(step.startswith(marker) for marker in MARKERS):
            continue
        if i - prev_i in (0, 1, 2):
            continue
        blocks.append("\n\n".join(steps[prev_i:i]).rstrip("\n"))
        left -= 1
        prev_i = i
    blocks.append("\n\n".join(steps[prev_i:]))
    return ["\n\n".join(blocks[i : i + group_size]) for i in range(0, len(blocks), group_size)]


def test_episodes_by_hand():
    text = "Let x.\n\na\n\nb\n\nWait, no.\n\nc\n\nd\n\nAlternatively, e"
    assert pieces(text, by_markers(text)) == [
        "Let x.\n\na\n\nb\n\n",
        "Wait, no.\n\nc\n\nd\n\n",
        "Alternatively, e",
    ]


def test_a_marker_within_three_paragraphs_of_the_last_cut_does_not_cut():
    text = "Wait\n\nWait\n\nWait\n\nWait\n\nx\n\nWait\n\nWait"
    # paragraphs 0 to 6: 0, 1, 2 are too near the start, 3 cuts, 5 is too near 3, 6 cuts
    assert pieces(text, by_markers(text)) == ["Wait\n\nWait\n\nWait\n\n", "Wait\n\nx\n\nWait\n\n", "Wait"]


@pytest.mark.parametrize("opening", [" Wait", "wait", "So, Wait", "\nWait"])
def test_only_a_marker_at_the_very_start_of_a_paragraph_cuts(opening):
    assert len(by_markers(f"a\n\nb\n\nc\n\n{opening}")) == 1


@pytest.mark.parametrize("marker", MARKERS)
def test_every_marker_cuts(marker):
    text = f"a\n\nb\n\nc\n\n{marker} d"
    assert pieces(text, by_markers(text)) == ["a\n\nb\n\nc\n\n", f"{marker} d"]


def test_cuts_stop_at_their_limit_and_groups_merge():
    text = "\n\n".join(["Wait"] * 5)
    cut = by_markers(text, min_paragraphs=1)
    assert cut == [(0, 6), (6, 12), (12, 18), (18, 24), (24, 28)]
    assert by_markers(text, min_paragraphs=1, max_cuts=2) == [(0, 6), (6, 12), (12, 28)]
    assert by_markers(text, min_paragraphs=1, max_cuts=0) == [(0, 28)]
    assert by_markers(text, min_paragraphs=1, group_size=2) == [(0, 12), (12, 24), (24, 28)]
    assert by_markers("") == []


@given(THOUGHTS.filter(bool), st.integers(1, 6))
def test_blocks_are_those_of_the_released_analysis(text, max_steps):
    ours = pieces(text, by_markers(text, max_cuts=max_steps))
    theirs = notebook(text, max_steps=max_steps, group_size=1)
    # the notebook drops the newlines before a cut; ours keeps them, so that the episodes tile the text
    assert [block.rstrip("\n") for block in ours[:-1]] == theirs[:-1]
    assert ours[-1] == theirs[-1]


@given(THOUGHTS.filter(bool), st.integers(1, 8), st.integers(1, 5))
def test_groups_are_those_of_the_released_analysis(text, max_steps, group_size):
    ours = by_markers(text, max_cuts=max_steps, group_size=group_size)
    theirs = notebook(text, max_steps=max_steps, group_size=group_size)
    assert len(ours) == len(theirs)
    for (a, b), block in zip(ours, theirs, strict=True):
        # blank paragraphs before an inner cut are dropped by the notebook; all else is the same text
        assert text[a:b].replace("\n", "") == block.replace("\n", "")


@given(THOUGHTS | st.text(), st.integers(1, 4), st.none() | st.integers(0, 5), st.integers(1, 4))
def test_spans_tile_any_text(text, min_paragraphs, max_cuts, group_size):
    spans = by_markers(text, min_paragraphs=min_paragraphs, max_cuts=max_cuts, group_size=group_size)
    assert "".join(pieces(text, spans)) == text
    assert all(a < b for a, b in spans)


@st.composite
def cut_texts(draw):
    """Spans that tile a length, and offsets that never fall: repeats are tokens that share a character."""
    length = draw(st.integers(0, 60))
    cuts = sorted({0, length, *draw(st.lists(st.integers(0, length), max_size=6))})
    offsets = sorted(draw(st.lists(st.integers(0, max(length - 1, 0)), max_size=80)))
    return list(itertools.pairwise(cuts)), offsets


@given(cut_texts())
def test_episodes_tile_any_offsets(case):
    spans, offsets = case
    episodes = to_tokens(spans, offsets)
    assert [t for e in episodes for t in range(e.start, e.stop)] == list(range(len(offsets)))
    assert all(e.start < e.stop for e in episodes)
    assert boundaries(episodes)[-1] == len(offsets)


@given(cut_texts())
def test_a_token_belongs_to_the_span_of_its_first_character(case):
    spans, offsets = case
    span_of = [next(i for i, (a, b) in enumerate(spans) if a <= o < b) for o in offsets] if spans else []
    expected = [len(list(run)) for _, run in itertools.groupby(span_of)]
    if spans:  # no text, no spans: any tokens there are one episode
        assert [e.stop - e.start for e in to_tokens(spans, offsets)] == expected


def test_tokens_by_hand():
    # "ab", "c|d" over the cut at 3, then the two halves of one character at 4; the cut at 5 owns no token
    assert to_tokens([(0, 3), (3, 5), (5, 6)], [0, 2, 4, 4]) == [Episode(0, 2), Episode(2, 4)]
    assert to_tokens([], []) == []


def test_a_grid_of_tokens_by_hand():
    assert by_tokens(7, size=3) == [Episode(0, 3), Episode(3, 6), Episode(6, 7)]
    assert by_tokens(0, size=3) == []


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 12))
def test_spaced_cuts_keep_the_tiling_and_the_limit(lengths, most):
    ends = np.cumsum([0, *lengths]).tolist()
    episodes = [Episode(a, b) for a, b in itertools.pairwise(ends)]
    kept = spaced(episodes, least=ends[-1] / most)
    assert len(kept) <= most
    assert set(boundaries(kept)) <= set(boundaries(episodes))
    assert boundaries(kept)[-1] == ends[-1]
    assert all(stop - start >= ends[-1] / most for start, stop in kept[:-1])
    assert spaced(episodes, least=0.0) == episodes


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.floats(0, 20), st.integers(0, 20))
def test_what_comes_later_moves_no_cut(lengths, least, n):
    """The cuts of a trace that goes on begin with those of the trace that ends here."""
    ends = np.cumsum([0, *lengths]).tolist()
    episodes = [Episode(a, b) for a, b in itertools.pairwise(ends)]
    early, late = (boundaries(spaced(e, least=least)) for e in (episodes[:n], episodes))
    assert late[: len(early) - 1] == early[:-1]


def test_spaced_cuts_by_hand():
    # of the cuts at 2, 5, 6 and 9, 5 is the first after 4 tokens, 9 the first after 4 more
    episodes = [Episode(0, 2), Episode(2, 5), Episode(5, 6), Episode(6, 9), Episode(9, 10)]
    assert spaced(episodes, least=4.0) == [Episode(0, 5), Episode(5, 9), Episode(9, 10)]


@pytest.mark.parametrize(
    "episodes",
    [
        [Episode(1, 2)],
        [Episode(0, 2), Episode(3, 4)],
        [Episode(0, 2), Episode(1, 4)],
        [Episode(0, 2), Episode(2, 2)],
    ],
)
def test_a_gap_an_overlap_and_an_empty_episode_are_errors(episodes):
    with pytest.raises(ValueError, match="must tile the thinking"):
        boundaries(episodes)


def test_no_episodes_have_the_one_boundary():
    assert boundaries([]) == [0]
    assert boundaries([Episode(0, 2), Episode(2, 5)]) == [0, 2, 5]


def test_limits_below_one_are_errors():
    for bad in ({"min_paragraphs": 0}, {"group_size": 0}, {"max_cuts": -1}):
        with pytest.raises(ValueError, match="need min_paragraphs"):
            by_markers("a", **bad)
    with pytest.raises(ValueError, match="size >= 1"):
        by_tokens(3, size=0)


BACKTRACKED = (
    "Step 1: 2 + 2 = 5.\nBacktrack to Line 1\nStep 1: 2 + 2 = 4.\nBacktrack to beginning\n"
    "So 4. Wait, this seems off. Let's try something else.\nStep 1: 4. This seems off. Let's backtrack to step 3. Yes."
)


def test_a_search_is_cut_where_it_goes_back_and_where_it_goes_on():
    assert [BACKTRACKED[a:b] for a, b in by_backtracks(BACKTRACKED)] == [
        "Step 1: 2 + 2 = 5.\n",
        "Backtrack to Line 1\n",
        "Step 1: 2 + 2 = 4.\n",
        "Backtrack to beginning\n",
        "So 4. ",
        "Wait, this seems off. Let's try something else.\n",
        "Step 1: 4. ",
        "This seems off. Let's backtrack to step 3.",
        " Yes.",
    ]


def test_a_search_that_never_goes_back_is_one_episode():
    assert by_backtracks("We backtrack to line 3 in thought only.") == [(0, 39)]
    assert by_backtracks("") == []
    assert by_backtracks("Backtrack to beginning\n") == [(0, 23)]


@given(
    st.text() | st.lists(st.sampled_from(["a", "\n", "Backtrack to Line 12\n", "Backtrack to beginning"])).map("".join)
)
def test_cuts_at_backtracks_tile_any_text(text):
    spans = by_backtracks(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)


def test_blocks_of_boundaries_by_hand():
    assert block_boundaries(12, 5) == [0, 5, 10, 12]
    assert block_boundaries(10, 5) == [0, 5, 10]
    assert block_boundaries(0, 5) == [0]
    with pytest.raises(ValueError, match="need width >= 1"):
        block_boundaries(3, 0)
