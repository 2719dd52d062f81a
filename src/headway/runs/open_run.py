"""A run folder with what its settings name: problems, model, grader, think tags."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

import msgspec

from headway.core.segment import cut
from headway.problems import ProblemSet
from headway.problems.graders import load_grader
from headway.procedures.forced import Segmenter
from headway.runs.records import Records, TraceLine
from headway.runs.settings import Settings, open_engine, problems_of
from headway.runs.store import Run
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags, find_think_tags
from headway.types import Attempt, Branch, Engine, Episode, Grader, HeadwayError, MetaProver, Score, Trace

Tell = Callable[[str, int, int], None]
Opened = TypeVar("Opened", bound="OpenRun")


class OpenRun:
    """A run folder and what its settings name; models, problems and graders are loaded when first needed.

    A context manager: leaving it ends the grader's processes and the engine's connections.

    Raises:
        HeadwayError: the settings are not those of this version.
    """

    def __init__(
        self,
        run: Run,
        tell: Tell = lambda stage, done, total: None,
        *,
        grader: Grader | None = None,
        segmenter: Segmenter | None = None,
    ) -> None:
        self.run = run
        try:
            self.settings = Settings.of(**run.settings)
        except (msgspec.ValidationError, HeadwayError) as error:
            raise HeadwayError(f"{run.path / 'run.json'}: {error}; measure again into a new folder") from error
        self._tell, self._given, self._segmenter = tell, grader, segmenter
        missing = {"grader": grader, "segment": segmenter}
        for option, name in self.settings.functions.items():
            if missing[option] is None:
                raise HeadwayError(
                    f"{run.path} was made with the Python function '{name}' as {option}; continue it from Python with "
                    f"headway.measure(..., {option}={name})"
                )
        self._stack = ExitStack()

    def __enter__(self: Opened) -> Opened:
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

    @cached_property
    def grader(self) -> Grader:
        """The grader: that of the settings, or of the problems."""
        if self._given is not None:
            return self._given
        named = self.settings.problems.grader
        grader = load_grader(self.problems.grader if named == "auto" else named)
        if hasattr(grader, "close"):
            self._stack.callback(grader.close)
        return grader

    @cached_property
    def tags(self) -> ThinkTags:
        """The think tags."""
        s = self.settings.engine
        return find_think_tags(
            self.engine.tokenizer, think_open=s.think_open, think_close=s.think_close, think_format=s.think_format
        )

    @property
    def meta_prover(self) -> MetaProver:
        """The meta-prover."""
        s, most = self.settings.proving, self.settings.sampling.answer_tokens
        return meta_prover(self.tags, suffix=s.suffix, end_suffix=s.end_suffix, branches=s.branches, max_tokens=most)

    def segmenter(self, trace: Trace) -> list[Episode]:
        """Cuts a trace as the settings say."""
        return self._segmenter(trace) if self._segmenter else cut(trace, self.settings.cutting)

    def ordered_traces(self) -> Records[Trace]:
        """The traces by problem and index, on disk.

        Raises:
            HeadwayError: there are none.
        """
        there = self.run.traces()
        keys = [(t.problem_id, t.index) for t in there.read_as(TraceLine)]
        if not keys:
            raise HeadwayError(f"{self.run.path} has no traces; `headway sample` makes them")
        return there.take(sorted(range(len(keys)), key=keys.__getitem__))

    def advance(
        self,
        stage: str,
        made: int,
        total: int,
        chunks: Callable[[], Iterable[Sequence[Trace | Branch | Score | Attempt]]],
    ) -> None:
        """Appends the records that a stage makes to the run, and reports how far it is.

        Args:
            stage: Its name.
            made: The records that are there.
            total: The records that are asked for; where they are there, `chunks` is not called and nothing is opened.
            chunks: Makes the records that are missing.
        """
        self._tell(stage, made, total)
        if made >= total:
            return
        for records in chunks():
            self.run.append(records)
            made += len(records)
            self._tell(stage, made, total)
