"""What a measurement is asked for, and opening what it names: problems, engine, tokenizer."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from headway.adaptive import Of, Target
from headway.engines import Connection
from headway.engines.loading import load_tokenizer, model_path
from headway.engines.scripted import Characters, ScriptedEngine, ramps
from headway.problems import Columns, ProblemSet, load_problems
from headway.prompts import ThinkFormat
from headway.score import ValueKind
from headway.segment import Segment
from headway.types import Engine, HeadwayError, Tokenizer

EngineName = Literal["auto", "hf", "scripted", "vllm", "api"]
SCRIPTED = "scripted"
MAY_CHANGE = (*Connection._fields, "cache")  # what says how samples are got, not which


class Extension(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run's traces were extended from those of another (`headway extend`)."""

    source: str
    rounds: int
    round_tokens: int


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a measurement was asked for; run.json holds it, and a run goes on only with the same, the server aside.

    `author` wrote the traces of a run that was imported; `model` then is the meta-prover, and what only sampling reads
    (limit, temperature, top_p) says nothing.
    """

    model: str
    problems: str
    author: str | None = None
    limit: int | None = None
    prompt_column: str | None = None
    answer_column: str | None = None
    id_column: str | None = None
    prompt_template: str | None = None
    traces: int = 4
    branches: int = 4
    values: ValueKind = "branches"
    precision: float | None = None
    value_precision: float | None = None
    max_branches: int | None = None
    budget: int = 1024
    answer_tokens: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    engine: EngineName = "auto"
    grader: str = "auto"
    segment: Segment = "markers"
    min_paragraphs: int = 3
    episode_tokens: int = 128
    max_episodes: int | None = None
    think_format: ThinkFormat | None = None
    think_open: str | None = None
    think_close: str | None = None
    suffix: str | None = None
    end: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    extended: Extension | None = None
    tokenizer: str | None = None
    vllm_args: str | None = None
    base_url: str | None = None
    concurrency: int = 32
    timeout: float = 600.0
    retries: int = 8
    api_key_env: str = "OPENAI_API_KEY"
    cache: str | None = None

    def check(self) -> None:
        """Refuses numbers that cannot be.

        Raises:
            HeadwayError: which, and what it must be.
        """
        least = {"traces": 1, "branches": 1, "budget": 1, "answer_tokens": 1, "min_paragraphs": 1, "episode_tokens": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise HeadwayError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(self, name)}")
        if self.max_episodes is not None and self.max_episodes < 1:
            raise HeadwayError(f"--max-episodes must be at least 1, got {self.max_episodes}")
        for name in ("precision", "value_precision", "max_branches"):
            if (given := getattr(self, name)) is not None and not given > 0:
                raise HeadwayError(f"--{name.replace('_', '-')} must be above 0, got {given}")
        if self.precision is not None and self.value_precision is not None:
            raise HeadwayError("--precision and --value-precision aim at different things; give one of them")
        if self.target and self.values != "branches":
            raise HeadwayError(
                f"--precision, --value-precision and --max-branches go by the spread of branches; got --values "
                f"{self.values}"
            )
        if self.target and self.branches < 2:
            raise HeadwayError(
                f"adaptive proving needs --branches of at least 2, got {self.branches}: one tells nothing of its error"
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise HeadwayError(f"need --temperature >= 0 and 0 < --top-p <= 1, got {self.temperature}, {self.top_p}")
        for name, engine in {"base_url": "api", "tokenizer": "api", "vllm_args": "vllm"}.items():
            if getattr(self, name) is not None and self.engine != engine:
                raise HeadwayError(f"--{name.replace('_', '-')} goes with --engine {engine}, got {self.engine}")
        if self.engine == "api":
            self.connection.check()
        self.vllm_arguments()

    @property
    def scripted(self) -> bool:
        """Whether the script takes the place of a model."""
        return self.engine == SCRIPTED or (self.engine == "auto" and self.model == SCRIPTED)

    @property
    def connection(self) -> Connection:
        """How to reach the server."""
        given = {name: getattr(self, name) for name in Connection._fields}
        return Connection(**given | {"base_url": self.base_url or ""})

    def vllm_arguments(self) -> dict[str, Any]:
        """vLLM's own arguments.

        Raises:
            HeadwayError: they are no JSON object.
        """
        try:
            return msgspec.json.decode(self.vllm_args or "{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise HeadwayError(
                f"--vllm-args {self.vllm_args!r}: {error}; expected JSON such as '{{\"tensor_parallel_size\": 2}}'"
            ) from error

    @property
    def target(self) -> Target | None:
        """What adaptive proving aims at; None where all boundaries get the same."""
        aim = self.precision or self.value_precision
        if aim is None and self.max_branches is None:
            return None
        of: Of = "values" if self.value_precision else "regret"
        return Target(aim, self.max_branches, of, self.budget + self.answer_tokens, self.branches)


def problems_of(settings: Settings) -> ProblemSet:
    """The problems that settings ask for."""
    s, default = settings, Columns()
    columns = Columns(s.prompt_column or default.prompt, s.answer_column or default.answer, s.id_column)
    return load_problems(
        s.problems,
        limit=s.limit,
        seed=s.seed,
        columns=None if columns == default else columns,
        template=s.prompt_template,
    )


def open_engine(settings: Settings, problems: ProblemSet) -> Engine:
    """The engine of a model, behind its cache if one is named."""
    s, engine = settings, _open_engine(settings, problems)
    if s.cache is None:
        return engine
    from headway.engines.cached import CachedEngine, identity

    asked = [problems.problems] if s.scripted else [identity(model_path(s.model)), s.base_url, s.vllm_args, s.dtype]
    return CachedEngine(engine, Path(s.cache), repr([s.engine, s.model, *asked]))


def _open_engine(settings: Settings, problems: ProblemSet) -> Engine:
    """The engine; auto is the scripted one for `scripted`, transformers otherwise."""
    s = settings
    if s.scripted:
        return ScriptedEngine(problems.problems, ramps(problems.problems))
    if s.engine == "api":
        from headway.engines import api

        return api.load(s.model, s.connection, tokenizer=s.tokenizer, trust_remote_code=s.trust_remote_code)
    if s.engine == "vllm":
        try:
            from headway.engines import vllm
        except ImportError as error:
            raise HeadwayError(f"--engine vllm: {error}; pip install 'headway[vllm]'") from error
        arguments = s.vllm_arguments()
        return vllm.load(
            model_path(s.model), dtype=s.dtype, trust_remote_code=s.trust_remote_code, arguments=arguments
        )
    from headway.engines import hf

    return hf.load(model_path(s.model), dtype=s.dtype, trust_remote_code=s.trust_remote_code)


def open_tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer of a model, without the model."""
    if settings.scripted:
        return Characters()
    return load_tokenizer(settings.tokenizer or settings.model, trust_remote_code=settings.trust_remote_code)
