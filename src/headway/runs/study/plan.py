"""The jobs of a study: models to start from, cells to tune on, and cells of setting, method and seed.

A job is fixed by the configuration and by the choices that tuning froze; `asked` says all that its result depends on.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import product
from typing import Any, Literal

import msgspec

from headway.runs.study.config import Measuring, Method, Recipe, Start, Study
from headway.types import HeadwayError

START = "start"  # the name of a setting's start among its methods
Kind = Literal["model", "start", "tuning", "cell"]
ORDER: dict[Kind, int] = {"model": 0, "start": 1, "tuning": 2, "cell": 3}


class Evaluation(msgspec.Struct, frozen=True):
    """One measurement: problems, how many, traces of each, thinking tokens, boundaries this far apart (None: none)."""

    problems: str
    limit: int
    traces: int
    budget: int
    grid_tokens: int | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One training (of `train`, if any) and its evaluations."""

    name: str  # SETTING/METHOD/SEED, with the point of the grid where it is one
    kind: Kind
    setting: str
    method: str
    seed: int
    model: str  # what it starts from: a model, or the job that makes it
    origin: dict[str, Any] = {}  # what that job is asked for
    train: Recipe | None = None
    evaluations: dict[str, Evaluation] = {}
    needs: tuple[str, ...] = ()  # jobs that come first
    point: Recipe = {}  # of the grid

    @property
    def asked(self) -> dict[str, Any]:
        """What the result depends on, as JSON."""
        names = ("seed", "model", "origin", "train", "evaluations")
        return msgspec.json.decode(msgspec.json.encode({name: getattr(self, name) for name in names}))


class Plan:
    """The jobs of a study by name, in the order in which they are best done: all methods with one seed, then the next.

    `choices` holds what tuning froze, by setting and method; a cell that still lacks it needs the tuning jobs.
    """

    def __init__(self, study: Study, choices: dict[tuple[str, str], Recipe]) -> None:
        self.study, self.choices = study, choices
        self._models = {job.setting: job for job in self._model_jobs()}
        jobs = [*self._models.values(), *self._starts(), *self._tuning(), *self._cells()]
        self.jobs = {job.name: job for job in sorted(jobs, key=lambda job: ORDER[job.kind])}

    def selected(self, patterns: list[str]) -> list[Job]:
        """The jobs whose name fits a pattern (all without one), with those that they need."""
        fits = [n for n in self.jobs if not patterns or any(fnmatch(n, p) for p in patterns)]
        if not fits:
            raise HeadwayError(f"no cell fits {', '.join(patterns)}; names are SETTING/METHOD/SEED, see --list")
        wanted = set(fits)
        while more := {need for name in wanted for need in self.jobs[name].needs} - wanted:
            wanted |= more
        return [job for name, job in self.jobs.items() if name in wanted]

    def methods_of(self, setting: str) -> dict[str, Method]:
        """The methods and ablations that run in a setting."""
        study = self.study
        default = {True: list(study.settings)[:1], False: list(study.settings)}
        every = study.all_methods.items()
        return {n: m for n, m in every if setting in (m.settings or default[m.of is not None])}

    def points(self, name: str) -> list[Recipe]:
        """The grid of a method: the common options and its own; none where there is nothing to choose."""
        method, tuning = self.study.all_methods[name], self.study.tuning
        if tuning is None or method.of is not None:
            return []
        grid = tuning.grid | method.knob
        made = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        return made if len(made) > 1 else []

    def tuned_on(self, setting: str, name: str) -> tuple[str, str]:
        """The setting and the method whose choice counts."""
        return self.study.settings[setting].tuned_on or setting, self.study.all_methods[name].of or name

    # -- the jobs ------------------------------------------------------------------------------------------------

    def _model_jobs(self) -> Iterator[Job]:
        study = self.study
        for name, setting in study.settings.items():
            if isinstance(start := setting.start, Start):
                yield Job(
                    name=f"{name}/model/{start.seed}", kind="model", setting=name, method=start.method,
                    seed=start.seed, model=start.model,
                    train=study.train | study.methods[start.method].train | start.train,
                )  # fmt: skip

    def _starts(self) -> Iterator[Job]:
        for seed in self.study.seeds:
            for setting in self.study.settings:
                yield self._job("start", setting, START, seed)

    def _tuning(self) -> Iterator[Job]:
        tuning = self.study.tuning
        if tuning is None:
            return
        wanted: dict[str, dict[str, None]] = {}
        for setting in self.study.settings:
            for name in self.methods_of(setting):
                where, method = self.tuned_on(setting, name)
                wanted.setdefault(where, {})[method] = None
        for setting, names in wanted.items():
            for seed in tuning.seeds:
                for name in names:
                    for point in self.points(name):
                        train = self._train(setting, name) | tuning.train | point
                        yield self._job("tuning", setting, name, seed, train=train, point=point)

    def _cells(self) -> Iterator[Job]:
        tuning: dict[tuple[str, str], list[str]] = {}
        for job in self._tuning():
            tuning.setdefault((job.setting, job.method), []).append(job.name)
        for seed in self.study.seeds:
            for setting in self.study.settings:
                for name, method in self.methods_of(setting).items():
                    if seed not in self.study.seeds[: method.seeds]:
                        continue
                    where = self.tuned_on(setting, name)
                    waits = () if where in self.choices else tuple(tuning.get(where, ()))
                    own = method.train if method.of else {}
                    train = self._train(setting, where[1]) | self.choices.get(where, {}) | own
                    yield self._job("cell", setting, name, seed, train=train, needs=waits)

    def _train(self, setting: str, name: str) -> Recipe:
        return self.study.train | self.study.settings[setting].train | self.study.all_methods[name].train

    def _job(
        self, kind: Kind, setting: str, method: str, seed: int, *, train: Recipe | None = None,
        point: Recipe | None = None, needs: tuple[str, ...] = (),
    ) -> Job:  # fmt: skip
        study, of = self.study, self.study.settings[setting]
        maker = self._models.get(setting)
        at = "@" + ",".join(f"{name}={value}" for name, value in point.items()) if point else ""
        whole = max(study.multiples)
        evaluations = {"validation": self._evaluation(of.validation, study.validation)}
        if kind != "tuning":
            evaluations = {
                "curves": self._evaluation(of.test, study.curves, multiple=whole, grid=study.grid_tokens),
                "votes": self._evaluation(of.test, study.votes),
            }
            if of.also is not None:
                evaluations["also"] = self._evaluation(of.also, study.also)
        return Job(
            name=f"{setting}/{method}{at}/{seed}", kind=kind, setting=setting, method=method, seed=seed,
            model=maker.name if maker else str(of.start), origin=maker.asked if maker else {}, train=train,
            evaluations=evaluations, needs=(*((maker.name,) if maker else ()), *needs), point=point or {},
        )  # fmt: skip

    def _evaluation(
        self, problems: str, of: Measuring, *, multiple: float = 1.0, grid: int | None = None
    ) -> Evaluation:
        return Evaluation(problems, of.limit, of.traces, round(self.study.budget * multiple), grid)
