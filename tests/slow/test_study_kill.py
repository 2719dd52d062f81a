"""A cell of a study that is killed while it trains and run again ends in the result of one that was never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.runs.study.cell import read_json

STEPS = 6
PART = {"limit": 4, "traces": 2}
COUNTDOWN = {"start": "builtin:countdown", "test": "countdown", "validation": "countdown-validation"}
STUDY = {
    "page": "study.md", "seeds": [1], "budget": 48, "answer_tokens": 16, "multiples": [1, 2], "grid_tokens": 32,
    "curves": PART, "votes": PART, "also": PART, "validation": PART, "baseline": "to_go",
    "train": {
        "problems": "countdown-train", "limit": 20, "num_generations": 4, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1, "max_completion_length": 64, "answer_tokens": 16, "learning_rate": 1e-3,
        "max_steps": STEPS, "save_steps": 1, "activation_checkpointing": False, "dataloader_pin_memory": False,
    },
    "settings": {"one": COUNTDOWN},
    "methods": {"to_go": {"train": {"credit": "to_go", "values": "branches", "branches": 2}}},
}  # fmt: skip
TIMES = {"step_time"}  # of the log; all else must be equal


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | {"results": str(folder / "results"), "work": str(folder / "work")}))
    command = [sys.executable, "-m", "headway", "study", "--config", str(file), "--cell", "one/to_go/1"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def result(folder: Path) -> dict[str, Any]:
    made = read_json(folder / "results/cells/one/to_go/1.json")
    training = {name: x for name, x in made["training"].items() if name not in TIMES and "seconds" not in name}
    return {"tests": made["tests"], "training": training, "steps": made["cost"]["steps"]}


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4])
def test_a_kill_in_the_training_changes_nothing(tmp_path: Path, step: int) -> None:
    assert start(tmp_path / "whole").wait() == 0, (tmp_path / "whole/log.txt").read_text()[-3000:]
    killed = tmp_path / "killed"
    running, state = start(killed), killed / f"work/one/to_go/1/model/checkpoint-{step}/trainer_state.json"
    while not state.exists() and running.poll() is None:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (killed / "work/one/to_go/1/model/trainer_state.json").exists(), "it was killed too late"
    assert start(killed).wait() == 0, (killed / "log.txt").read_text()[-3000:]
    assert result(killed) == result(tmp_path / "whole")
    assert result(killed)["steps"] == STEPS
