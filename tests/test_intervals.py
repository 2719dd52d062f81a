"""Each interval of a report covers the truth, also where few problems score: benchmarks/intervals.py, small.

A few hundred runs: four standard errors of a coverage of 0.95 are 0.05. results/coverage has more.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SELDOM = 0.9  # where more runs than that have no interval, the few that have one say nothing


@pytest.fixture(scope="module")
def intervals() -> ModuleType:
    spec = importlib.util.spec_from_file_location("intervals_benchmark", ROOT / "benchmarks/intervals.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("population", "problems"), [("rare", 15), ("skewed", 30)])
def test_each_interval_covers_at_its_rate(intervals: ModuleType, population: str, problems: int) -> None:
    true = intervals.truths(population, np.random.default_rng(1))
    found = intervals.coverage(population, problems, true, 250, slow=2)
    known = {name: row for name, row in found.items() if row["no_interval"] < SELDOM}
    assert {
        name: row for name, row in known.items() if row["covers"] < 0.95 - 4 * (0.05 * 0.95 / row["runs"]) ** 0.5
    } == {}


def test_the_stored_coverage_is_that_which_the_documents_state() -> None:
    files = sorted((ROOT / "results/coverage").glob("*.json"))
    assert [file.stem for file in files] == ["rare", "skewed", "uniform"]
    for file in files:
        for name, sizes in json.loads(file.read_text())["intervals"].items():
            assert set(sizes) == {"15", "30", "60", "120"}
            for row in sizes.values():
                if row["no_interval"] < SELDOM:
                    assert row["covers"] >= 0.93 - 2 * row["error"], (file.stem, name)
