"""Recipes that cannot be used are one message, before torch and TRL are imported."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from headway.runs.recipe_file import check_recipe, options_of
from headway.types import HeadwayError

BAD = {
    "a list that is not closed": "a: [1, 2\n",
    "a tab": "a:\n\tb: 1\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "Python": "a: !!python/object/apply:os.system ['true']\n",
    "a tag": "a: !foo 1\n",
    "a NUL": "a: 1\0\n",
    "a list": "- 1\n- 2\n",
    "nothing": "",
    "a text": "hello\n",
    "a number as key": "1: 2\n",
    "a truth as key": "on: 2\n",
    "a list as key": "? [1]\n: 2\n",
    "a date": "limit: 2020-01-01\n",
    "bytes": "limit: !!binary aGVsbG8=\n",
    "a set": "limit: !!set {a, b}\n",
    "infinite": "limit: .inf\n",
    "not a number": "temperature: .nan\n",
    "beyond any size": f"limit: {10**30}\n",
    "a large float": "limit: 1.0e+30\n",
    "infinite within": "model_init_kwargs: {a: [.inf]}\n",
    "an unknown alias": "a: *b\n",
    "a loop": "a: &a [*a]\n",
    "aliases": "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijk")),
    "an environment of a list": "env: [1]\n",
    "an environment of numbers": "env: {1: 2}\n",
    "an impossible variable": "env: {'a=b': c}\n",
}  # fmt: skip
GOOD = {
    "plain": "a: 1\nb: 1.0e-6\nc: text\nd: [q, v]\ne: {x: 1}\nf: true\ng: null\n",
    "a text of a number": "limit: '2020-01-01'\nlearning_rate: 1e-6\n",
    "one alias": "a: &a [1]\nb: *a\n",
    "a merge": "a: &a {x: 1}\nb: {<<: *a, y: 2}\n",
    "an environment": "env: {A: 1}\na: 1\n",
    "a byte order mark": "\ufeffa: 1\n",
    "one document": "---\na: 1\n...\n",
}


@pytest.mark.extras
@pytest.mark.parametrize("kind", BAD)
def test_a_recipe_that_cannot_be_used_is_one_message(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(BAD[kind], encoding="utf-8")
    with pytest.raises(HeadwayError) as raised:
        check_recipe(["--config", str(file)])
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 700


@pytest.mark.extras
@pytest.mark.parametrize("kind", GOOD)
def test_what_a_recipe_may_hold(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(GOOD[kind], encoding="utf-8")
    assert options_of(file)


@pytest.mark.extras
@pytest.mark.parametrize(
    "arguments", [["--config"], ["--config="], ["--config", "/nonexistent/r.yaml"], ["--config", "/"]]
)
def test_a_recipe_that_is_not_there_is_one_message(arguments: list[str]) -> None:
    with pytest.raises(HeadwayError, match=r"--config needs|cannot read the recipe"):
        check_recipe(arguments)


@pytest.mark.extras
def test_a_bad_recipe_is_said_before_trl_is_imported(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [1, 2\n")
    script = (
        "import sys; from headway.cli import main; sys.argv = ['headway', 'train', '--config', sys.argv[1]]\n"
        "try: main()\nexcept SystemExit as e: print(e.code, 'torch' in sys.modules, 'trl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "r.yaml")], capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False", "False"] and done.stderr.count("\n") == 1


TYPES = {
    "top_p": None, "max_steps": 1.5, "save_steps": [1], "seed": {"a": 1}, "learning_rate": None, "beta": [0.1],
    "branches": 1.5, "progress_weight": [1], "dtype": 16, "use_peft": 1,
    "limit": True, "output_dir": 3, "problems": ["a"], "gradient_accumulation_steps": "many",
}  # fmt: skip


@pytest.mark.extras
@pytest.mark.parametrize("name", TYPES)
def test_an_option_of_another_type_is_one_message(tmp_path: Path, name: str) -> None:
    recipe = pytest.importorskip("headway.training.recipe")
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps({name: TYPES[name]}))
    with pytest.raises(HeadwayError, match=name.strip()) as raised:
        recipe.parse(recipe.GROUPS, ["--config", str(file), "--bf16", "false"], "train")
    assert "\n" not in str(raised.value)


@pytest.mark.extras
@pytest.mark.parametrize(
    ("flag", "value"), [("--limit", "x"), ("--dtype", "evil"), ("--seed", "1.5"), ("--nonsense", "1")]
)
def test_a_flag_that_cannot_be_used_is_one_message(flag: str, value: str) -> None:
    recipe = pytest.importorskip("headway.training.recipe")
    with pytest.raises(HeadwayError, match=flag):
        recipe.parse(recipe.GROUPS, [flag, value, "--bf16", "false"], "train")


@pytest.mark.extras
def test_values_that_are_right_are_kept(tmp_path: Path) -> None:
    recipe = pytest.importorskip("headway.training.recipe")
    file = tmp_path / "r.yaml"
    given = {
        "temperature": 1, "learning_rate": "1e-5", "save_steps": 0.5, "limit": 3, "max_episodes": None,
        "dtype": "bf16",
        "lora_target_modules": ["q_proj", "v_proj"], "report_to": "none", "lr_scheduler_type": "cosine",
        "model_init_kwargs": {"attn_implementation": "eager"}, "reward_weights": [1.0], "save_strategy": "no",
        "use_cpu": True, "bf16": False,
    }  # fmt: skip
    file.write_text(json.dumps(given))
    arguments, args, model = recipe.parse(recipe.GROUPS, ["--config", str(file)], "train")
    assert (args.temperature, args.learning_rate, args.save_steps, arguments.limit) == (1.0, 1e-5, 0.5, 3)
    assert model.dtype == "bf16" and model.lora_target_modules == ["q_proj", "v_proj"] and args.max_episodes is None
