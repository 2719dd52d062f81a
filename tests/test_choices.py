"""A choice that is none, a wrong type, null or NaN is one error, whether it comes from YAML, a flag or Python."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.choices import lookup
from headway.credit import SCHEMES
from headway.runs.settings import Settings
from headway.training import MRTConfig, TrainArguments, main
from headway.types import HeadwayError

pytestmark = pytest.mark.filterwarnings("default")

MISSPELT = [
    ("credit", "epsiode", "episode"),
    ("values", "likelyhood", "likelihood"),
    ("segment", "marker", "markers"),
    ("think_format", "thinks", "think"),
]
WRONG = [
    ("progress_weight", float("nan"), "finite"),
    ("progress_weight", -1.0, "at least 0"),
    ("progress_weight", None, "got `null`"),
    ("branches", "four", "`int`"),
    ("branches", True, "`bool`"),
    ("branches", 2.5, "`float`"),
    ("branches", 0, "at least 1"),
    ("max_generated_tokens", 0, "at least 1"),
    ("min_paragraphs", None, "got `null`"),
]


def config(path: Path, **options: Any) -> MRTConfig:
    return MRTConfig(output_dir=str(path), report_to="none", use_cpu=True, bf16=False, **options)


@pytest.mark.parametrize(("name", "given", "meant"), MISSPELT)
def test_a_misspelt_choice_names_the_nearest_one(tmp_path: Path, name: str, given: str, meant: str) -> None:
    message = f"{name} must be one of .*; got '{given}'; did you mean '{meant}'"
    with pytest.raises(HeadwayError, match=message):
        config(tmp_path, **{name: given})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"problems": "countdown-train", "output_dir": str(tmp_path), name: given}))
    with pytest.raises(HeadwayError, match=message):
        main(["--config", str(recipe)])
    with pytest.raises((HeadwayError, SystemExit)):  # argparse refuses a flag by itself
        main(["--output_dir", str(tmp_path), f"--{name}", given])


@pytest.mark.parametrize(("name", "given", "says"), WRONG)
def test_a_value_of_the_wrong_kind_is_refused(tmp_path: Path, name: str, given: Any, says: str) -> None:
    with pytest.raises(HeadwayError, match=says):
        config(tmp_path, **{name: given})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"problems": "countdown-train", "output_dir": str(tmp_path), name: given}))
    with pytest.raises((HeadwayError, SystemExit)):
        main(["--config", str(recipe)])


@pytest.mark.parametrize(
    ("name", "given"),
    [("values", "likelyhood"), ("segment", "marker"), ("engine", "vlm"), ("think_format", "thinks"), ("traces", 2.5),
     ("precision", float("nan")), ("budget", None), ("temperature", "1")],
)  # fmt: skip
def test_settings_of_a_measurement_are_checked_alike(name: str, given: Any) -> None:
    with pytest.raises(HeadwayError, match=name):
        Settings(**{"model": "scripted", "problems": "countdown", name: given}).check()


def test_what_is_trained_on_is_checked() -> None:
    with pytest.raises(HeadwayError, match="grader"):
        TrainArguments(problems="countdown-train", grader=None)  # type: ignore[arg-type]


def test_a_table_raises_on_what_it_does_not_have() -> None:
    with pytest.raises(HeadwayError, match="credit must be one of a, b; got 'c'"):
        lookup({"a": 1, "b": 2}, "c", "credit")


def test_the_credits_that_training_takes_are_the_rows_of_the_table() -> None:
    [option] = [field for field in fields(MRTConfig) if field.name == "credit"]
    assert option.metadata["choices"] == list(SCHEMES)
    for name, scheme in SCHEMES.items():
        first_line = str(scheme.bonuses.__doc__).splitlines()[0]
        assert f"{name}: {first_line}" in option.metadata["help"]
