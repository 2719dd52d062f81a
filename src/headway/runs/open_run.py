"""A run folder with what its settings name: problems, model, grader, think tags."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import msgspec

from headway.core.segment import cut
from headway.engines.window import counting
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.procedures.forced import Segmenter
from headway.report.numbers.table import RunTable, refuse_repeated, run_table
from headway.runs.settings import WERE, Settings, open_engine, problems_of
from headway.runs.store import Record, Records, Run
from headway.text.equivalence import answer_classes
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Engine, Episode, Grader, HeadwayError, MetaProver, Score, Trace

Tell = Callable[[str, int, int], None]
T = TypeVar("T")
Opened = TypeVar("Opened", bound="OpenRun")


def quiet(*_: object) -> None:
    """Tells nothing of the progress."""


class OpenRun(ExitStack):
    """A run folder and what its settings name, loaded when first needed; settings of another version are refused.

    A context manager: leaving it ends the grader's processes and the engine's connections.
    """

    def __init__(
        self, run: Run, tell: Tell = quiet, *, grader: Grader | None = None, segmenter: Segmenter | None = None
    ) -> None:
        super().__init__()
        self.run = run
        try:
            self.settings = Settings.of(**{**WERE, **run.settings})
        except (msgspec.ValidationError, HeadwayError) as error:
            raise HeadwayError(f"{run.path / 'run.json'}: {error}; measure again into a new folder") from error
        self._tell, self._given, self._segmenter = tell, grader, segmenter
        for option, name in self.settings.functions.items():
            if {"grader": grader, "segment": segmenter}[option] is None:
                made = f"{run.path} was made with the Python function '{name}' as {option}"
                raise HeadwayError(f"{made}; continue it from Python with headway.measure(..., {option}={name})")

    @classmethod
    def load(cls: type[Opened], path: Path, tell: Tell = quiet) -> Opened:
        """The run at a path."""
        return cls(Run.load(path), tell)

    @cached_property
    def problems(self) -> ProblemSet:
        """The problems that the run was made with, from its own copy."""
        if (saved := self.run.problems()) and (about := self.run.problem_set):
            return ProblemSet(about["name"], saved, about["grader"])
        return problems_of(self.settings)  # an older version made the run

    @cached_property
    def engine(self) -> Engine:
        """The model behind its engine."""
        return self._closing(open_engine(self.settings, self.problems))

    @cached_property
    def grader(self) -> Grader:
        """The grader: that of the settings, or of the problems."""
        return self._given if self._given is not None else self._closing(load_grader(self.grader_name))

    @property
    def grader_name(self) -> str:
        """Which grader makes the run's numbers: its name, or that of a Python function."""
        named = self.settings.functions.get("grader", self.settings.problems.grader)
        return self.problems.grader if named == "auto" else named

    def _closing(self, opened: T) -> T:
        if hasattr(opened, "close"):
            self.callback(opened.close)
        return opened

    @cached_property
    def tags(self) -> ThinkTags:
        """The think tags."""
        return self.settings.engine.think_tags(self.engine.tokenizer)

    @property
    def meta_prover(self) -> MetaProver:
        """The meta-prover."""
        s, most = self.settings.proving, self.settings.sampling.answer_tokens
        return meta_prover(
            self.tags, suffix=s.suffix, end_suffix=s.end_suffix, branches=s.branches, max_tokens=most,
            **self.settings.branch_sampling,
        )  # fmt: skip

    def segmenter(self, trace: Trace) -> list[Episode]:
        """Cuts a trace as the settings say."""
        return (
            self._segmenter(trace)
            if self._segmenter
            else cut(trace, self.settings.cutting, self.settings.sampling.budget)
        )

    def table(self, scores: Sequence[Score] | None = None) -> RunTable:
        """The traces and branches as numbers; every record is read once. Records there twice are a HeadwayError."""
        run, grader, kind = self.run, self.grader, self.settings.proving.values
        same = grader if getattr(grader, "compares", False) else None  # whether it can compare two wrong answers
        scores = run.scores() if scores is None else scores
        classify = partial(answer_classes, one_right=getattr(grader, "one_right", False), same=same)
        try:
            return run_table(run.traces(), run.branches(), self.segmenter, kind=kind, scores=scores, classify=classify)
        except HeadwayError as error:
            raise HeadwayError(f"{run.path}: {error}") from error

    def ordered_traces(self) -> Records[Trace]:
        """The traces by problem and index, on disk; a HeadwayError where there are none."""
        if not (keys := self.run.trace_keys()):
            raise HeadwayError(f"{self.run.path} has no traces; `headway sample` makes them")
        refuse_repeated(f"{self.run.path}: traces.jsonl", len(keys) - len(set(keys)))
        return self.run.traces().take(sorted(range(len(keys)), key=keys.__getitem__))

    def advance(self, stage: str, made: int, total: int, chunks: Callable[[], Iterable[Sequence[Record]]]) -> None:
        """Appends the records that a stage makes, and reports its progress: `made` of the `total` are there.

        `chunks` makes the others. Without others it is not called, so that nothing is opened.
        """
        self._tell(stage, made, total)
        if made >= total:
            return
        parts, window = chunks(), getattr(self.engine, "window", None)
        with counting(window, "traces are longer", "lower --budget") as counter:
            for records in parts:
                self.run.append(records)
                counter.see(len(r.prompt_ids) + len(r.token_ids) for r in records if isinstance(r, Trace))
                made += len(records)
                self._tell(stage, made, total)
