"""One line for what a notebook asks: plain lists, arrays and pandas frames in, numbers and pandas frames out."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headway.core import progress as pure_progress
from headway.core import regret as pure_regret
from headway.problems import Columns, ProblemSet
from headway.problems.files import Table
from headway.problems.graders import InPlace
from headway.problems.rows import to_problems
from headway.report.files import estimates, trace_rows
from headway.report.text import visible
from headway.runs.importers.rows import ImportOptions
from headway.runs.importers.run import import_traces
from headway.runs.measure import Measurement
from headway.runs.report import compare_runs
from headway.runs.settings import Settings
from headway.types import Engine, Episode, Grader, HeadwayError, Problem, Trace

if TYPE_CHECKING:
    import pandas as pd

Numbers = Any  # a list, a tuple, an array or a pandas series of numbers


class Result:
    """A measurement: its folder, its report, and both as pandas frames."""

    def __init__(self, measurement: Measurement) -> None:
        self._page = measurement.write()
        self.path: Path = measurement.run.path
        self.report: dict[str, Any] = self._page.report

    def frame(self) -> "pd.DataFrame":
        """The estimates of the report, one per row, each with its error."""
        return _frame(estimates([(visible(self._page.label), self.report)]))

    def traces(self) -> "pd.DataFrame":
        """The traces, one per row: outcome, reward, lengths, regret, progress."""
        return _frame(trace_rows(self._page))

    def __repr__(self) -> str:
        passed = self.report["pass_at_1"]
        return f"Result(pass@1 {passed['value']:.3f} ± {passed['stderr']:.3f}, {self.path / 'report.html'})"


def measure(
    model: str = "builtin:countdown",
    problems: Any = "countdown",
    *,
    out: str | PathLike[str] | None = None,
    completions: Any = None,
    grader: str | Grader | Callable[[str, str], bool] = "auto",
    segment: str | Callable[[Trace], list[Episode]] = "markers",
    **options: Any,
) -> Result:
    """Samples traces, proves them and reports, as `headway measure` does; or proves completions made elsewhere.

    Args:
        model: As for `--model`; with `completions`, the meta-prover.
        problems: As for `--problems`, or `Problem`s, dicts or a pandas frame with `prompt` and `answer`.
        out: The run folder; one that exists continues, but not with `completions`. By default a new temporary folder.
        completions: A pandas frame or a file, as `headway import` reads it: `prompt`, `completion`, `answer`.
        grader: A name, a grader, or a function of answer and reference answer.
        segment: A name, or a function from a trace to its episodes.
        options: All other options of `headway measure`, and with `completions` those of `headway import`; one that
            cannot be used is a HeadwayError.
    """
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="headway-")) / "run"
    judge = InPlace(grader) if not hasattr(grader, "grade") and callable(grader) else grader
    functions = {}
    for option, value in (("grader", grader), ("segment", segment)):
        if isinstance(value, str):
            options[option] = value
        else:
            functions[option] = getattr(value, "__name__", type(value).__name__)
    given: dict[str, Any] = {
        "grader": judge if "grader" in functions else None,
        "segmenter": segment if "segment" in functions else None,
    }
    if completions is not None:
        if not isinstance(problems, str) or problems != "countdown":
            raise HeadwayError("completions bring their own problems (prompt, answer); give one of the two")
        _import(completions, folder, {"model": model, "functions": functions, **options}, given["grader"])
        measurement = Measurement.load(folder, **given)
    else:
        asked = None if isinstance(problems, str | PathLike) else _problem_set(problems)
        name = str(problems) if asked is None else asked.name
        settings = Settings.of(model=model, problems=name, functions=functions, **options)
        measurement = Measurement.create(folder, settings, problems=asked, **given)
    with measurement:
        if completions is None:
            measurement.sample()
        measurement.prove()
        return Result(measurement)


def compare(
    runs: Mapping[str, Any] | Sequence[Any], *, out: str | PathLike[str] | None = None, budgets: Numbers = None
) -> "pd.DataFrame":
    """Runs (folders or `Result`s) side by side, as `headway compare` puts them: an estimate or a difference per row.

    The others are compared with the first. A dict gives their labels. `out`, by default a new temporary folder, is for
    compare.json and report.html; accuracy and regret are compared at `budgets`, in completion tokens.
    """
    given = list(runs.values()) if isinstance(runs, Mapping) else list(runs)
    paths = [run.path if isinstance(run, Result) else Path(run) for run in given]
    labels = list(runs) if isinstance(runs, Mapping) else [path.resolve().name for path in paths]
    pages = [run._page if isinstance(run, Result) else path for run, path in zip(given, paths, strict=True)]
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="headway-")) / "compare"
    compare_runs(list(zip(labels, pages, strict=True)), folder, budgets=budgets, formats=())
    compared = json.loads((folder / "compare.json").read_text())
    return _frame(
        {"run": run["label"], "kind": kind.removesuffix("s"), **record}
        for run in compared["runs"]
        for kind in ("estimates", "differences")
        for record in run[kind]
    )


def regret(tokens: Numbers, values: Numbers, budgets: Numbers, *, comparator: float = 1.0) -> Any:
    """The normalized regret of one trace at a budget or at several (`core.regret.normalized_regret`).

    `tokens` are the budgets of an answer at each boundary, in completion tokens, and `values` the values there;
    `comparator` is the value of the policy to compare with, at every budget.
    """
    at = np.atleast_1d(np.asarray(budgets, dtype=float))
    spent, reached = np.asarray(tokens, dtype=float), np.asarray(values, dtype=float)
    found = pure_regret.normalized_regret(spent, reached, at, comparator=comparator)
    return float(found[0]) if np.ndim(budgets) == 0 else found


def progress(values: Numbers) -> "np.ndarray":
    """The progress of each episode of a trace from the values at its boundaries (`core.progress.progress`)."""
    return pure_progress.progress(np.asarray(values, dtype=float))


def load_model(model: str = "builtin:countdown", **options: Any) -> Engine:
    """The transformers engine of a model folder, a hub name or `builtin:NAME` (`engines.hf.load`; needs torch)."""
    from headway.engines import hf

    return hf.load(model, **options)


def _import(completions: Any, folder: Path, settings: dict[str, Any], grader: Grader | None) -> None:
    """Makes a run of a frame or a file of completions; a folder that is not empty is a HeadwayError."""
    own = {name: settings.pop(name) for name in ImportOptions.__struct_fields__ if name in settings}
    with tempfile.TemporaryDirectory() as place:
        if isinstance(completions, str | PathLike):
            file = Path(completions)
        else:
            completions.to_parquet(file := Path(place) / "completions.parquet")
            own.setdefault("author", "unknown")  # a file may name its author, a frame does not
        asked = Settings.of(problems=str(file), **settings)
        import_traces(file, folder, asked, ImportOptions(**own), grader=grader)


def _problem_set(problems: Any) -> ProblemSet:
    rows = problems.to_dict("records") if hasattr(problems, "to_dict") else list(problems)
    if not all(isinstance(row, Problem | Mapping) for row in rows):
        expected = "a name, a file, Problems, dicts or a frame with prompt and answer"
        raise HeadwayError(f"problems must be {expected}; got {rows[:1]!r:.80}")
    if not all(isinstance(row, Problem) for row in rows):
        named = ((f"problem {i}", row) for i, row in enumerate(rows))
        rows = to_problems(Table("the problems", named), Columns())
    return ProblemSet("notebook", rows, "math-verify")


def _frame(rows: Any) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(list(rows))
