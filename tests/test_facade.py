"""The public names: loaded when first used, and what they take from a notebook."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import headway
from headway.types import Episode, HeadwayError, Trace

PROBLEMS = pd.DataFrame({"prompt": ["What is 1 + 1?", "What is 2 + 1?"], "answer": ["2", "3"]})
SMALL: dict[str, Any] = dict(traces=2, branches=3)


def same(answer: str, reference: str) -> bool:
    return answer.strip() == reference.strip()


def halves(trace: Trace) -> list[Episode]:
    middle = trace.thinking // 2
    return [Episode(0, middle), Episode(middle, trace.thinking)] if middle else []


def test_importing_headway_loads_nothing_heavy() -> None:
    code = "import headway, sys; print(*sorted({'torch', 'numpy', 'transformers', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_command_line_starts_as_a_module_and_loads_no_torch() -> None:
    code = "import sys, headway.cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    told = subprocess.run([sys.executable, "-m", "headway", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"headway {headway.__version__}\n"


def test_a_line_of_numbers_takes_lists() -> None:
    # up to 10 tokens nothing can be answered, from 10 to 40 with .2, from 40 to 70 with .6, then .9
    by_hand = 1 - (0 * 10 + 0.2 * 30 + 0.6 * 30 + 0.9 * 30) / 100
    assert headway.regret([10, 40, 70], [0.2, 0.6, 0.9], 100) == pytest.approx(by_hand)
    assert headway.regret(np.array([10, 40]), pd.Series([0.0, 1.0]), [40, 80]).tolist() == [1.0, 0.5]
    assert headway.progress([0.25, 0.5, 0.25]).tolist() == [0.25, -0.25]


def test_measure_takes_frames_dicts_and_functions_and_gives_frames(tmp_path: Path) -> None:
    result = headway.measure("scripted", PROBLEMS, out=str(tmp_path / "a"), grader=same, segment=halves, **SMALL)
    assert result.report["episodes"]["value"] == 2 and result.path == tmp_path / "a"
    assert set(result.frame().quantity) >= {"pass_at_1", "budget_curve", "normalized_regret"}
    assert len(result.traces()) == 4
    again = headway.measure(
        "scripted", PROBLEMS.to_dict("records"), out=tmp_path / "b", grader=same, segment=halves, **SMALL
    )
    assert again.frame().drop(columns="run").equals(result.frame().drop(columns="run"))
    compared = headway.compare([result, again])
    assert set(compared.kind) == {"estimate", "difference"}


def test_compare_names_its_runs(tmp_path: Path) -> None:
    runs = {name: headway.measure("scripted", limit=3, seed=seed, **SMALL) for seed, name in enumerate("ab")}
    compared = headway.compare(runs, out=tmp_path / "c")
    assert list(dict.fromkeys(compared.run)) == ["a", "b"]
    assert (tmp_path / "c/report.html").exists()
    assert compared[(compared.kind == "difference") & (compared.quantity == "pass_at_1")].n_problems.tolist() == [3]


def test_completions_made_elsewhere_are_measured_in_one_line() -> None:
    completions = PROBLEMS.assign(
        completion=["<think>1 + 1.\n\nSo 2.</think>\\boxed{2}", "<think>4?</think>\\boxed{4}"]
    )
    result = headway.measure("scripted", completions=completions, author="someone", grader=same, branches=2)
    assert (result.report["model"], result.report["meta_prover"]) == ("someone", "scripted")
    assert result.report["pass_at_1"]["value"] == 0.5
    with pytest.raises(HeadwayError, match="is not empty"):  # other completions never stand under an old report
        headway.measure("scripted", completions=completions[:1], out=result.path, grader=same, branches=2)
    with pytest.raises(HeadwayError, match="bring their own problems"):
        headway.measure("scripted", PROBLEMS, completions=completions, grader=same)


def test_a_run_with_functions_is_not_continued_without_them(tmp_path: Path) -> None:
    headway.measure("scripted", PROBLEMS, out=tmp_path, grader=same, segment=halves, **SMALL)
    from headway.runs.measure import Measurement
    from headway.runs.store import Run

    with pytest.raises(HeadwayError, match=r"made with the Python function 'same' as grader; continue it from Python"):
        Measurement(Run.load(tmp_path))


def test_what_cannot_be_measured_is_one_message() -> None:
    with pytest.raises(HeadwayError, match="did you mean 'traces'"):
        headway.measure("scripted", trace=3)
    with pytest.raises(HeadwayError, match="Problems, dicts or a frame"):
        headway.measure("scripted", ["What is 1 + 1?"])
    with pytest.raises(HeadwayError, match="no column for the reference answer"):
        headway.measure("scripted", [{"prompt": "What is 1 + 1?"}])


@pytest.mark.parametrize("name", [n for n in headway.__all__ if n not in ("MRTConfig", "MRTTrainer", "dataset_of")])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(headway, name) is not None
