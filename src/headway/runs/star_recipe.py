"""The recipe of MRT as STaR: the options of its rounds and of measuring, TRL's of SFT and of the model."""

import dataclasses
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from headway import __version__
from headway.choices import Option, Options, declared
from headway.core.segment import Cutting
from headway.core.star import RuleName
from headway.problems import ProblemSet
from headway.procedures.sample import Sampling
from headway.runs.recipe_file import check_recipe
from headway.runs.settings import EngineSpec, ProblemOptions, Proving, Settings, extra, problems_of
from headway.runs.store import Run
from headway.types import HeadwayError

SCHEMA = 1
Start = Literal["base", "last"]


class StarOptions(Options, frozen=True):
    """What the rounds do."""

    rule: Annotated[RuleName, Option("Which texts are trained on: docs/training.md.")] = "best_prefix"
    rounds: Annotated[int, Option("Rounds of sample, prove, select and fine-tune.", least=1)] = 1
    start: Annotated[Start, Option("What each round fine-tunes: the base model (STaR), or the last round's.")] = "base"


# options of measuring that TRL has under its own names, and those without meaning here
OTHERS = {"model", "dtype", "trust_remote_code", "tokenizer", "seed", "precision", "value_precision", "max_branches"}
MEASURING = (EngineSpec, ProblemOptions, Sampling, Cutting, Proving)
# what may differ when a recipe continues: nothing here changes a model
MAY_CHANGE = {"rounds", "cache", "output_dir", "run_name", "report_to", "project", "disable_tqdm"}
MAY_CHANGE_LIKE = ("logging_", "log_", "save_", "hub_", "push_to_", "trackio_", "dataloader_pin")


def _fields(*groups: type[Options]) -> Iterator[tuple[str, Any, Any]]:
    """The options of some groups as fields of a dataclass for TRL's parser; the problems have no default."""
    for group in groups:
        hints, options = get_type_hints(group), declared(group)
        for field in msgspec.structs.fields(group):
            if field.name not in OTHERS:
                default = None if field.name == "problems" else field.default
                hint = str | None if field.name == "problems" else hints[field.name]
                made = dataclasses.field(default=default, metadata={"help": options[field.name].help})
                yield field.name, hint, made


MeasuringArguments = dataclasses.make_dataclass("MeasuringArguments", _fields(*MEASURING))
StarArguments = dataclasses.make_dataclass("StarArguments", _fields(StarOptions))


class Recipe:
    """A recipe: the rounds' options, how traces are sampled and proved, and TRL's options of SFT and of the model."""

    def __init__(self, arguments: list[str]) -> None:
        check_recipe(arguments)
        with extra("train", "fine-tuning needs trl"):
            from headway.training.sft import parse_with_sft
        star, measuring, self.sft, self.model = parse_with_sft((StarArguments, MeasuringArguments), arguments, "star")
        self.star = StarOptions(**dataclasses.asdict(star))
        self.star.check()
        self.measuring = dataclasses.asdict(measuring)
        for name, value in (("problems", self.measuring["problems"]), ("output_dir", self.sft.output_dir)):
            if not value:
                raise HeadwayError(f"the recipe has no {name}; give '{name}' in it, or --{name}")
        if self.measuring["engine"] == "api":
            raise HeadwayError("engine is 'api', and a server's model cannot be fine-tuned; expected hf or vllm")
        if not self.model.model_name_or_path:
            raise HeadwayError("no model; give 'model_name_or_path' in the recipe or --model_name_or_path")
        self.out, self.base = Path(self.sft.output_dir), self.model.model_name_or_path
        self.settings(self.base, self.sft.seed)  # refuses what cannot be used

    def settings(self, model: str, seed: int) -> Settings:
        """The settings of a round's run."""
        return Settings.of(model=model, seed=seed, trust_remote_code=self.sft.trust_remote_code, **self.measuring)

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems of all rounds."""
        return problems_of(self.settings(self.base, self.sft.seed))

    def flat(self) -> dict[str, Any]:
        """All options by name, as star.json holds them."""
        model = dataclasses.asdict(self.model)
        made = self.sft.to_dict() | model | self.measuring | msgspec.to_builtins(self.star)
        return json.loads(json.dumps(made, default=str))

    def claim(self) -> None:
        """Writes star.json, or compares this recipe with the one that is there; HeadwayError names what differs."""
        store, file = Run(self.out, {}), self.out / "star.json"
        now = self.flat()
        if file.exists():
            there = _options_of(file)
            differ = [k for k in sorted({*now, *there}) if now.get(k) != there.get(k) and not _may_change(k)]
            if differ:
                shown = "; ".join(f"{k}: there {there.get(k)!r}, now {now.get(k)!r}" for k in differ)
                held = f"{self.out} holds rounds of another recipe ({shown})"
                raise HeadwayError(f"{held}; give the same recipe to continue them, or another --output_dir")
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise HeadwayError(f"{self.out} exists and holds no rounds; give an empty or new folder as --output_dir")
        self.out.mkdir(parents=True, exist_ok=True)
        store.write_json("star.json", {"schema": SCHEMA, "headway": __version__, "options": now})


def _options_of(file: Path) -> dict[str, Any]:
    """The options in a star.json; HeadwayError if it cannot be read."""
    try:
        head = json.loads(file.read_bytes())
        schema, options = head["schema"], dict(head["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise HeadwayError(f"{file} cannot be read ({error!r}); expected what `headway star` writes") from error
    if schema != SCHEMA:
        raise HeadwayError(f"{file} has schema {schema}, this version reads {SCHEMA}; give another --output_dir")
    return options


def _may_change(name: str) -> bool:
    return name in MAY_CHANGE or name.startswith(MAY_CHANGE_LIKE)
