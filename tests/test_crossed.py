"""Errors over seeds and problems: hand numbers, and simulations in which the truth is known."""

import numpy as np
import pytest

from headway.core import crossed, stats

HAND = np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]])


def simulated(rng: np.random.Generator, S: int, P: int, *, mean: float, seeds: float = 0.02) -> np.ndarray:
    """Success of S trainings on P problems: seeds, problems, and the rest."""
    return (
        mean + rng.normal(0, seeds, (S, 1)) + rng.normal(0, 0.2, (1, P)) + rng.normal(0, 0.3, (S, P))
    )  # fmt: skip


def test_mean_squares_by_hand() -> None:
    # mean 4, rows -1 and +1, columns -2, -2, +4; rest: (-.., ..) = [0 1 -1; 0 -1 1]
    squares = crossed.parts(HAND, HAND)
    assert squares.seeds == pytest.approx(3 * (1 + 1) / 1)
    assert squares.problems == pytest.approx(2 * (4 + 4 + 16) / 2)
    assert squares.rest == pytest.approx(4 / 2)
    assert squares.variance == pytest.approx((6 + 24 - 2) / 6)
    estimate = crossed.mean(HAND)
    assert (estimate.value, estimate.n, estimate.n_problems) == (4.0, 6, 3)
    assert estimate.stderr == pytest.approx((28 / 6) ** 0.5)


def test_products_of_two_tables_are_bilinear() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 7))
    both = crossed.parts(x + 3 * y, x + 3 * y).variance
    parts = [crossed.parts(a, b).variance for a, b in ((x, x), (x, y), (y, y))]
    assert both == pytest.approx(parts[0] + 6 * parts[1] + 9 * parts[2])


def test_one_seed_has_the_error_over_problems() -> None:
    x = np.random.default_rng(0).normal(size=(1, 40))
    expected = stats.mean(x[0], [str(i) for i in range(40)])
    found = crossed.mean(x)
    assert found.stderr == pytest.approx(expected.stderr)
    assert found.ci95 == pytest.approx(expected.ci95)


def test_nothing_is_known_without_two_problems() -> None:
    assert np.isnan(crossed.mean(np.ones((3, 1))).stderr)
    assert np.isnan(crossed.mean(np.empty((0, 0))).value)


def test_the_variance_is_unbiased_and_the_intervals_cover() -> None:
    rng, S, P = np.random.default_rng(1), 5, 120
    values, claimed, mean_in, ratio_in, naive_in = [], [], [], [], []
    for _ in range(800):
        start = rng.normal(0, 0.1, (1, P))  # noise of the start's measurement, which all gains share
        a, b = (simulated(rng, S, P, mean=m) - start for m in (0.2, 0.1))
        found = crossed.mean(a)
        values.append(found.value)
        claimed.append(found.stderr**2)
        mean_in.append(found.ci95[0] <= 0.2 <= found.ci95[1])
        naive = stats.mean(a.mean(axis=0), [str(i) for i in range(P)])
        naive_in.append(naive.ci95[0] <= 0.2 <= naive.ci95[1])
        ratio = crossed.ratio_of_means(a, b)
        ratio_in.append(not ratio.bounded or ratio.ci95[0] <= 2 <= ratio.ci95[1])
    assert np.mean(claimed) == pytest.approx(np.var(values), rel=0.15)
    assert np.mean(mean_in) >= 0.93
    assert np.mean(ratio_in) >= 0.93
    assert np.mean(naive_in) < np.mean(mean_in)  # problems alone leave the seeds out


def test_where_seeds_differ_much_problems_alone_are_far_too_sure() -> None:
    rng = np.random.default_rng(2)
    found = [simulated(rng, 5, 60, mean=0.0, seeds=0.1) for _ in range(400)]
    crossed_in = [abs(e.value) <= e.ci95[1] - e.value for e in map(crossed.mean, found)]
    names = [str(i) for i in range(60)]
    naive = [stats.mean(x.mean(axis=0), names) for x in found]
    assert np.mean(crossed_in) >= 0.93
    assert np.mean([abs(e.value) <= e.ci95[1] - e.value for e in naive]) < 0.75


def test_a_ratio_by_hand() -> None:
    x = np.random.default_rng(3).normal(1.0, 0.1, (4, 9))
    twice = crossed.ratio_of_means(2 * x, x)
    assert twice.value == pytest.approx(2) and twice.ci95 == pytest.approx((2, 2))
    # with an exact denominator it is the mean's own interval, scaled
    above = np.random.default_rng(4).normal(1.0, 0.5, (4, 9))
    ratio, mean = crossed.ratio_of_means(above, np.full((4, 9), 4.0)), crossed.mean(above)
    assert ratio.ci95 == pytest.approx((mean.ci95[0] / 4, mean.ci95[1] / 4))


def test_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    rng = np.random.default_rng(5)
    ratio = crossed.ratio_of_means(rng.normal(1, 0.1, (3, 20)), rng.normal(0, 1, (3, 20)))
    assert not ratio.bounded and np.isnan(ratio.ci95).all() and not np.isnan(ratio.value)


def test_resamples_weigh_both_axes() -> None:
    seeds, problems = crossed.resampled(3, 5, resamples=200)
    assert seeds.shape == (200, 3) and problems.shape == (200, 5)
    assert seeds.sum(axis=1) == pytest.approx(1.0) and problems.sum(axis=1) == pytest.approx(1.0)
    assert seeds.std() > 0 and problems.std() > 0
