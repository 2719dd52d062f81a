"""Adaptive proving with the scripted engine, whose values are known."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headway.core.regret import step_weights
from headway.core.segment import boundaries
from headway.core.tally import ValueCurve
from headway.core.values import from_branches
from headway.procedures.adaptive import realized
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.types import HeadwayError

ASKED = Settings.of(model="scripted", problems="countdown", limit=8, traces=2, branches=2, budget=300)


def with_(**changes) -> Settings:
    return ASKED.changed(**changes)


def proved(path: Path, settings: Settings) -> Measurement:
    with Measurement.create(path, settings) as measurement:
        measurement.sample()
        measurement.prove()
        return measurement


def per_boundary(run: Run) -> Counter:
    return Counter((b.problem_id, b.index, b.boundary) for b in run.branches())


def keyed(run: Run) -> dict:
    return {(b.problem_id, b.index, b.boundary, b.branch): b for b in run.branches()}


def test_more_branches_go_where_the_steps_are_wide(tmp_path):
    counts = per_boundary(proved(tmp_path, with_(max_branches=1200)).run)
    assert sum(counts.values()) == 1200 and len(counts) == 8 * 2 * 7
    at = [np.mean([n for (_, _, j), n in counts.items() if j == boundary]) for boundary in range(7)]
    # the last value holds from the end of the thought to the end of the budget
    assert at[-1] > 3 * at[0] and at[-1] > 3 * at[3]


def test_the_precision_asked_for_is_reached_and_reported(tmp_path):
    measurement = proved(tmp_path, with_(precision=0.02))
    report = measurement.report()
    reached = report["precision"]
    assert 0.016 < reached["regret"] < 0.023
    assert (reached["boundaries"], reached["left_out"]) == (8 * 2 * 7, 0)
    assert json.loads((tmp_path / "report.json").read_text())["precision"] == reached
    made, script = measurement.table(), measurement.engine.values
    known = 0.0
    for problem, curve in zip(made.problems, made.curves, strict=True):
        V = np.array(script[problem])
        known += np.sum(step_weights(curve.tokens, 332.0) ** 2 * V * (1 - V) / curve.values.n)
    assert reached["regret"] == pytest.approx(np.sqrt(known) / len(made.curves), rel=0.15)


def curve(*counts: tuple[int, int]) -> ValueCurve:
    """Boundaries at 10, 20, .. tokens with so many right branches of so many."""
    rewards = np.full((len(counts), 9), np.nan)
    for row, (right, n) in zip(rewards, counts, strict=True):
        row[:n] = np.arange(n) < right
    positions = [10 * (j + 1) for j in range(len(counts))]
    return ValueCurve(positions, np.array(positions, dtype=float), from_branches(rewards))


def test_the_realized_precision_by_hand():
    # weights 0.1, 0.1, 0.7; variances 1/4 / 3, 0, 2/9 / 2
    reached = realized(["p", "q"], [curve((2, 4), (2, 2), (1, 3)), curve((0, 3), (0, 0), (3, 3))], 100)
    assert (reached.boundaries, reached.left_out) == (5, 1)
    assert reached.regret == pytest.approx(np.sqrt(0.1**2 / 12 + 0.7**2 / 9) / 2)
    assert reached.value == pytest.approx(np.sqrt((1 / 12 + 1 / 9) / 5))


def test_branches_that_all_agree_or_stand_alone_are_not_certain():
    problems = [f"p{i}" for i in range(20)]
    agree = realized(problems, [curve((2, 2), (2, 2)) for _ in problems], 100)
    assert 0 < agree.regret < 0.05
    alone = realized(problems, [curve((i % 2, 1), (1, 1)) for i in range(20)], 100)
    assert 0.02 < alone.regret < np.sqrt(20 * (0.1**2 + 0.8**2) * 0.25) / 20  # at most as if all values were a half
    mixed = realized(problems, [curve((1, 2), (1, 1)) for _ in problems], 100)
    assert mixed.value > np.sqrt(0.25 / 2)  # the second has one branch and more error than the first
    nothing = realized(problems[:1], [curve((0, 0))], 100)
    assert np.isnan(nothing.regret) and (nothing.boundaries, nothing.left_out) == (0, 1)


def test_each_value_may_be_asked_for(tmp_path):
    measurement = proved(tmp_path, with_(value_precision=0.2))
    assert 0.14 < measurement.report()["precision"]["value"] < 0.2
    counts, script = per_boundary(measurement.run), measurement.engine.values
    by_variance = sorted((V * (1 - V), counts[p, i, j]) for p, i, j in counts for V in [script[p][j]])
    assert np.mean([n for _, n in by_variance[:30]]) < np.mean([n for _, n in by_variance[-30:]])


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    settings = with_(precision=0.02)
    proved(tmp_path / "whole", settings).report()
    whole = (tmp_path / "whole" / "report.json").read_bytes()
    lines = (tmp_path / "whole" / "branches.jsonl").read_bytes()
    first_round = 8 * 2 * 7 * 2 / lines.count(b"\n")
    assert first_round < 0.9
    for share in (0.5 * first_round, first_round + 0.02, 0.97):
        out = tmp_path / f"{share}"
        shutil.copytree(tmp_path / "whole", out)
        (out / "branches.jsonl").write_bytes(lines[: int(share * len(lines))])
        (out / "report.json").unlink()
        again = proved(out, settings)
        assert (out / "branches.jsonl").read_bytes() == lines
        again.report()
        assert (out / "report.json").read_bytes() == whole


def test_more_precision_keeps_the_branches_of_less(tmp_path):
    every = [keyed(proved(tmp_path / f"{p}", with_(precision=p)).run) for p in (0.1, 0.03, 0.02)]
    assert len(every[0]) == 8 * 2 * 7 * 2 < len(every[1]) < len(every[2])
    assert all(every[2][key] == branch for fewer in every for key, branch in fewer.items() if key in every[2])
    plain = keyed(proved(tmp_path / "plain", ASKED).run)
    assert plain == every[0]


def test_boundaries_without_weight_get_no_branches(tmp_path):
    measurement = proved(tmp_path, with_(max_branches=1000, budget=100, answer_tokens=5))
    asked, suffix, left_out = per_boundary(measurement.run), len(measurement.meta_prover.suffix), 0
    for trace in measurement.run.traces():
        positions = boundaries(measurement.segmenter(trace))
        assert (trace.closed, positions[-1]) == (False, 100)
        for j, e in enumerate(positions):
            beyond = e + suffix >= 105 and 0 < j < len(positions) - 1
            assert beyond == ((trace.problem_id, trace.index, j) not in asked)
            left_out += beyond
    assert measurement.report()["precision"]["left_out"] == left_out > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"precision": 0.0}, "precision must be above 0, got 0.0"),
        ({"max_branches": -1}, "max_branches must be above 0, got -1"),
        ({"precision": 0.1, "value_precision": 0.1}, "give one of them"),
        ({"precision": 0.1, "branches": 1}, "needs --branches of at least 2, got 1"),
        ({"max_branches": 223}, r"--max-branches 223 is less than one round of 2 branches .* \(224\)"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, says):
    with pytest.raises(HeadwayError, match=says):
        proved(tmp_path, with_(**changes))
