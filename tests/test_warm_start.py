"""Warm start: what stitched traces are made of, where they backtrack to, and what is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from headway.core.segment import BACKTRACK, Cutting, by_backtracks, cut
from headway.engines.scripted import Characters, ScriptedEngine
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import make_trace
from headway.procedures.warm_start import (
    MARKERS,
    Stitching,
    by_continuations,
    by_forced_answers,
    longest,
    n_shared,
    steps_of,
    stitch,
    usable,
    warm_start,
)
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Completion, HeadwayError, Problem

TAGS = ThinkTags("<think>", "</think>")
TOKENIZER = Characters()
PROMPT = tuple(map(ord, "<user>Q?<assistant><think>"))


def attempt(lines, reward, *, problem="p", index=0, close="</think>\n\n\\boxed{1}", prompt=PROMPT, ended="\n"):
    text = "".join(f"{line}{ended}" for line in lines) + close
    made = make_trace(TOKENIZER, problem, index, prompt, Completion(tuple(map(ord, text)), "stop"), TAGS)
    return structs.replace(made, reward=reward)


# attempts at one problem: steps "a", "b", ... ; those that end on "!" are right
LINES = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)
ATTEMPTS = st.lists(st.tuples(LINES, st.booleans()), min_size=1, max_size=12)
STITCHINGS = st.fixed_dictionaries(
    {
        "marker": st.sampled_from(list(MARKERS)),
        "failed": st.integers(1, 3),
        "shared": st.integers(0, 2),
        "restate": st.booleans(),
        "per_problem": st.integers(1, 4),
        "seed": st.integers(0, 5),
    }
)


def attempts_of(drawn):
    return [attempt([*lines, "!" if right else "?"], float(right), index=i) for i, (lines, right) in enumerate(drawn)]


def pieces(trace):
    return [trace.thought[a:b] for a, b in by_backtracks(trace.thought)]


def test_a_stitched_trace_by_hand():
    failed, right = attempt("xyu", 0.0), attempt("xvw", 1.0, index=1)
    trace = stitch([failed, right], TOKENIZER, Stitching())
    assert trace.text == "x\ny\nu\nBacktrack to Line 2\nx\nv\nw\n</think>\n\n\\boxed{1}"
    assert pieces(trace) == ["x\ny\nu\n", "Backtrack to Line 2\n", "x\nv\nw\n"]
    assert (trace.reward, trace.answer, trace.closed) == (1.0, "1", True)
    short = stitch([failed, right], TOKENIZER, Stitching(restate=False))
    assert pieces(short) == ["x\ny\nu\n", "Backtrack to Line 2\n", "v\nw\n"]
    implicit = stitch([failed, right], TOKENIZER, Stitching("implicit"))
    assert pieces(implicit)[1] == "Wait, this seems off. Let's try something else.\n"


def test_a_search_of_three_attempts_by_hand():
    chain = [attempt("xyz", 0.0), attempt("xyu", 0.0, index=1), attempt("vw", 1.0, index=2)]
    trace = stitch(chain, TOKENIZER, Stitching(shared=0, restate=False))
    assert pieces(trace) == ["x\ny\nz\n", "Backtrack to Line 3\n", "u\n", "Backtrack to beginning\n", "v\nw\n"]


def test_a_marker_stands_on_a_line_of_its_own():
    failed, right = (attempt(["x\n" + end], reward, ended="") for end, reward in (("y", 0.0), ("z", 1.0)))
    assert stitch([failed, right], TOKENIZER, Stitching()).thought == "x\ny\nBacktrack to Line 2\nx\nz"


@pytest.mark.parametrize("kept", [0, 1, 9, 120])
@pytest.mark.parametrize("marker", MARKERS)
def test_the_cut_recognizes_every_marker(marker, kept):
    assert BACKTRACK.fullmatch(MARKERS[marker](kept))


def test_wrong_ends_and_what_shares_nothing_are_refused():
    failed, right, other = attempt("xy", 0.0), attempt("xz", 1.0, index=1), attempt("vw", 1.0, index=2)
    undecided, open_end = attempt("xu", None, index=3), attempt("xt", 0.0, index=4, close="")
    searched = attempt(["x", "Backtrack to Line 1", "x"], 0.0, index=5)
    for chain in ([failed, failed], [right, failed], [right, right], [undecided, right], [open_end, right]):
        with pytest.raises(HeadwayError, match="wrong ones and then a right one; got p/"):
            stitch(chain, TOKENIZER, Stitching())
    empty, marker = attempt([], 0.0), attempt(["Backtrack to Line 1"], 0.0)
    assert not any(map(usable, (searched, undecided, open_end, empty, marker))) and usable(failed)
    with pytest.raises(HeadwayError, match="p/0 and p/2 share 0 first steps, need at least 1"):
        stitch([failed, other], TOKENIZER, Stitching())
    assert {t.text for t in warm_start([failed, other], TOKENIZER, Stitching(per_problem=50))} == {other.text}
    with pytest.raises(HeadwayError, match="failed must be at least 1"):
        warm_start([failed, right], TOKENIZER, Stitching(failed=0))


def test_attempts_at_different_problems_share_nothing():
    assert n_shared(attempt("xy", 0.0), attempt("xz", 1.0, problem="q")) == 0
    assert n_shared(attempt("xy", 0.0), attempt("xz", 1.0)) == 1
    # a line that goes on is another step
    assert n_shared(attempt(["x", "yy"], 0.0), attempt(["x", "y"], 1.0)) == 1


@given(ATTEMPTS, STITCHINGS)
def test_every_stitched_trace_searches_and_ends_right(drawn, options):
    attempts, stitching = attempts_of(drawn), Stitching(**options)
    wrong = {a.thought for a in attempts if a.reward == 0}
    right = {a.thought: a.text[len(a.thought) :] for a in attempts if a.reward == 1}
    for trace in warm_start(attempts, TOKENIZER, stitching):
        searched = pieces(trace)
        tried, markers = searched[::2], searched[1::2]
        assert len(searched) == 2 * len(markers) + 1 and len(markers) <= stitching.failed
        assert all(map(BACKTRACK.fullmatch, markers)) and not any(map(BACKTRACK.search, tried))
        # the cut of training and of reports
        assert [e.stop - e.start for e in cut(trace, Cutting("backtracks"))] == [len(p) for p in searched]
        whole = [tried[0]]
        if stitching.restate:
            whole = tried
        elif stitching.marker == "explicit":
            for marker, rest in zip(markers, tried[1:], strict=True):
                line = int(marker.split()[-1]) if "Line" in marker else 1
                whole.append("".join(whole[-1].splitlines(keepends=True)[: line - 1]) + rest)
        else:
            return
        assert set(whole[:-1]) <= wrong and whole[-1] in right
        assert trace.text.removeprefix(trace.thought) == right[whole[-1]] and trace.reward == 1
        for a, b, marker in zip(whole, whole[1:], markers, strict=False):
            pairs = zip(a.splitlines(), b.splitlines(), strict=False)
            kept = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            assert kept >= stitching.shared and marker == MARKERS[stitching.marker](kept)


@given(ATTEMPTS, STITCHINGS)
def test_the_traces_of_a_problem_do_not_depend_on_other_problems(drawn, options):
    attempts, stitching = attempts_of(drawn), Stitching(**options)
    others = [attempt(["a", "?"], 0.0, problem="q"), attempt(["a", "!"], 1.0, problem="q")]
    alone = warm_start(attempts, TOKENIZER, stitching)
    assert [t for t in warm_start([*others, *attempts], TOKENIZER, stitching) if t.problem_id == "p"] == alone
    assert len({t.text for t in alone}) == len(alone) <= stitching.per_problem


def test_a_backtrack_goes_to_the_shared_step_with_the_highest_value():
    failed = attempt("xyz", 0.0)
    near, far = attempt("xyu", 1.0, index=1), attempt("xvw", 1.0, index=2)
    values = {1: 0.75, 2: 0.25}
    for value, expected in ((lambda a, b, k: values[k], far), (longest, near), (lambda a, b, k: np.nan, near)):
        made = warm_start([failed, near, far], TOKENIZER, Stitching(per_problem=20), value=value)
        ends = [pieces(t)[-1] for t in made if len(pieces(t)) == 3]
        assert ends == [expected.thought]


def test_continuations_by_hand():
    drawn = [("xy", 0.0), ("xz", 1.0), ("xu", 1.0), ("xv", 0.0), ("xv", 0.0), ("w", 1.0)]
    attempts = [attempt(lines, reward, index=i) for i, (lines, reward) in enumerate(drawn)]
    value = by_continuations([*attempts, attempt("xq", None, index=9), attempt("xy", 1.0, problem="q")])
    # without the pair: u right, v and v wrong begin with x; of all, w too is right
    assert value(attempts[0], attempts[1], 1) == pytest.approx(1 / 3)
    assert value(attempts[0], attempts[1], 0) == pytest.approx(2 / 4)
    # two failed ones: z and u right, the other v wrong
    assert value(attempts[0], attempts[3], 1) == pytest.approx(2 / 3)
    assert np.isnan(by_continuations(attempts[:2])(attempts[0], attempts[1], 1))


def test_forced_answers_value_each_step():
    problem = Problem("p", "What is 1?", "1")
    prompt = tuple(map(ord, "<user>What is 1?<assistant><think>"))
    lines = ["step 1", "step 2", "step 3"]
    failed = attempt(lines, 0.0, prompt=prompt)
    near = attempt([*lines[:2], "end"], 1.0, index=1, prompt=prompt)
    far = attempt([lines[0], "end"], 1.0, index=2, prompt=prompt)
    # the script succeeds after one step with 0.9, after two with 0.4
    engine = ScriptedEngine([problem], {"p": [0.1, 0.9, 0.4, 0.2]})
    prover = Prover(
        engine, meta_prover(TAGS, branches=1, max_tokens=8), {"p": problem}, grader=InPlace(exact),
        segmenter=steps_of,
    )  # fmt: skip
    curves, _, _ = prover.curves("likelihood", [failed], seed=0)
    assert curves[0].values.values == pytest.approx([0.1, 0.9, 0.4, 0.2])
    value = by_forced_answers({failed.key: curves[0]})
    assert [value(failed, far, 1), value(failed, near, 2)] == pytest.approx([0.9, 0.4])
    made = warm_start([failed, near, far], TOKENIZER, Stitching(per_problem=20), value=value)
    assert {pieces(t)[-1] for t in made if len(pieces(t)) == 3} == {far.thought}


@given(st.text(alphabet="a\n ", max_size=30))
def test_steps_tile_the_thinking(text):
    trace = attempt([text], 1.0, ended="")
    steps = steps_of(trace)
    assert "".join(trace.text[s.start : s.stop] for s in steps) == trace.thought
    assert all(trace.text[s.start : s.stop].strip("\n") or not trace.thought.strip("\n") for s in steps)


def test_the_paths_of_the_recipe_exist():
    folder = Path(__file__).parent.parent / "recipes/backtracking"
    assert {"README.md", "warm_start.py", "mrt.yaml", "star.yaml"} <= {p.name for p in folder.iterdir()}
