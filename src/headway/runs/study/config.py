"""A study's configuration: settings, methods and seeds, read strictly from YAML."""

from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from headway.choices import lookup
from headway.runs.settings import extra
from headway.types import HeadwayError

Recipe = dict[str, Any]  # options of `headway train`
T = TypeVar("T")


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the configuration; unknown names are errors."""


class Start(Part, frozen=True):
    """A model that the study itself trains for a setting to start from: a method, its seed, other options."""

    model: str
    method: str
    seed: int
    train: Recipe = {}


class Setting(Part, frozen=True):
    """Where methods start from, what they train on, and the problems they are tested on."""

    start: str | Start
    test: str
    validation: str
    also: str | None = None  # other problems, on which only success is measured
    train: Recipe = {}
    tuned_on: str | None = None  # the setting whose choices count here; default: its own


class Method(Part, frozen=True):
    """The options of a method, the values of one option of its own to tune, and where it runs."""

    train: Recipe
    label: str | None = None
    knob: dict[str, list[Any]] = {}
    settings: list[str] | None = None  # default: all; of an ablation the first
    seeds: int | None = None  # the first so many; default: all
    of: str | None = None  # of an ablation: the method that it changes, with what was chosen for that


class Tuning(Part, frozen=True):
    """The grid that every method is tuned on, with its own knob; the best success on validation problems counts."""

    seeds: list[int]
    grid: dict[str, list[Any]] = {}
    train: Recipe = {}


class Measuring(Part, frozen=True):
    """How many problems and traces a part of the evaluation has."""

    limit: int
    traces: int


class Study(Part, frozen=True):
    """A study; `docs/study.md` explains it."""

    results: str
    work: str
    page: str
    seeds: list[int]
    budget: int  # thinking tokens in training
    answer_tokens: int
    multiples: list[float]  # of the budget, at which models are measured
    curves: Measuring  # values and regret at every budget
    grid_tokens: int  # distance of the boundaries of the curves
    votes: Measuring  # pass@k and maj@k at the trained budget
    also: Measuring
    validation: Measuring
    train: Recipe
    settings: dict[str, Setting]
    methods: dict[str, Method]
    ablations: dict[str, Method] = {}
    tuning: Tuning | None = None
    baseline: str = "grpo"  # the method whose gain is the denominator of ratios
    reference: str | None = None  # a second one
    expected_minutes: float = 20.0  # of a cell, until one is done

    @property
    def all_methods(self) -> dict[str, Method]:
        """The methods and the ablations."""
        return self.methods | self.ablations

    def check(self) -> None:
        """Refuses names that do not fit together."""
        if both := sorted(set(self.methods) & set(self.ablations)):
            raise HeadwayError(f"methods and ablations need different names, got {', '.join(both)} in both")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise HeadwayError(f"seeds must be different numbers, at least one, got {self.seeds}")
        lookup(self.methods, self.baseline, "baseline")
        if self.reference is not None:
            lookup(self.methods, self.reference, "reference")
        for name, setting in self.settings.items():
            if setting.tuned_on is not None:
                lookup(self.settings, setting.tuned_on, f"settings.{name}.tuned_on")
            if isinstance(setting.start, Start):
                lookup(self.methods, setting.start.method, f"settings.{name}.start.method")
        for name, method in (self.methods | self.ablations).items():
            if (method.of is not None) != (name in self.ablations):
                raise HeadwayError(f"{name}: an ablation, and nothing else, needs 'of', the method that it changes")
            if method.of is not None:
                lookup(self.methods, method.of, f"{name}: of")
            for setting_name in method.settings or ():
                lookup(self.settings, setting_name, f"settings of {name}")
            if len(method.knob) > 1:
                raise HeadwayError(f"knob of {name} must be one option, got {', '.join(method.knob)}")


def read_study(path: Path, *, small: bool = False) -> Study:
    """The study of a YAML file; `small` lays its part `small` over the rest (null removes a name).

    Raises:
        HeadwayError: the file cannot be read, or a name in it is unknown, missing or does not fit.
    """
    with extra("train", "a study needs pyyaml"):
        import yaml
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise HeadwayError(f"cannot read the study {path}: {error}") from error
    if not isinstance(given, dict):
        raise HeadwayError(f"{path}: expected a mapping, got {type(given).__name__}")
    over = given.pop("small", None)
    if small and over is None:
        raise HeadwayError(f"{path} has no part 'small'; leave --small out, or add it")
    made = strictly(Study, laid_over(given, over) if small else given, str(path))
    made.check()
    return made


def laid_over(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A mapping with another laid over it, part by part; null removes a name."""
    result = dict(under)
    for name, value in over.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(there := result.get(name), dict):
            result[name] = laid_over(there, value)
        else:
            result[name] = value
    return result


def strictly(kind: type[T], given: Any, where: str) -> T:
    """A part of the configuration from what YAML holds; an unknown name is an error that says the nearest."""
    _check_names(kind, given, where)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise HeadwayError(f"{where}: {str(error)[:1].lower()}{str(error)[1:]}") from error


def _check_names(hint: Any, given: Any, where: str) -> None:
    if not isinstance(given, dict):
        return
    if isinstance(hint, type) and issubclass(hint, Part):
        hints = get_type_hints(hint)
        for name, value in given.items():
            lookup(hints, name, f"{where}: option")
            _check_names(hints[name], value, f"{where}, {name}")
        return
    for inner in get_args(hint):  # the values of a mapping, the choices of a union
        for name, value in given.items() if getattr(hint, "__origin__", None) is dict else [("", given)]:
            _check_names(inner, value, f"{where}, {name}" if name else where)
