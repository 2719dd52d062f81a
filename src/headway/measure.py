"""Measuring: the procedures put together over a run folder, each going on where it stopped."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from headway.engines import model_path
from headway.engines.scripted import ScriptedEngine, ramps
from headway.forms import candidates_of
from headway.graders import load_grader
from headway.problems import ProblemSet, load_problems
from headway.prompts import ThinkTags, find_think_tags, meta_prover
from headway.prove import prove
from headway.report import charts
from headway.report.compare import compare, markdown_table
from headway.report.page import render_compare, render_run
from headway.report.summary import Measured, branch_counts, measured, summarize, value_quality
from headway.sample import sample
from headway.score import DRAWN, FORMS, Known, ValueKind, score
from headway.segment import Segment, cut
from headway.store import Run
from headway.types import Engine, Episode, Grader, HeadwayError, MetaProver, Trace

EngineName = Literal["auto", "hf", "scripted"]
Tell = Callable[[str, int, int], None]
SCRIPTED = "scripted"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a measurement was asked for; run.json holds it, and a run goes on only with the same."""

    model: str
    problems: str
    limit: int | None = None
    traces: int = 4
    branches: int = 4
    values: ValueKind = "branches"
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
    think_open: str | None = None
    think_close: str | None = None
    suffix: str | None = None
    end: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False

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
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise HeadwayError(f"need --temperature >= 0 and 0 < --top-p <= 1, got {self.temperature}, {self.top_p}")


class Measurement:
    """One measurement over its run folder; models, problems and graders are loaded when first needed.

    A context manager: leaving it ends the grader's processes.
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
        load_problems(settings.problems, limit=settings.limit)
        if not (path / "run.json").exists():
            load_grader(settings.grader) if settings.grader != "auto" else None
        return cls(Run.create(path, msgspec.to_builtins(settings)), tell)

    def __enter__(self) -> "Measurement":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems."""
        return load_problems(self.settings.problems, limit=self.settings.limit)

    @cached_property
    def engine(self) -> Engine:
        """The model behind its engine."""
        return open_engine(self.settings, self.problems)

    @cached_property
    def grader(self) -> Grader:
        """The grader."""
        grader = load_grader(self.problems.grader if self.settings.grader == "auto" else self.settings.grader)
        if hasattr(grader, "close"):
            self._stack.callback(grader.close)
        return grader

    @cached_property
    def tags(self) -> ThinkTags:
        """The think tags."""
        s = self.settings
        return find_think_tags(self.engine.tokenizer, think_open=s.think_open, think_close=s.think_close)

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

    def sample(self) -> None:
        """Samples the traces that are not there yet."""
        s = self.settings
        done = {(t.problem_id, t.index) for t in self.run.traces()}
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

    @cached_property
    def known(self) -> Known:
        """The known right answers of the problems."""
        s = self.settings
        candidates = candidates_of(self.problems.grader if s.grader == "auto" else s.grader)
        return Known(self.engine, self.prover, self.grader, candidates)

    def prove(self) -> None:
        """Draws the branches and makes the scores that are not there yet, as far as the kind of values needs them.

        Raises:
            HeadwayError: there are no traces, or the engine cannot do it.
        """
        if self.settings.values in FORMS:
            self._score()
        if self.settings.values in DRAWN:
            self._draw()

    def _score(self) -> None:
        traces = self._traces_to_prove()
        done = {((s.problem_id, s.index), s.boundary) for s in self.run.scores()}
        total = sum(len(self.segmenter(t)) + 1 for t in traces)
        self._tell("score", len(done), total)
        if len(done) >= total:
            return
        by_id, made = {p.id: p for p in self.problems.problems}, len(done)
        for scores in score(self.engine, traces, by_id, self.known, self.prover, self.segmenter, done=done):
            self.run.append(scores)
            made += len(scores)
            self._tell("score", made, total)

    def _traces_to_prove(self) -> list[Trace]:
        traces = sorted(self.run.traces(), key=lambda t: (t.problem_id, t.index))
        if not traces:
            raise HeadwayError(f"{self.run.path} has no traces to prove; `headway sample` makes them")
        return traces

    def _draw(self) -> None:
        """Draws the branches that are not there yet.

        Raises:
            HeadwayError: there are no traces.
        """
        traces = self._traces_to_prove()
        done = {((b.problem_id, b.index), b.boundary, b.branch) for b in self.run.branches()}
        total = sum(len(self.segmenter(t)) + 1 for t in traces) * self.settings.branches
        self._tell("prove", len(done), total)
        if len(done) >= total:
            return
        by_id = {p.id: p for p in self.problems.problems}
        made = len(done)
        chunks = prove(
            self.engine, traces, by_id, self.grader, self.prover, self.segmenter, seed=self.settings.seed, done=done
        )
        for branches in chunks:
            if self.settings.values in FORMS:
                branches = self.known.marked(branches, traces, by_id, self.segmenter)
            self.run.append(branches)
            made += len(branches)
            self._tell("prove", made, total)

    def measured(self) -> Measured:
        """The traces with their value curves."""
        s = self.settings
        branches = self.run.branches() if s.values in DRAWN else []
        return measured(self.run.traces(), branches, self.segmenter, scores=self.run.scores(), values=s.values)

    def report(self) -> dict[str, Any]:
        """Writes report.json and report.html, and returns the former.

        Raises:
            HeadwayError: there are no traces or no branches.
        """
        branches = self.run.branches() if self.settings.values in DRAWN else []
        scores = self.run.scores()
        if self.settings.values in FORMS and not scores:
            raise HeadwayError(f"{self.run.path} has no scores to report on; `headway prove --out {self.run.path}`")
        if self.settings.values in DRAWN and not branches:
            raise HeadwayError(f"{self.run.path} has no branches to report on; `headway prove --out {self.run.path}`")
        self._tell("report", 0, 1)
        s, made = self.settings, self.measured()
        report = summarize(
            made, model=s.model, problems=self.problems.name, budget=s.budget, answer_tokens=s.answer_tokens
        )
        report["branches"] = branch_counts(branches)
        report["values"] = value_quality(made, branches, scores, self.segmenter)
        by_id = {p.id: p for p in self.problems.problems}
        self.run.write_json("report.json", report)
        self.run.write_text("report.html", render_run(report, made, branches, problems=by_id))
        self._tell("report", 1, 1)
        return report

    def all(self) -> dict[str, Any]:
        """Sample, prove, report."""
        self.sample()
        self.prove()
        return self.report()


def open_engine(settings: Settings, problems: ProblemSet) -> Engine:
    """The engine of a model: the scripted one for `scripted`, transformers otherwise."""
    if settings.engine == SCRIPTED or (settings.engine == "auto" and settings.model == SCRIPTED):
        return ScriptedEngine(problems.problems, ramps(problems.problems))
    from headway.engines import hf

    return hf.load(model_path(settings.model), dtype=settings.dtype, trust_remote_code=settings.trust_remote_code)


def compare_runs(runs: Sequence[tuple[str, Path]], out: Path, *, budgets: Sequence[int] | None = None) -> str:
    """Puts run folders side by side into `out` (compare.json, report.html, budget_curve.png); returns it as a table.

    Accuracy and regret are compared at the given budgets, or at half and all of the first run's.

    Raises:
        HeadwayError: a folder is no run or has no branches, or two runs share no problem.
    """
    labelled = []
    for label, path in runs:
        with Measurement(Run.load(path)) as measurement:
            labelled.append((label, measurement.measured(), measurement.report()))
    whole = labelled[0][2]["budget"]
    comparison = compare(labelled, budgets or (whole // 2, whole))
    folder = Run(out, {})
    out.mkdir(parents=True, exist_ok=True)
    reports = [(label, report) for label, _, report in labelled]
    folder.write_json("compare.json", comparison)
    folder.write_text("report.html", render_compare(comparison, reports))
    charts.save_png(charts.budget_curve(reports), out / "budget_curve.png")
    return markdown_table(comparison)
