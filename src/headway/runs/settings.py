"""The options of a measurement, in parts, and opening what they name: problems, engine, tokenizer.

An option is a field of a part; its name is the same in Python, in run.json and as a flag (`--max-episodes`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import structs

from headway.choices import Option, Options, lookup
from headway.core.segment import Cutting
from headway.core.tally import ESTIMATORS, ValueKind
from headway.engines import Connection
from headway.engines.loading import load_tokenizer, model_path, window_of
from headway.engines.scripted import Characters, ScriptedEngine, ramps
from headway.problems import Columns, ProblemSet, load_problems
from headway.problems.graders import GRADERS
from headway.problems.hub import PRESETS
from headway.procedures.sample import Sampling
from headway.text.tags import ThinkFormat, ThinkTags, find_think_tags
from headway.types import Engine, HeadwayError, Tokenizer

EngineName = Literal["auto", "hf", "scripted", "vllm", "api"]
SCRIPTED = "scripted"
MOST_BRANCHES = "Total branches; those after the first round go where they reduce the error most."
AS_TRACES = "; default: that of traces."
SETS = (
    f"JSONL, CSV or Parquet file; a named benchmark ({', '.join(PRESETS)}, countdown); "
    "hub:owner/name[:config][@split]; gym:TASK of reasoning-gym."
)
SERVED_BY = {"base_url": "api", "tokenizer": "api", "vllm_args": "vllm"}  # options of one engine only


class EngineSpec(Options, frozen=True):
    """The model, how it is loaded, and how it marks its thinking."""

    model: Annotated[str, Option("Folder, hub name, builtin:countdown, scripted, or a server's name of the model.")]
    engine: Annotated[EngineName, Option("How the model is run; auto: depends on the model.")] = "auto"
    dtype: Annotated[str, Option("auto, float32, bfloat16 or float16.")] = "auto"
    trust_remote_code: Annotated[bool, Option("Run code that comes with the model.")] = False
    think_format: Annotated[ThinkFormat | None, Option("Think tags; default: detected from the tokenizer.")] = None
    think_open: Annotated[str | None, Option("Text that opens the thinking.")] = None
    think_close: Annotated[str | None, Option("Text that closes the thinking.")] = None
    cache: Annotated[str | None, Option("Folder of a disk cache of samples, shared between runs.")] = None
    vllm_args: Annotated[str | None, Option("vLLM's own arguments, as a JSON object (vllm).")] = None
    tokenizer: Annotated[str | None, Option("Folder or hub name of the tokenizer, if not --model (api).")] = None

    def check(self) -> None:
        """Refuses values that cannot be used; see `Options.check`."""
        super().check()
        self.vllm_arguments()

    @property
    def name(self) -> str:
        """The engine to open: auto is the scripted one for the model `scripted`, transformers otherwise."""
        return (SCRIPTED if self.model == SCRIPTED else "hf") if self.engine == "auto" else self.engine

    def think_tags(self, tokenizer: Tokenizer) -> ThinkTags:
        """The model's think tags, as given or detected; raises what `find_think_tags` raises."""
        opens, closes = self.think_open, self.think_close
        return find_think_tags(tokenizer, think_open=opens, think_close=closes, think_format=self.think_format)

    def vllm_arguments(self) -> dict[str, Any]:
        """vLLM's own arguments; text that is no JSON object is a HeadwayError."""
        try:
            return msgspec.json.decode(self.vllm_args or "{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            example = '{"tensor_parallel_size": 2}'
            raise HeadwayError(
                f"--vllm-args {self.vllm_args!r}: {error}; expected JSON such as '{example}'"
            ) from error


class ProblemOptions(Options, frozen=True):
    """The problems, and the grader of their answers."""

    problems: Annotated[str, Option(SETS)] = "countdown"
    limit: Annotated[int | None, Option("Number of problems, from the first; default: all.", least=1)] = None
    prompt_column: Annotated[str | None, Option("Column of the question; default: found by its name.")] = None
    answer_column: Annotated[str | None, Option("Column of the reference answer; default: found by its name.")] = None
    id_column: Annotated[str | None, Option("Column of the id; default: found, else the row's number.")] = None
    skip_bad: Annotated[bool, Option("Leave out rows of a file that cannot be used, and count them.")] = False
    prompt_template: Annotated[str | None, Option("Prompt, with {problem} in place of the question.")] = None
    grader: Annotated[str, Option(f"auto (depends on the problems), {', '.join(GRADERS)}.")] = "auto"


class Proving(Options, frozen=True):
    """How the value at a boundary is estimated, and what forces an answer there."""

    branches: Annotated[int, Option("Forced answers per boundary.", least=1)] = 4
    values: Annotated[ValueKind, Option("How values are estimated: docs/measuring.md.")] = "branches"
    branch_temperature: Annotated[float | None, Option(f"Sampling temperature of branches{AS_TRACES}", least=0)] = None
    branch_top_p: Annotated[float | None, Option(f"Nucleus sampling of branches{AS_TRACES}", above=0, most=1)] = None
    precision: Annotated[float | None, Option("Target: standard error of the regret by branches.", above=0)] = None
    value_precision: Annotated[float | None, Option("Target: standard error of each value.", above=0)] = None
    max_branches: Annotated[int | None, Option(MOST_BRANCHES, above=0)] = None
    suffix: Annotated[str | None, Option("Text that forces an answer within the thinking.")] = None
    end_suffix: Annotated[str | None, Option("Text that forces an answer after complete thinking.")] = None

    def like(self, traces: Sampling) -> "Proving":
        """The same with the sampling of traces for branches, where that of branches is not given."""
        t, p = self.branch_temperature, self.branch_top_p
        t, p = traces.temperature if t is None else t, traces.top_p if p is None else p
        return structs.replace(self, branch_temperature=t, branch_top_p=p)

    @property
    def adaptive(self) -> bool:
        """Whether boundaries get different numbers of branches."""
        return any(aim is not None for aim in (self.precision, self.value_precision, self.max_branches))

    def check(self) -> None:
        """Refuses values that cannot be used or do not go together; see `Options.check`."""
        super().check()
        if self.precision is not None and self.value_precision is not None:
            raise HeadwayError("--precision and --value-precision are different targets; give one of them")
        own = self.branch_temperature != 0 and self.branch_top_p in (None, 1)
        if "scores" in ESTIMATORS[self.values].needs and not own:
            raise HeadwayError(
                f"--values {self.values} needs branches of the model's own distribution: top-p 1 and a temperature "
                f"above 0, got {self.branch_top_p} and {self.branch_temperature}; give --branch-top-p 1 and "
                "--branch-temperature, or other --values"
            )
        if self.adaptive and self.values != "branches":
            options = "--precision, --value-precision and --max-branches"
            raise HeadwayError(f"{options} use the variance of branches; got --values {self.values}")
        if self.adaptive and self.branches < 2:
            need = "adaptive proving needs --branches of at least 2"
            raise HeadwayError(f"{need}, got {self.branches}: one has no variance")


class Extended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run's traces were extended from those of another (`headway extend`)."""

    source: str
    rounds: int
    round_tokens: int


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a measurement; a run continues only with the same ones.

    `author` wrote the traces of an imported run; `model` is then the meta-prover, and limit, temperature and top_p
    have no meaning. `functions` names the Python functions that replace the options `grader` and `segment`.
    """

    engine: EngineSpec
    problems: ProblemOptions = ProblemOptions()
    sampling: Sampling = Sampling()
    cutting: Cutting = Cutting()
    proving: Proving = Proving()
    server: Connection = Connection()
    author: str | None = None
    extended: Extended | None = None
    functions: dict[str, str] = {}

    @classmethod
    def of(
        cls, *, author: str | None = None, extended: Any = None, functions: Any = None, **options: Any
    ) -> "Settings":
        """Settings from options by name; one that is unknown, missing or cannot be used is a HeadwayError."""
        parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
        for name, value in options.items():
            parts[lookup(PART_OF, name, "option")][name] = value
        if "model" not in options:
            raise HeadwayError("the option 'model' is missing")
        made: dict[str, Any] = {part: PARTS[part](**given) for part, given in parts.items()}
        made["proving"] = made["proving"].like(made["sampling"])
        extension = extended and msgspec.convert(extended, Extended)
        settings = cls(**made, author=author, extended=extension, functions=functions or {})
        settings.check()
        return settings

    def flat(self) -> dict[str, Any]:
        """All options by name, as `of` takes them and run.json holds them."""
        parts = msgspec.to_builtins(self)
        return {name: value for part in PARTS for name, value in parts.pop(part).items()} | parts

    @property
    def branch_sampling(self) -> dict[str, Any]:
        """How branches are sampled: their temperature and top-p."""
        proving = self.proving.like(self.sampling)
        return {"temperature": proving.branch_temperature, "top_p": proving.branch_top_p}

    @property
    def whole(self) -> int:
        """The budget of a whole completion: its thinking and its answer."""
        return self.sampling.budget + self.sampling.answer_tokens

    def changed(self, **options: Any) -> "Settings":
        """The settings with other values of these options."""
        return Settings.of(**self.flat() | options)

    def check(self) -> None:
        """Refuses options that cannot be used or do not go together; see `Options.check`."""
        for part in PARTS:
            getattr(self, part).check()
        given = self.flat()
        for name, engine in SERVED_BY.items():
            if given[name] and self.engine.engine != engine:
                raise HeadwayError(f"--{name.replace('_', '-')} goes with --engine {engine}, got {self.engine.engine}")
        if self.engine.engine == "api":
            self.server.check_address()


_KINDS = get_type_hints(Settings)
PARTS: dict[str, type[Options]] = {n: k for n, k in _KINDS.items() if isinstance(k, type) and issubclass(k, Options)}
PART_OF = {name: part for part, kind in PARTS.items() for name in kind.__struct_fields__}
# options that run.json of older versions does not have
WERE = {"branch_temperature": 1.0, "branch_top_p": 1.0, "skip_bad": False}
MAY_CHANGE = (*Connection.__struct_fields__, "cache")  # options that change how samples are obtained, not the samples


def problems_of(settings: Settings) -> ProblemSet:
    """The problems that settings name."""
    p = settings.problems
    columns = Columns(p.prompt_column, p.answer_column, p.id_column)
    named = None if columns == Columns() else columns
    options: dict[str, Any] = {"template": p.prompt_template, "skip_bad": p.skip_bad}
    return load_problems(p.problems, limit=p.limit, seed=settings.sampling.seed, columns=named, **options)


def open_engine(settings: Settings, problems: ProblemSet) -> Engine:
    """The engine of a model, behind a disk cache if one is named."""
    spec = settings.engine
    engine = lookup(ENGINES, spec.name, "engine")(settings, problems)
    if spec.cache is None:
        return engine
    from headway.engines.cached import CachedEngine, identity

    if spec.name == SCRIPTED:
        asked: list[Any] = [problems.problems]
    else:
        asked = [identity(model_path(spec.model)), settings.server.base_url, spec.vllm_args, spec.dtype]
    return CachedEngine(engine, Path(spec.cache), repr([spec.engine, spec.model, *asked]))


@contextmanager
def extra(name: str, need: str) -> Iterator[None]:
    """Turns a failed import of what an extra of the package installs into a HeadwayError that says the `need`."""
    try:
        yield
    except ImportError as error:
        raise HeadwayError(f"{need} ({error}): install Headway with its extra '{name}'") from error


def _scripted(settings: Settings, problems: ProblemSet) -> Engine:
    return ScriptedEngine(problems.problems, ramps(problems.problems))


def _api(settings: Settings, problems: ProblemSet) -> Engine:
    from headway.engines import api

    s = settings.engine
    return api.load(s.model, settings.server, tokenizer=s.tokenizer, trust_remote_code=s.trust_remote_code)


def _vllm(settings: Settings, problems: ProblemSet) -> Engine:
    with extra("vllm", "--engine vllm needs vllm"):
        from headway.engines import vllm
    s, arguments = settings.engine, settings.engine.vllm_arguments()
    return vllm.load(model_path(s.model), dtype=s.dtype, trust_remote_code=s.trust_remote_code, arguments=arguments)


def _hf(settings: Settings, problems: ProblemSet) -> Engine:
    with extra("hf", "--engine hf needs torch"):
        from headway.engines import hf
    s = settings.engine
    return hf.load(model_path(s.model), dtype=s.dtype, trust_remote_code=s.trust_remote_code)


Opener = Callable[[Settings, ProblemSet], Engine]
ENGINES: dict[str, Opener] = {SCRIPTED: _scripted, "api": _api, "vllm": _vllm, "hf": _hf}


def open_tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer of a model, without the model."""
    s = settings.engine
    if s.name == SCRIPTED:
        return Characters()
    return load_tokenizer(s.tokenizer or s.model, trust_remote_code=s.trust_remote_code)


def window_of_model(settings: Settings) -> int | None:
    """The context window of a model, without the model; None where it is not known."""
    s = settings.engine
    if s.name == SCRIPTED:
        return None
    given = s.vllm_arguments().get("max_model_len")
    return given or window_of(s.tokenizer or s.model, trust_remote_code=s.trust_remote_code)
