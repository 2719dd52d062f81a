"""Values that are not known are said and counted, never 0 and never silent."""

from pathlib import Path

import numpy as np
import pytest

from headway.problems import ProblemSet
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import HeadwayError, Problem

KNOWN = [Problem("a", "2 + 2?", "4"), Problem("b", "3 + 2?", "5")]
UNKNOWN = [Problem("c", "Why?", "because of the\nweather"), Problem("d", "How?", "slowly\nand well")]


def measurement(path: Path, problems: list[Problem], values: str) -> Measurement:
    settings = Settings.of(model="scripted", problems="own", traces=2, branches=2, values=values, grader="exact")
    return Measurement.create(path, settings, problems=ProblemSet("own", problems, "exact"))


@pytest.mark.parametrize(
    ("values", "then"), [("likelihood", "their values are unknown"), ("hybrid", "branches alone")]
)
def test_problems_without_a_form_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, values: str, then: str
) -> None:
    with measurement(tmp_path / "r", [*KNOWN, *UNKNOWN], values) as run:
        report, table = run.all(), run.table()
    assert f"2 of 4 problems (such as 'c') have no known form of a correct answer: {then}" in caplog.text
    boundaries = sum(len(c.boundaries) for c, p in zip(table.curves, table.problems, strict=True) if p in "cd")
    assert report["values"]["without_form"] == {"problems": 2, "boundaries": boundaries}
    unknown = [np.isnan(c.values.values).all() for c in table.curves]
    assert unknown == [p in "cd" and values == "likelihood" for p in table.problems]


def test_where_all_have_a_form_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with measurement(tmp_path / "r", KNOWN, "likelihood") as run:
        assert "without_form" not in run.all()["values"]
    assert not caplog.records


def test_where_none_has_a_form_likelihoods_are_refused_and_branches_are_not(tmp_path: Path) -> None:
    with (
        measurement(tmp_path / "r", UNKNOWN, "likelihood") as run,
        pytest.raises(HeadwayError, match=r"2 of 2 .*--values"),
    ):
        run.all()
    with measurement(tmp_path / "s", UNKNOWN, "hybrid") as run:
        assert run.all()["values"]["without_form"]["problems"] == 2
