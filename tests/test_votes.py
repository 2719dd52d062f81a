import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.votes import NO_VOTE, logprob_weights, maj_at_k, settled_at, weighted_maj, winners

SEVEN, EIGHT, NINE = 0, 1, 2


def right_if(classes, good):
    return np.isin(classes, list(good)) & (np.array(classes) != NO_VOTE)


@st.composite
def elections(draw):
    """Classes of up to seven answers, and which of the classes are right: none, one or several."""
    classes = np.array(draw(st.lists(st.integers(-1, 3), min_size=1, max_size=7)))
    return classes, right_if(classes, draw(st.sets(st.integers(0, 3))))


def by_subsets(classes, right, k):
    """The definition: every subset of size k, its winners, and the share of them that are right."""
    good, points = set(classes[right].tolist()), []
    for subset in itertools.combinations(classes.tolist(), k):
        votes = [c for c in subset if c != NO_VOTE]
        most = max((votes.count(c) for c in votes), default=0)
        won = {c for c in votes if votes.count(c) == most}
        points.append(len(won & good) / len(won) if won else 0.0)
    return float(np.mean(points))


@given(elections())
def test_the_count_is_the_mean_over_all_subsets(election):
    classes, right = election
    expected = [by_subsets(classes, right, k) for k in range(1, len(classes) + 1)]
    assert maj_at_k(classes, right) == pytest.approx(expected)


@given(elections(), st.randoms(use_true_random=False))
def test_order_and_names_do_not_vote(election, rng):
    classes, right = election
    order = list(range(len(classes)))
    rng.shuffle(order)
    renamed = np.where(classes == NO_VOTE, NO_VOTE, 40 - classes)
    assert maj_at_k(renamed[order], right[order]) == pytest.approx(maj_at_k(classes, right))


@given(elections())
def test_equal_weights_are_no_weights(election):
    classes, right = election
    for k, expected in enumerate(maj_at_k(classes, right), start=1):
        assert weighted_maj(classes, right, np.full(len(classes), 0.3), k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "good", "expected"),
    [
        ([SEVEN, SEVEN, EIGHT], {SEVEN}, 1.0),
        ([SEVEN, EIGHT, EIGHT], {SEVEN}, 0.0),
        ([SEVEN, EIGHT, SEVEN, EIGHT], {SEVEN}, 0.5),
        ([SEVEN, EIGHT, NINE], {SEVEN}, 1 / 3),
        ([SEVEN, EIGHT, NINE], {SEVEN, EIGHT}, 2 / 3),
        ([SEVEN, NO_VOTE, NO_VOTE, NO_VOTE], {SEVEN}, 1.0),
        ([NO_VOTE, NO_VOTE], {SEVEN}, 0.0),
        ([SEVEN], set(), 0.0),
    ],
)
def test_a_vote_over_all_answers_by_hand(classes, good, expected):
    found = maj_at_k(np.array(classes), right_if(classes, good))
    assert found[-1] == pytest.approx(expected)
    assert found[0] == pytest.approx(np.mean(right_if(classes, good)))


def test_a_vote_over_pairs_by_hand():
    # the pairs of 7 7 8 -: 77 1; 78 1/2 twice; 7- 1 twice; 8- 0
    classes = np.array([SEVEN, SEVEN, EIGHT, NO_VOTE])
    assert maj_at_k(classes, classes == SEVEN)[1] == pytest.approx((1 + 0.5 + 0.5 + 1 + 1 + 0) / 6)


def test_a_limit_leaves_the_rest_of_the_curve_out_and_changes_nothing_else():
    classes = np.random.default_rng(0).integers(-1, 5, size=40)
    right = classes == 2
    assert maj_at_k(classes, right, 8) == pytest.approx(maj_at_k(classes, right)[:8])
    assert len(maj_at_k(classes[:0], right[:0])) == 0


def test_many_answers_are_counted_as_drawing_them_would():
    rng = np.random.default_rng(1)
    classes = rng.choice(30, size=300, p=np.linspace(1, 5, 30) / np.linspace(1, 5, 30).sum())
    right = classes == 29
    drawn = [by_subsets(rng.choice(classes, 16, replace=False), np.zeros(16, bool), 16) for _ in range(1)]
    assert drawn == [0.0]
    points = []
    for _ in range(4000):
        tally = np.bincount(rng.choice(classes, 16, replace=False), minlength=30)
        won = tally == tally.max()
        points.append(won[29] / won.sum())
    # a mean of 4000 shares in [0, 1] has an error of at most 0.008
    assert maj_at_k(classes, right, 16)[-1] == pytest.approx(np.mean(points), abs=4 * np.std(points) / 4000**0.5)


def test_a_majority_that_is_right_more_often_than_not_helps():
    classes = np.array([SEVEN] * 12 + [EIGHT] * 8)
    curve = maj_at_k(classes, classes == SEVEN)
    # odd k have no ties; from 17 of 20 on the 12 cannot lose
    assert (np.diff(curve[:17:2]) > 0).all() and curve[16] == pytest.approx(1.0)
    assert (np.diff(maj_at_k(classes, classes == EIGHT)[:17:2]) < 0).all()


def test_weights_outvote_numbers():
    # 8 8 against a 7 of weight 3; pairs: 88 0, 78 1 twice
    classes, weights = np.array([SEVEN, EIGHT, EIGHT]), np.array([3.0, 1.0, 1.0])
    right = classes == SEVEN
    assert weighted_maj(classes, right, weights, 3) == 1.0
    assert weighted_maj(classes, right, weights, 2) == pytest.approx(2 / 3)
    assert weighted_maj(classes, right, weights / weights, 3) == 0.0


def test_a_tie_of_three_is_a_third_or_a_half():
    classes = np.array([SEVEN, EIGHT, NINE])
    for ties, expected in (("share", 1 / 3), ("half", 0.5)):
        assert weighted_maj(classes, classes == SEVEN, np.ones(3), 3, ties=ties) == pytest.approx(expected)


def test_too_many_subsets_are_drawn():
    classes = np.random.default_rng(2).integers(0, 3, size=24)
    right = classes == 0
    drawn = weighted_maj(classes, right, np.ones(24), 8)  # of 735471 subsets 2000: an error of at most 0.011
    assert drawn == pytest.approx(maj_at_k(classes, right)[7], abs=0.045)
    assert drawn == weighted_maj(classes, right, np.ones(24), 8)


def test_more_voters_than_answers_and_nobody_who_votes():
    assert np.isnan(weighted_maj(np.array([SEVEN]), np.array([True]), np.ones(1), 2))
    assert weighted_maj(np.array([NO_VOTE] * 2), np.array([False] * 2), np.ones(2), 2) == 0.0


def test_weights_by_hand():
    # e^-2 over 2 tokens is a mean of -1: 1/2; an empty answer counts as one token
    found = logprob_weights(np.array([-2.0, -3.0, np.nan]), np.array([2.0, 0.0, 1.0]))
    assert found[:2].tolist() == [0.5, 0.125]
    assert np.isnan(found[2])


def test_winners():
    assert winners(np.array([SEVEN, EIGHT, EIGHT, NO_VOTE, NO_VOTE, NO_VOTE])) == {EIGHT}
    assert winners(np.array([SEVEN, EIGHT])) == {SEVEN, EIGHT}
    assert winners(np.array([NO_VOTE])) == frozenset()


def test_where_the_answer_stops_changing():
    rows = [[EIGHT, EIGHT], [SEVEN, SEVEN], [SEVEN, EIGHT], [SEVEN, SEVEN]]
    assert settled_at(np.array(rows)) == 1  # the tie agrees with 7
    assert settled_at(np.array(rows[:3])) == 1  # 7 or 8 in the end, but 8 before was another answer than 7
    assert settled_at(np.array([*rows, [NINE, NINE]])) == 4
    # ties do not hand over: 9 ties with 8, 8 with 7, and 7 stays alone
    assert settled_at(np.array([[NINE, EIGHT], [EIGHT, SEVEN], [SEVEN, SEVEN]])) == 1
    assert settled_at(np.array([[SEVEN], [NO_VOTE]])) is None
    assert settled_at(np.array([[SEVEN], [NO_VOTE], [SEVEN]])) == 2  # no answer in between is a change
