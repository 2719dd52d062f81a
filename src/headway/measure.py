"""Measuring: the procedures put together over a run folder, each going on where it stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from headway.adaptive import Of, Rounds, Target, answer_costs, first_rounds, more_rounds, realized
from headway.engines import Connection, model_path
from headway.engines.scripted import Characters, ScriptedEngine, ramps
from headway.equivalence import answer_classes
from headway.graders import load_grader
from headway.problems import Columns, ProblemSet, load_problems
from headway.prompts import ThinkFormat, ThinkTags, find_think_tags, meta_prover
from headway.prove import prove
from headway.records import Drawn, Records, TraceLine
from headway.report.authors import as_authors
from headway.report.compare import compare, markdown_table
from headway.report.diagnosis import diagnose
from headway.report.evaluation import Voted, evaluate, voted
from headway.report.explorer import Shown
from headway.report.files import Format, write_files
from headway.report.page import render_compare, render_run
from headway.report.summary import Measured, branch_counts, measured, summarize
from headway.report.versus import regret_against_best, token_efficiency
from headway.sample import sample
from headway.segment import Segment, cut
from headway.store import Run
from headway.types import Engine, Episode, Grader, HeadwayError, MetaProver, Tokenizer, Trace

EngineName = Literal["auto", "hf", "scripted", "vllm", "api"]
Tell = Callable[[str, int, int], None]
SCRIPTED = "scripted"
ONE_RIGHT = ("exact", "numeric", "math-verify")  # graders that compare with a reference: right answers are one answer


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


class Measurement:
    """One measurement over its run folder; models, problems and graders are loaded when first needed.

    A context manager: leaving it ends the grader's processes and the engine's connections.
    """

    def __init__(self, run: Run, tell: Tell = lambda stage, done, total: None) -> None:
        self.run = run
        try:
            self.settings = msgspec.convert(run.settings, Settings)
        except msgspec.ValidationError as error:
            raise HeadwayError(f"{run.path / 'run.json'}: {error}; measure again into a new folder") from error
        self._tell = tell
        self._stack = ExitStack()

    @classmethod
    def create(cls, path: Path, settings: Settings, tell: Tell = lambda stage, done, total: None) -> "Measurement":
        """A new measurement, or the one at `path` to go on with; what cannot be used is refused before it is made."""
        settings.check()
        asked = problems_of(settings)
        if not (path / "run.json").exists():
            load_grader(settings.grader) if settings.grader != "auto" else None
        run = Run.create(
            path, msgspec.to_builtins(settings), asked.problems, name=asked.name, grader=asked.grader,
            may_change=Connection._fields,
        )  # fmt: skip
        return cls(run, tell)

    def __enter__(self) -> "Measurement":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems that the run was made with, from its own copy."""
        kept, about = self.run.problems(), self.run.problem_set
        if kept and about:
            return ProblemSet(about["name"], kept, about["grader"])
        return problems_of(self.settings)  # an older version made the run

    @cached_property
    def engine(self) -> Engine:
        """The model behind its engine."""
        engine = open_engine(self.settings, self.problems)
        if hasattr(engine, "close"):
            self._stack.callback(engine.close)
        return engine

    @property
    def grader_name(self) -> str:
        """The grader's name."""
        return self.problems.grader if self.settings.grader == "auto" else self.settings.grader

    @cached_property
    def grader(self) -> Grader:
        """The grader."""
        grader = load_grader(self.grader_name)
        if hasattr(grader, "close"):
            self._stack.callback(grader.close)
        return grader

    @cached_property
    def tags(self) -> ThinkTags:
        """The think tags."""
        s = self.settings
        return find_think_tags(
            self.engine.tokenizer, think_open=s.think_open, think_close=s.think_close, think_format=s.think_format
        )

    @property
    def prover(self) -> MetaProver:
        """The meta-prover."""
        s = self.settings
        return meta_prover(self.tags, suffix=s.suffix, end=s.end, branches=s.branches, max_tokens=s.answer_tokens)

    def segmenter(self, trace: Trace) -> list[Episode]:
        """Cuts a trace as the settings say."""
        s = self.settings
        return cut(
            trace,
            segment=s.segment,
            min_paragraphs=s.min_paragraphs,
            episode_tokens=s.episode_tokens,
            max_episodes=s.max_episodes,
        )

    def ordered_traces(self) -> Records[Trace]:
        """The traces by problem and index, on disk."""
        there = self.run.traces()
        keys = [(t.problem_id, t.index) for t in there.read_as(TraceLine)]
        return there.take(sorted(range(len(keys)), key=keys.__getitem__))

    def sample(self) -> None:
        """Samples the traces that are not there yet.

        Raises:
            HeadwayError: the traces were made elsewhere.
        """
        s = self.settings
        if s.author is not None:
            raise HeadwayError(
                f"{self.run.path} holds traces by {s.author} that were imported; there is nothing to sample"
            )
        done = {(t.problem_id, t.index) for t in self.run.traces().read_as(TraceLine)}
        total = len(self.problems.problems) * s.traces
        self._tell("sample", len(done), total)
        if len(done) >= total:
            return
        chunks = sample(
            self.engine, self.problems.problems, self.grader, self.tags, traces=s.traces, budget=s.budget,
            answer_tokens=s.answer_tokens, temperature=s.temperature, top_p=s.top_p, seed=s.seed, done=done,
        )  # fmt: skip
        made = len(done)
        for traces in chunks:
            self.run.append(traces)
            made += len(traces)
            self._tell("sample", made, total)

    def prove(self) -> None:
        """Draws the branches that are not there yet.

        Raises:
            HeadwayError: there are no traces.
        """
        traces = self.ordered_traces()
        if not traces:
            raise HeadwayError(f"{self.run.path} has no traces to prove; `headway sample` makes them")
        target = self.settings.target
        if target is None:
            self._draw(traces, {(t.problem_id, t.index): [range(1)] * (len(self.segmenter(t)) + 1) for t in traces})
            return
        costs = answer_costs(traces, self.engine.tokenizer, self.prover, self.segmenter)
        self._draw(traces, first_rounds(costs, target))
        self._draw(traces, more_rounds(costs, self.run.branches().read_as(Drawn), target))

    def _draw(self, traces: Records[Trace], rounds: Rounds) -> None:
        """Draws these rounds of branches, but for those that are there."""
        s = self.settings
        wanted = sum(len(r) for of_trace in rounds.values() for r in of_trace) * s.branches
        names = {key: key for key in rounds}  # one tuple a trace, not one a branch
        done = {
            (key, b.boundary, b.branch)
            for b in self.run.branches().read_as(Drawn)
            if (key := names.get((b.problem_id, b.index))) and b.branch // s.branches in rounds[key][b.boundary]
        }
        self._tell("prove", len(done), wanted)
        if len(done) >= wanted:
            return
        by_id = {p.id: p for p in self.problems.problems}
        made = len(done)
        for branches in prove(
            self.engine, traces, by_id, self.grader, self.prover, self.segmenter, seed=s.seed, done=done, rounds=rounds
        ):
            self.run.append(branches)
            made += len(branches)
            self._tell("prove", made, wanted)

    def measured(self) -> Measured:
        """The traces with their value curves."""
        return measured(self.run.traces(), self.run.branches(), self.segmenter)

    def voted(self) -> Voted:
        """The traces with their value curves, and which answers vote together."""
        made, branches = self.measured(), self.run.branches()
        items = [(f.problem_id, f.answer, f.reward) for f in made.facts]
        items += [(b.problem_id, b.answer, b.reward) for b in branches]
        classes = answer_classes(
            items,
            one_right=self.grader_name in ONE_RIGHT,
            same=self.grader if self.grader_name == "math-verify" else None,
        )
        return voted(made, branches, classes[: len(made.facts)], classes[len(made.facts) :])

    def shown(self, label: str | None = None, votes: Voted | None = None) -> Shown:
        """The run as pages and files take it: with its report, under a label (its folder's name unless given).

        Args:
            votes: What `voted` returned, where it is there already.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        branches = self.run.branches()
        if not branches:
            raise HeadwayError(f"{self.run.path} has no branches to report on; `headway prove --out {self.run.path}`")
        s, votes = self.settings, votes or self.voted()
        made, most = votes.run, s.budget + s.answer_tokens
        report = summarize(
            made,
            model=s.author or s.model,
            problems=self.problems.name,
            budget=s.budget,
            answer_tokens=s.answer_tokens,
        )
        report["meta_prover"] = s.model
        report["branches"] = branch_counts(branches)
        keys = [(f.problem_id, f.index) for f in made.facts]
        report["precision"] = realized(keys, made.curves, most)._asdict()
        report |= evaluate(votes, budget=most) | diagnose(votes, budget=most)
        report["authors"] = as_authors(votes, budget=most)
        by_id = {p.id: p for p in self.problems.problems}
        return Shown(label or self.run.path.resolve().name, report, made, branches, by_id)

    def report(self, formats: Sequence[Format] = ()) -> dict[str, Any]:
        """Writes report.json, report.html and what other formats are asked for, and returns the first.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        self._tell("report", 0, 1)
        shown = self.shown()
        self.run.write_json("report.json", shown.report)
        self.run.write_text("report.html", render_run(*shown[1:4], problems=shown.problems, label=shown.label))
        write_files(self.run.path, formats, [shown])
        self._tell("report", 1, 1)
        return shown.report

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()


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
    """The engine of a model; auto is the scripted one for `scripted`, transformers otherwise."""
    s = settings
    if s.engine == SCRIPTED or (s.engine == "auto" and s.model == SCRIPTED):
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
    if settings.engine == SCRIPTED or (settings.engine == "auto" and settings.model == SCRIPTED):
        return Characters()
    from headway.engines import hf

    return hf.load_tokenizer(model_path(settings.model), trust_remote_code=settings.trust_remote_code)


def compare_runs(
    runs: Sequence[tuple[str, Path]],
    out: Path,
    *,
    budgets: Sequence[int] | None = None,
    formats: Sequence[Format] = ("png",),
) -> str:
    """Puts run folders side by side into `out`: compare.json, report.html, files of the formats; returns a table.

    Accuracy and regret are compared at the given budgets, or at half and all of the first run's.

    Raises:
        HeadwayError: a folder is no run or has no branches, or two runs share no problem.
    """
    shown, votes = [], []
    for label, path in runs:
        with Measurement(Run.load(path)) as measurement:
            own = measurement.voted()
            votes.append((label, own))
            shown.append(measurement.shown(label, own))
    whole = shown[0].report["budget"]
    comparison = compare([(s.label, s.measured, s.report) for s in shown], budgets or (whole // 2, whole))
    most = whole + shown[0].report["answer_tokens"]
    comparison["token_efficiency"] = token_efficiency(votes)
    comparison["regret_by_comparator"] = regret_against_best([(s.label, s.measured) for s in shown], budget=most)
    folder = Run(out, {})
    out.mkdir(parents=True, exist_ok=True)
    folder.write_json("compare.json", comparison)
    folder.write_text("report.html", render_compare(comparison, [(s.label, s.report) for s in shown], shown))
    write_files(out, formats, shown, comparison)
    return markdown_table(comparison)
