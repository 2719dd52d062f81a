"""Fixed runs and trainings give the numbers that were stored before the package was divided into rooms.

    pytest tests/test_same_numbers.py -m "slow or not slow"     all of them, three minutes
    python tests/test_same_numbers.py --store                   stores them anew: only with a change that is meant

On the machine that stored them (its CPU and its torch), numbers and weights are equal to the last digit. Another CPU
adds floats in another order, so elsewhere numbers are equal to a relative 1e-9 and weights to 1e-4.
"""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from operator import eq
from pathlib import Path
from typing import Any

import pytest

STORED = Path(__file__).parent / "fixtures/same_numbers.json"
# entries of report.json whose name has changed since: old path, new path
RENAMED = {"values.calibration": "values.mean_gap"}

COUNTDOWN = "--model builtin:countdown --traces 2 --branches 4 --budget 192 --answer-tokens 16"
REPORTS = {
    "scripted": "--model scripted --limit 12 --traces 3 --branches 8",
    "scripted-adaptive": "--model scripted --limit 12 --traces 2 --precision 0.02",
    "scripted-hybrid": "--model scripted --limit 8 --traces 2 --values hybrid",
    "builtin": f"{COUNTDOWN} --limit 12",
    "builtin-hybrid": f"{COUNTDOWN} --limit 8 --values hybrid",
}
TRAINED = {
    **{name: f"--credit {name}" for name in ("grpo", "episode", "to_go", "stale_prefix", "brpo", "mig")},
    **{f"episode-{kind}": f"--credit episode --values {kind}" for kind in ("distinct", "likelihood", "hybrid")},
}
RECIPE = (
    "--model_name_or_path builtin:countdown --problems countdown-train --limit 40 --num_generations 4 "
    "--per_device_train_batch_size 24 --gradient_accumulation_steps 1 --max_completion_length 120 "
    "--learning_rate 3e-4 --lr_scheduler_type constant --max_steps 4 --activation_checkpointing false "
    "--logging_steps 1 --save_strategy no --report_to none --dataloader_pin_memory false --branches 2 "
    "--answer_tokens 16 --max_episodes 6 --seed 5"
)


def machine() -> str:
    """What decides the last digits: the CPU and torch."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    torch = version("torch") if find_spec("torch") else "none"
    return f"{cpu.partition(': ')[2] or platform.processor()}, torch {torch}"


def headway(arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "headway", *arguments.split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def report_of(name: str, folder: Path) -> dict[str, Any]:
    headway(f"measure {REPORTS[name]} --out {folder / name}")
    found: dict[str, Any] = json.loads((folder / name / "report.json").read_text())
    return found


def weights_of(name: str, folder: Path) -> dict[str, Any]:
    """A digest of the weights after four steps, and the sum of each tensor."""
    from safetensors.numpy import load_file

    headway(f"train {RECIPE} {TRAINED[name]} --output_dir {folder / name}")
    weights = load_file(folder / name / "model.safetensors")
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + weights[key].tobytes())
    return {"sha256": digest.hexdigest(), "sum": {k: float(w.astype(float).sum()) for k, w in sorted(weights.items())}}


def old_name(path: str) -> str:
    return next((old + path.removeprefix(new) for old, new in RENAMED.items() if path.startswith(new)), path)


def flat(content: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a report by their path."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if parts is None:
        return {old_name(path): content}
    return {k: v for key, part in parts for k, v in flat(part, f"{path}.{key}" if path else str(key)).items()}


def near(a: Any, b: Any) -> bool:
    """Whether two leaves are equal, numbers to a relative 1e-9."""
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) if isinstance(a, float) and isinstance(b, float) else a == b


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(STORED.read_text())
    return content


@pytest.mark.parametrize(
    "name", [n if n.startswith("scripted") else pytest.param(n, marks=pytest.mark.slow) for n in REPORTS]
)
def test_a_fixed_run_has_the_report_it_had(name: str, stored: dict[str, Any], tmp_path: Path) -> None:
    now, before = flat(report_of(name, tmp_path)), flat(stored[name])
    assert now.keys() >= before.keys()  # what is new since then is not compared
    same = eq if stored["machine"] == machine() else near
    assert {k: (before[k], now[k]) for k in before if not same(before[k], now[k])} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_four_steps_of_each_credit_end_in_the_weights_they_ended_in(
    name: str, stored: dict[str, Any], tmp_path: Path
) -> None:
    now, before = weights_of(name, tmp_path), stored[name]
    assert now["sum"] == pytest.approx(before["sum"], rel=1e-4, abs=1e-3)
    if stored["machine"] == machine():
        assert now["sha256"] == before["sha256"]


if __name__ == "__main__":
    import tempfile

    if sys.argv[1:] != ["--store"]:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as place:
        made = {name: report_of(name, Path(place)) for name in REPORTS}
        made |= {name: weights_of(name, Path(place)) for name in TRAINED}
    STORED.write_text(json.dumps({"machine": machine(), **made}, separators=(",", ":")) + "\n")
