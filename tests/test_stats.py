import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.resampling import bootstrap_estimate, simultaneous_bands
from headway.core.stats import (
    SIGNED,
    UNIT,
    by_problem,
    difference_on_these,
    mean,
    mean_of_these,
    paired_difference,
    pass_at_k,
    wilson,
)


def clustered(rng, problems, traces, *, between=1.0, within=0.5):
    """Observations of which those of a problem share its difficulty, and their problems."""
    shared = rng.normal(scale=between, size=problems)
    values = shared[:, None] + rng.normal(scale=within, size=(problems, traces))
    return values.ravel(), [f"p{i}" for i in range(problems) for _ in range(traces)]


def test_clustered_error_by_hand():
    # mean 1/2; problem sums of deviations: 1/2 + 1/2, -1/2 - 1/2; se^2 = 2/1 * (1 + 1) / 4^2 = 1/4
    got = mean(np.array([1.0, 1.0, 0.0, 0.0]), ["a", "a", "b", "b"])
    assert (got.value, got.stderr, got.n, got.n_problems) == (0.5, 0.5, 4, 2)
    # Student's t with one degree of freedom at 0.975 is tan(0.475 pi)
    assert got.ci95 == pytest.approx((0.5 - 0.5 * np.tan(0.475 * np.pi), 0.5 + 0.5 * np.tan(0.475 * np.pi)))
    assert str(got) == "0.500 ± 0.500"


def test_traces_that_agree_are_no_more_than_their_problems():
    once, thrice = np.array([1.0, 0.0, 0.0, 1.0, 1.0]), np.repeat([1.0, 0.0, 0.0, 1.0, 1.0], 3)
    alone, together = mean(once, list("abcde")), mean(thrice, [p for p in "abcde" for _ in range(3)])
    assert together.stderr == pytest.approx(alone.stderr)
    # one trace each: the ordinary standard error, sqrt(3/10 / 5)
    assert alone.stderr == pytest.approx(0.06**0.5)


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 4)), min_size=2, max_size=30))
def test_clustered_error_is_the_double_sum(observations):
    x, cluster = np.array([o[0] for o in observations]), [o[1] for o in observations]
    C = len(set(cluster))
    deviations = x - x.mean()
    double = sum(
        deviations[i] * deviations[j]
        for i, j in itertools.product(range(len(x)), repeat=2)
        if cluster[i] == cluster[j]
    )
    got = mean(x, cluster)
    if C == 1:
        assert np.isnan(got.stderr)
    else:
        assert got.stderr**2 == pytest.approx(C / (C - 1) * double / len(x) ** 2, rel=1e-12, abs=1e-12)


def test_the_interval_covers_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    hits, naive_hits, runs = 0, 0, 2000
    for _ in range(runs):
        values, problems = clustered(rng, 12, 6)
        low, high = mean(values, problems).ci95
        hits += low <= 0 <= high
        low, high = mean(values, range(len(values))).ci95
        naive_hits += low <= 0 <= high
    # nominal 0.95; four standard errors of a share of 2000 are 0.02
    assert hits / runs == pytest.approx(0.95, abs=0.02)
    assert naive_hits / runs < 0.8  # as if traces were independent


def test_unknown_observations_are_left_out():
    got = mean(np.array([1.0, np.nan, 0.0, np.nan]), ["a", "a", "b", "c"])
    assert (got.value, got.n, got.n_problems) == (0.5, 2, 2)


def test_one_problem_has_no_error_and_none_no_mean():
    one = mean(np.array([1.0, 0.0]), ["a", "a"])
    assert one.value == 0.5
    assert np.isnan([one.stderr, *one.ci95]).all()
    none = mean(np.array([np.nan]), ["a"])
    assert np.isnan([none.value, none.stderr, *none.ci95]).all()
    assert (none.n, none.n_problems) == (0, 0)
    assert np.isnan(mean(np.array([]), []).value)


def test_means_by_problem():
    got = by_problem(np.array([1.0, 0.0, np.nan, np.nan, 0.5]), ["a", "a", "a", "b", "c"])
    assert got == {"a": 0.5, "c": 0.5}


def test_a_paired_difference_by_hand_over_shared_problems():
    # differences 0.5, 0, 0.25: mean 0.25, se^2 = 3/2 * (1/16 + 1/16 + 0) / 9 = 1/48
    got = paired_difference({"a": 0.0, "b": 0.5, "c": 0.5, "x": 1.0}, {"y": 0.0, "c": 0.75, "b": 0.5, "a": 0.5})
    assert (got.value, got.n_problems) == (0.25, 3)
    assert got.stderr == pytest.approx(48**-0.5)


def test_pairing_takes_out_what_makes_a_problem_hard():
    rng = np.random.default_rng(1)
    hardness = rng.normal(size=40)
    a, b = hardness + rng.normal(scale=0.1, size=40), hardness + 0.2 + rng.normal(scale=0.1, size=40)
    names = [f"p{i}" for i in range(40)]
    paired = paired_difference(dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True)))
    unpaired = np.hypot(mean(a, names).stderr, mean(b, names).stderr)
    assert paired.stderr < unpaired / 5
    assert paired.ci95[0] < 0.2 < paired.ci95[1]


def test_bands_cover_all_columns_at_once():
    rng = np.random.default_rng(2)
    runs, columns = 200, 8
    truth = np.linspace(0, 1, columns)
    all_in = one_in = 0
    for run in range(runs):
        values = truth + rng.normal(size=(40, 1)) * 0.3 + rng.normal(size=(40, columns)) * 0.3
        low, high = simultaneous_bands(values, resamples=300, seed=run)
        inside = (low <= truth) & (truth <= high)
        all_in += inside.all()
        one_in += inside[0]
    # nominal 0.95; four standard errors of a share of 200 are 0.06; one column alone is inside more often
    assert all_in / runs >= 0.89
    assert one_in >= all_in


def test_bands_where_nothing_varies_or_nothing_is_known():
    nan = np.nan
    zeros = np.zeros((50, 3))
    # no column has a spread: Student's t with 49 degrees in place of 1.96 in Wilson's interval of 0 of 50
    t = 2.0095752
    assert simultaneous_bands(zeros) == pytest.approx(np.array([[0.0] * 3, [t**2 / (50 + t**2)] * 3]), abs=1e-6)
    assert np.isnan(simultaneous_bands(np.array([[0.5, 0.0]]))).all()
    low, high = simultaneous_bands(np.array([[1.0, nan, 0.0], [0.0, nan, nan], [1.0, nan, nan]]))
    assert np.isnan([low[1:], high[1:]]).all()
    assert low[0] < 2 / 3 < high[0]
    assert np.isnan(simultaneous_bands(np.full((3, 2), nan))).all()


def test_a_column_in_which_few_problems_score_has_the_width_of_a_proportion_at_least():
    values = np.random.default_rng(6).random((30, 3))
    values[:, 0] = 0.0
    values[:3, 0] = 1.0
    low, high = simultaneous_bands(values)
    single_low, single_high = wilson(3.0, 30)
    assert low[0] <= single_low
    assert high[0] >= single_high
    assert low[0] > 0


def test_bands_are_the_same_for_the_same_seed():
    values = np.random.default_rng(3).random((10, 4))
    assert np.array_equal(simultaneous_bands(values, seed=7), simultaneous_bands(values, seed=7))
    assert not np.array_equal(simultaneous_bands(values, seed=7), simultaneous_bands(values, seed=8))


def test_wilson_has_width_where_all_agree():
    # z^2 = 3.8416: all of 4 right is (4 / (4 + z^2), 1)
    assert wilson(4.0, 4) == pytest.approx((4 / 7.8416, 1.0))
    assert wilson(0.0, 4) == pytest.approx((0.0, 3.8416 / 7.8416))
    # half of 4: 1/2 -+ z sqrt(1/16 + z^2 / 64) / (1 + z^2 / 4)
    half = 1.96 * np.sqrt(1 / 16 + 3.8416 / 64) / (1 + 3.8416 / 4)
    assert wilson(2.0, 4) == pytest.approx((0.5 - half, 0.5 + half))
    assert np.isnan(wilson(0.0, 0)).all()


@pytest.mark.parametrize("n", [1, 4, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for correct, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([1] * correct + [0] * (n - correct), k))
        assert pass_at_k(n, correct, k) == pytest.approx(np.mean([any(s) for s in subsets]))
    assert np.isnan(pass_at_k(n, 0, n + 1))


def test_a_bootstrapped_mean_has_the_clustered_error():
    rng = np.random.default_rng(4)
    values = rng.random(60)
    got = bootstrap_estimate(lambda w: w @ values / w.sum(axis=1), 60, n=60)
    plain = mean(values, range(60))
    assert got.value == pytest.approx(plain.value)
    # the bootstrap divides by n, the other by n - 1; 2000 resamples have an error of 1.6%
    assert got.stderr == pytest.approx(plain.stderr * np.sqrt(59 / 60), rel=0.06)
    # on each side the farther of two ends
    assert got.ci95 == pytest.approx(plain.ci95, abs=0.015)


def test_a_bootstrapped_ratio_covers_at_its_nominal_rate():
    rng = np.random.default_rng(5)
    hits, runs = 0, 300
    for seed in range(runs):
        size = rng.integers(1, 9, size=40)
        share = rng.beta(2, 3, size=40)  # mean 0.4 whatever the size
        right = rng.binomial(size, share)
        low, high = bootstrap_estimate(
            lambda w, r=right, s=size: (w @ r) / (w @ s), 40, n=40, resamples=400, seed=seed
        ).ci95
        hits += low <= 0.4 <= high
    # nominal 0.95; four standard errors of a share of 300 are 0.05
    assert hits / runs >= 0.9


def test_few_problems_have_no_bootstrapped_error():
    one = bootstrap_estimate(lambda w: w[:, 0] * 2.0, 1, n=3)
    assert (one.value, one.n, one.n_problems) == (2.0, 3, 1)
    assert np.isnan([one.stderr, *one.ci95]).all()
    assert np.isnan(bootstrap_estimate(lambda w: w.sum(axis=1), 0, n=0).value)


def test_resamples_without_a_value_are_left_out_and_leave_no_interval():
    # the statistic is known only where both problems are drawn, once each
    got = bootstrap_estimate(lambda w: np.where(w.min(axis=1) > 0, 5.0, np.nan), 2, n=2)
    assert (got.value, got.stderr) == (5.0, 0.0)
    assert np.isnan(got.ci95).all()


def test_fewer_than_twelve_telling_problems_leave_no_interval():
    x = np.random.default_rng(7).random(20)
    told = [bootstrap_estimate(lambda w: w @ x / w.sum(axis=1), 20, n=20, telling=k) for k in (11, 12)]
    assert np.isnan(told[0].ci95).all()
    assert told[1].ci95[0] < told[1].value < told[1].ci95[1]


def test_zero_of_fifty_problems_are_up_to_seven_percent():
    names = [f"p{i}" for i in range(50) for _ in range(4)]
    # z^2 / (50 + z^2) with z = 1.96
    most = 3.8416 / 53.8416
    assert mean(np.zeros(200), names, within=UNIT).ci95 == pytest.approx((0.0, most))
    assert mean(np.ones(200), names, within=UNIT).ci95 == pytest.approx((1 - most, 1.0))
    # all traces are cut at 300 tokens: shorter ones may have been missed, longer ones there are not
    assert mean(np.full(200, 300.0), names, within=(0.0, 300.0)).ci95 == pytest.approx((300 * (1 - most), 300.0))
    assert np.isnan(mean(np.full(200, 6.0), names).ci95).all()


def test_equal_differences_are_not_certain():
    same = {f"p{i}": 0.25 for i in range(50)}
    most = 3.8416 / 53.8416
    assert paired_difference(same, same, within=SIGNED).ci95 == pytest.approx((-most, most))
    # one of 50 differs, by 1: Wilson's interval of 1 of 50 above; below, what no problem showed
    low, high = paired_difference(same, {**same, "p0": 1.25}, within=SIGNED).ci95
    up = wilson(1.0, 50)
    assert high == pytest.approx(0.02 + np.hypot(up[1] - 0.02, 0.0))
    assert low == pytest.approx(0.02 - np.hypot(0.02 - up[0], most))


def test_from_eight_problems_that_differ_on_the_interval_is_students_t():
    x = np.zeros(40)
    x[:7] = 1.0
    assert mean(x, range(40), within=UNIT).ci95 == pytest.approx(wilson(7.0, 40))
    x[7] = 1.0
    t, got = 2.0226909, mean(x, range(40), within=UNIT)
    assert got.ci95 == pytest.approx((0.2 - t * got.stderr, 0.2 + t * got.stderr), abs=1e-7)


def test_the_error_for_these_problems_by_hand():
    # traces 1 0 and 1 1: s^2 = 1/2 and 0; se^2 = (2/4)^2 * (1/2) / 2 = 1/16
    names = ["a", "a", "b", "b"]
    got = mean_of_these(np.array([1.0, 0.0, 1.0, 1.0]), names, within=UNIT)
    assert (got.value, got.stderr, got.n, got.n_problems) == (0.75, 0.25, 4, 2)
    # no spread within any problem: no error seen, but the interval of 2 of 4, however far apart the problems are
    sure = mean_of_these(np.array([1.0, 1.0, 0.0, 0.0]), names, within=UNIT)
    assert sure.stderr == 0
    assert sure.ci95 == pytest.approx(wilson(2.0, 4))
    assert mean(np.array([1.0, 1.0, 0.0, 0.0]), names, within=UNIT).stderr == 0.5
    assert np.isnan(mean_of_these(np.array([1.0, 0.0, 1.0]), ["a", "a", "b"]).ci95).all()


def test_a_difference_on_these_problems_reaches_as_far_as_both_means_do():
    rng = np.random.default_rng(8)
    names = [f"p{i}" for i in range(20) for _ in range(5)]
    a, b = (mean_of_these(rng.random(100), names) for _ in range(2))
    got = difference_on_these(a, b, b.value - a.value)
    assert got.stderr == pytest.approx(np.hypot(a.stderr, b.stderr))
    # for t intervals, which are symmetric, the square root of the sum of the squared half widths
    half = np.hypot(a.ci95[1] - a.value, b.ci95[1] - b.value)
    assert got.ci95 == pytest.approx((got.value - half, got.value + half))
