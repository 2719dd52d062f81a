"""The examples run, and show what they say."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_traces_in_a_frame_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    example("measure_your_traces")["main"]()
    said = capsys.readouterr().out
    assert "pass@1 0.750" in said and "regret of one trace up to 100 tokens: 0.49" in said


def test_a_credit_is_a_function_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    import headway

    schemes = headway.SCHEMES  # the one table of all modules: what the example adds is taken away again
    monkeypatch.setitem(schemes, "decisive", schemes["episode"])
    first, second = example("add_your_credit")["main"]()
    # progress 0, .5, .25, only .5 counts; the other trace has .25 and -.25, both the largest
    np.testing.assert_allclose(first, [[0 - 0.25, 0.5 + 0.25, 0 - 0.0]] * 2)
    np.testing.assert_allclose(second, [[0.25 - 0, -0.25 - 0.5]] * 2)


@pytest.mark.extras
def test_the_loop_trains_the_built_in_model(capsys: pytest.CaptureFixture[str]) -> None:
    loop = example("mrt_loop")
    loop["PROBLEMS_PER_STEP"] = 1
    rewards = loop["train"](2, "episode")
    assert len(rewards) == 2 and all(0 <= r <= 1 for r in rewards)
    assert "progress of an episode" in capsys.readouterr().out
