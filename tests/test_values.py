import itertools

import numpy as np
import pytest

from headway.core.values import from_branches, from_distinct, from_hybrid, from_likelihood


def test_values_by_hand():
    estimate = from_branches(np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert estimate.values.tolist() == [0.25, 0.5, 1.0]
    # sqrt(1/4 * 3/4 / 3) = 1/4; sqrt(1/2 * 1/2 / 3) = 1 / sqrt 12
    assert estimate.stderr == pytest.approx([0.25, 12**-0.5, 0.0])
    assert estimate.n.tolist() == [4, 4, 4]


def test_undecided_branches_are_left_out_and_none_is_no_value():
    nan = np.nan
    estimate = from_branches(np.array([[1.0, nan, 0.0], [1.0, nan, nan], [nan, nan, nan]]))
    assert estimate.n.tolist() == [2, 1, 0]
    assert estimate.values[:2].tolist() == [0.5, 1.0]
    assert np.isnan(estimate.values[2])
    # two graded branches, one of them right: sqrt(1/2 * 1/2 / 1)
    assert estimate.stderr[0] == 0.5
    assert np.isnan(estimate.stderr[1:]).all()


def test_an_undecided_branch_is_not_a_wrong_one():
    undecided, wrong = from_branches(np.array([[1.0, np.nan], [1.0, 0.0]])).values
    assert (undecided, wrong) == (1.0, 0.5)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_squared_error_is_unbiased(n, p):
    outcomes = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    chances = np.prod(np.where(outcomes == 1, p, 1 - p), axis=1)
    estimate = from_branches(outcomes)
    assert chances @ estimate.values == pytest.approx(p, abs=1e-12)
    # Var(V) = p (1 - p) / n, over all 2^n outcomes
    assert chances @ estimate.stderr**2 == pytest.approx(p * (1 - p) / n, abs=1e-12)


def test_the_order_of_branches_changes_nothing():
    rewards = np.array([[1.0, 0.0, np.nan, 1.0], [0.0, 0.0, 1.0, np.nan]])
    for a, b in zip(from_branches(rewards), from_branches(rewards[:, ::-1]), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_no_boundary_and_no_branch():
    assert from_branches(np.empty((0, 4))).values.shape == (0,)
    assert np.isnan(from_branches(np.empty((3, 0))).values).tolist() == [True] * 3


# -- probability mass of distinct answers -----------------------------------------------------------------------------

LETTERS = np.array([0.5, 0.2, 0.2, 0.1])  # how likely each of four completions is
RIGHT = np.array([1.0, 0.0, 1.0, 0.0])


def every_draw(p, reward, n):
    """All len(p)^n ways to draw n branches: their chances and their distinct-answer estimates, a row each."""
    drawn = np.array(list(itertools.product(range(len(p)), repeat=n)))
    with np.errstate(divide="ignore"):
        return np.prod(p[drawn], axis=1), from_distinct(reward[drawn], np.log(p)[drawn], drawn)


def test_distinct_values_by_hand():
    # two branches: answer 0 (p = 1/2, right) twice, then 0 and 1 (wrong), then 1 twice
    drawn = np.array([[0, 0], [0, 1], [1, 1]])
    estimate = from_distinct(RIGHT[drawn], np.log(LETTERS)[drawn], drawn)
    # p / (1 - (1 - p)^2) = (1/2) / (3/4), whether it was drawn once or twice
    assert estimate.values == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert estimate.n.tolist() == [2, 2, 2]
    # y^2 (1 - pi) / pi^2 = (1/4) (1/4) / (9/16) = 1/9
    assert estimate.stderr == pytest.approx([1 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_distinct_values_are_unbiased(n):
    chances, estimate = every_draw(LETTERS, RIGHT, n)
    assert chances @ estimate.values == pytest.approx(RIGHT @ LETTERS, abs=1e-12)


@pytest.mark.parametrize("p", [LETTERS, np.array([0.9, 0.06, 0.04]), np.array([0.5, 0.5 - 2e-7, 1e-7, 1e-7])])
def test_the_squared_error_of_distinct_values_is_unbiased(p):
    # two right answers that are not negative in their estimated covariance as a whole: nothing is cut at zero
    reward = np.array([1.0] + [0.0] * (len(p) - 1))
    chances, estimate = every_draw(p, reward, 3)
    variance = chances @ (estimate.values - chances @ estimate.values) ** 2
    assert chances @ estimate.stderr**2 == pytest.approx(variance, abs=1e-12)


def test_the_joint_chance_of_unlikely_answers_does_not_cancel():
    """Two right answers of probability 1e-9, both drawn among four: each counts 1/4, var (1/16) (2 - 2 * 16/12)."""
    drawn = np.array([[0, 1, 2, 2]])
    p = np.array([1e-9, 1e-9, 1 - 2e-9])
    estimate = from_distinct(np.array([1.0, 1.0, 0.0])[drawn], np.log(p)[drawn], drawn)
    assert estimate.values == pytest.approx(0.5)
    # off the diagonal 1 - pi_a pi_b / pi_ab = 1 - 16 / 12, on it 1 - pi_a = 1
    assert estimate.stderr == pytest.approx(np.sqrt(2 / 16 * (1 - 1 / 3)), rel=1e-6)


@pytest.mark.parametrize(
    ("p", "right", "distinct", "branches"),
    [
        ([0.9] + [0.005] * 20, 1, 0.0000, 0.0225),  # one right answer of 0.9
        ([0.5] + [0.025] * 20, 1, 0.0167, 0.0625),  # of 0.5
        ([0.3, 0.6] + [0.005] * 20, 1, 0.0284, 0.0525),  # a dominant wrong answer
        ([0.001] * 1000, 500, 0.0625, 0.0625),  # the mass in a thousand answers
    ],
)
def test_concentrated_answers_have_no_variance_left(p, right, distinct, branches):
    """The exact variances at n = 4, by the formula of the docstring over the whole population."""
    p, n = np.array(p[:right]), 4
    chance = 1 - (1 - p) ** n
    both = 1 - (1 - p[:, None]) ** n - (1 - p) ** n + (1 - p[:, None] - p) ** n
    np.fill_diagonal(both, chance)
    exact = (p[:, None] * p * (both / (chance[:, None] * chance) - 1)).sum()
    assert exact == pytest.approx(distinct, abs=1.5e-4)
    assert p.sum() * (1 - p.sum()) / n == pytest.approx(branches, abs=1e-12)


def test_what_is_undecided_is_left_out_of_the_mass():
    reward = np.array([1.0, np.nan, 0.0])
    p = np.array([0.3, 0.4, 0.3])
    drawn = np.array([[0, 1, 2, 0], [1, 1, 1, 1]])
    estimate = from_distinct(reward[drawn], np.log(p)[drawn], drawn)
    right, undecided = 0.3 / (1 - 0.7**4), 0.4 / (1 - 0.6**4)
    assert estimate.values[0] == pytest.approx(right / (1 - undecided))
    assert np.isnan(estimate.values[1]) and np.isnan(estimate.stderr[1])
    assert estimate.n.tolist() == [3, 0]


def test_branches_that_were_not_drawn_do_not_count():
    nan = np.nan
    few = from_distinct(np.array([[1.0, 0.0]]), np.log([[0.5, 0.2]]), np.array([[0, 1]]))
    padded = from_distinct(np.array([[1.0, nan, 0.0]]), np.log([[0.5, nan, 0.2]]), np.array([[0, 7, 1]]))
    for a, b in zip(few, padded, strict=True):
        assert np.array_equal(a, b)
    none = from_distinct(np.full((1, 2), nan), np.full((1, 2), nan), np.zeros((1, 2), dtype=int))
    assert np.isnan(none.values[0]) and none.n.tolist() == [0]
    one = from_distinct(np.array([[1.0]]), np.log([[0.5]]), np.array([[0]]))
    assert (one.values[0], np.isnan(one.stderr[0])) == (1.0, True)  # p / p


def test_a_certain_answer_is_certain():
    estimate = from_distinct(np.array([[1.0, 1.0]]), np.array([[0.0, 1e-12]]), np.array([[3, 3]]))
    assert estimate.values[0] == 1.0 and estimate.stderr[0] == pytest.approx(0.0, abs=1e-7)


# -- known right answers ----------------------------------------------------------------------------------------------


def test_a_likelihood_has_no_sampling_error():
    estimate = from_likelihood(np.array([0.25, np.nan, 0.0]))
    assert np.array_equal(estimate.values, [0.25, np.nan, 0.0], equal_nan=True)
    assert np.array_equal(estimate.stderr, [0.0, np.nan, 0.0], equal_nan=True)
    assert estimate.n.tolist() == [0, 0, 0]


@pytest.mark.parametrize("known", [[], [0], [2], [0, 2]])
def test_hybrid_values_are_unbiased_whatever_is_known(known):
    """Answers 0 and 2 are right, 0.5 + 0.2; what is known of them is exact and only the rest is estimated."""
    left = RIGHT.copy()
    left[known] = 0.0
    drawn = np.array(list(itertools.product(range(4), repeat=3)))
    chances = np.prod(LETTERS[drawn], axis=1)
    exact = np.full(len(drawn), LETTERS[known].sum())
    estimate = from_hybrid(exact, left[drawn], np.log(LETTERS)[drawn], drawn)
    assert chances @ estimate.values == pytest.approx(0.7, abs=1e-12)
    variance = chances @ (estimate.values - 0.7) ** 2
    assert variance <= chances @ (from_distinct(RIGHT[drawn], np.log(LETTERS)[drawn], drawn).values - 0.7) ** 2 + 1e-15
    if known == [0, 2]:
        assert variance == pytest.approx(0.0, abs=1e-15)
