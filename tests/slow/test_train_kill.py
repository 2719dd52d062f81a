"""A training that is killed at any moment, also while it writes a checkpoint, and resumed equals one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from headway.training.checkpoints import SAVING

RECIPE = {
    "model_name_or_path": "builtin:countdown", "problems": "countdown-train", "limit": 16, "values": "likelihood",
    "answer_tokens": 16, "num_generations": 4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
    "max_completion_length": 48, "learning_rate": 1e-3, "max_steps": 6, "activation_checkpointing": False,
    "logging_steps": 1, "save_strategy": "steps", "save_steps": 1, "report_to": "none", "disable_tqdm": True,
    "dataloader_pin_memory": False, "use_cpu": True,
}  # fmt: skip


def start(out: Path) -> subprocess.Popen[bytes]:
    recipe = out.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    command = [sys.executable, "-m", "headway", "train", "--config", str(recipe), "--output_dir", str(out)]
    if any(out.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "true"]
    with (out.parent / f"{out.name}.txt").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def kill(running: subprocess.Popen[bytes]) -> None:
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0, (tmp_path / "whole.txt").read_text()[-3000:]
    seconds, rng, writing = time.monotonic() - begun, random.Random(0), 0
    for attempt in range(10):
        out = tmp_path / f"killed-{attempt}"
        running, until = start(out), time.monotonic() + rng.uniform(0.4, 1.0) * seconds
        aimed = out / SAVING / f"checkpoint-{rng.randint(1, 6)}"
        while running.poll() is None and (not aimed.exists() if attempt % 2 else time.monotonic() < until):
            time.sleep(0.0005)
        kill(running)
        writing += (out / SAVING).exists()
        print(attempt, sorted(p.name for p in out.iterdir()) if out.exists() else [])
        assert start(out).wait() == 0, (tmp_path / f"{out.name}.txt").read_text()[-3000:]
        for name in ("model.safetensors", "traces.jsonl"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert not (out / SAVING).exists()
    assert writing > 1, "no kill came while a checkpoint was written"
