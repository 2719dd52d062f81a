"""The rivals of MRT: one step of each recipe in recipes/rivals, and values of the policy that goes on by itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from headway.credit import SCHEMES
from headway.training import main

# third parties warn about their own futures
pytestmark = pytest.mark.filterwarnings("default")

RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "rivals").glob("*.yaml"))
SMALL = dict(
    limit=8, num_generations=4, per_device_train_batch_size=8, max_completion_length=64, steps_per_generation=1,
    max_steps=1, branches=2, use_cpu=True, disable_tqdm=True,
)  # fmt: skip


def test_there_is_a_recipe_for_each_rival() -> None:
    assert {path.stem for path in RECIPES} == {"brpo", "dler", "grpo_vps", "length_penalty", "s_grpo", "vineppo"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_trains(path: Path, tmp_path: Path) -> None:
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main(["--config", str(path), "--output_dir", str(tmp_path), *options])
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    scheme = SCHEMES[yaml.safe_load(path.read_text())["credit"]]
    bonuses = np.concatenate([line["bonuses"] for line in lines])
    assert np.isfinite(bonuses).all()
    if scheme.needs_values:
        assert (bonuses != 0).any()
    assert (tmp_path / "model.safetensors").exists()
