"""A choice that is none, a wrong type, null or NaN is one error, whether it comes from YAML, a flag or Python."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
import yaml
from msgspec import NODEFAULT, structs

from headway import cli
from headway.choices import declared, lookup
from headway.core.segment import CUTS, Cutting
from headway.credit import SCHEMES
from headway.procedures.sample import Sampling
from headway.runs.importers.rows import ImportOptions
from headway.runs.settings import ENGINES, PART_OF, PARTS, EngineSpec, Extended, Settings
from headway.text.tags import FORMATS
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
        Settings.of(**{"model": "scripted", "problems": "countdown", name: given}).check()


def test_what_is_trained_on_is_checked() -> None:
    with pytest.raises(HeadwayError, match="grader"):
        TrainArguments(problems="countdown-train", grader=None)  # type: ignore[arg-type]


def test_a_table_raises_on_what_it_does_not_have() -> None:
    with pytest.raises(HeadwayError, match="credit must be one of a, b; got 'c'"):
        lookup({"a": 1, "b": 2}, "c", "credit")


# -- one spelling from flag to recipe to Python -----------------------------------------------------------------------

OPTIONS = {name: (PARTS[part], option) for name, part in PART_OF.items() for option in [declared(PARTS[part])[name]]}
DEFAULTS = {field.name: field.default for part in PARTS.values() for field in structs.fields(part)}
# training merges to few episodes by default (v0.1), and has no default problems
OTHER_DEFAULTS = {"max_episodes": 6, "problems": None}


def flags(command: str) -> dict[str, Any]:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return {parameter.name: parameter for parameter in commands[command].params}


@pytest.mark.parametrize("command", ["measure", "sample"])
def test_each_option_is_a_flag_with_its_name_default_and_help(command: str) -> None:
    assert set(flags(command)) == {"out", *OPTIONS}
    for name, (_, option) in OPTIONS.items():
        flag = flags(command)[name]
        assert flag.opts == [f"--{name.replace('_', '-')}"] and option.help in flag.help
        assert flag.required if DEFAULTS[name] is NODEFAULT else flag.default == DEFAULTS[name]


def test_an_import_has_the_flags_that_its_file_does_not_settle() -> None:
    own = set(ImportOptions.__struct_fields__)
    assert set(flags("import")) == {"file", "out", *own, "answer_tokens", "seed", *OPTIONS} - cli.SETTLED_BY_FILE
    assert flags("import")["budget"].default is None and flags("measure")["budget"].default == 1024


def test_an_option_of_training_has_the_same_type_and_default_as_that_of_measuring() -> None:
    shared = set()
    for group in (MRTConfig, TrainArguments):
        hints = get_type_hints(group)
        for field in dataclasses.fields(group):
            if field.name in OPTIONS and field.name in group.__annotations__:
                shared.add(field.name)
                there = get_type_hints(OPTIONS[field.name][0])[field.name]
                assert hints[field.name] in (there, *get_args(there)) or there in get_args(hints[field.name])
                assert field.default == OTHER_DEFAULTS.get(field.name, DEFAULTS[field.name])
    assert shared >= {"values", "segment", "answer_tokens", "suffix", "end_suffix", "think_format", *OTHER_DEFAULTS}


def test_settings_survive_the_way_to_disk_and_back() -> None:
    made = Settings.of(model="scripted", segment="tokens", end_suffix="!", extended=Extended("there", 2, 90))
    assert Settings.of(**json.loads(json.dumps(made.flat()))) == made
    assert (made.engine.model, made.cutting.segment, made.proving.end_suffix) == ("scripted", "tokens", "!")
    assert made.changed(traces=9).sampling == Sampling(traces=9) and made.sampling == Sampling()
    with pytest.raises(HeadwayError, match="did you mean 'traces'"):
        Settings.of(model="scripted", trace=3)
    with pytest.raises(HeadwayError, match="'model' is missing"):
        Settings.of(traces=3)


def test_every_engine_that_can_be_chosen_can_be_opened() -> None:
    assert set(get_args(get_type_hints(EngineSpec)["engine"])) == {"auto", *ENGINES}
    assert set(get_args(get_type_hints(Cutting)["segment"])) == set(CUTS)
    assert set(get_args(get_args(get_type_hints(EngineSpec)["think_format"])[0])) == set(FORMATS)


def test_the_credits_that_training_takes_are_the_rows_of_the_table() -> None:
    [option] = [field for field in dataclasses.fields(MRTConfig) if field.name == "credit"]
    assert option.metadata["choices"] == list(SCHEMES)
    for name, scheme in SCHEMES.items():
        first_line = str(scheme.bonuses.__doc__).splitlines()[0]
        assert f"{name}: {first_line}" in option.metadata["help"]
