"""The error bars cover the truth: problems drawn anew for each seed, the truth that of all problems."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    file = Path(__file__).parent.parent / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_coins_through_the_estimators_are_the_whole_measurement(coverage):
    costs = coverage.bare_costs()
    truth = coverage.truth(costs)
    whole = [coverage.whole(seed) for seed in range(2)]
    fast = [coverage.fast((seed, costs, adaptively)) for seed in range(2) for adaptively in (False, True)]
    # the same problems: estimates differ by the branches' error only, a fraction of that of the problems
    for seed in range(2):
        for other in fast[2 * seed : 2 * seed + 2]:
            assert abs(whole[seed].value - other.value) < 0.4 * whole[seed].stderr
            assert whole[seed].stderr == pytest.approx(other.stderr, rel=0.1)
    assert all(abs(seen.value - truth) < 4 * seen.stderr for seen in whole)


def test_the_truth_by_drawing(coverage):
    costs = coverage.bare_costs()
    values = [coverage.fast((seed, costs, False)).value for seed in range(25)]
    stderr = np.std(values) / np.sqrt(len(values))
    assert stderr < 0.004
    assert abs(np.mean(values) - coverage.truth(costs)) < 4 * stderr


@pytest.mark.slow
def test_two_errors_and_the_interval_cover_at_their_rates(coverage):
    costs = coverage.bare_costs()
    truth = coverage.truth(costs)
    whole = coverage.covered([coverage.whole(seed) for seed in range(100)], truth)
    assert whole["within_2_stderr"] >= 0.93
    for adaptively in (False, True):
        fast = coverage.covered([coverage.fast((seed, costs, adaptively)) for seed in range(1000)], truth)
        assert 0.93 <= fast["ci95_covers"] <= 0.97
