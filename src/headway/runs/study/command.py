"""What `headway study` does: run cells, list them, report on them."""

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.report.numbers.study import table
from headway.report.page.study_charts import figures
from headway.report.page.study_page import BEGIN, END, Rows, generated, put_between
from headway.runs.study.cell import write_json
from headway.runs.study.config import read_study
from headway.runs.study.plan import Plan
from headway.runs.study.schedule import Standing, StudyRun
from headway.types import HeadwayError


class StudyCommand:
    """A study by its configuration file."""

    def __init__(self, config: Path, *, small: bool = False) -> None:
        self.study = read_study(config, small=small)
        command = ["headway", "study", "--config", str(config), *(["--small"] if small else [])]
        self.on_disk = StudyRun(self.study, command)

    def run(self, patterns: list[str], jobs: int, tell: Callable[[str], None]) -> None:
        """Runs the missing ones of the cells that fit."""
        self.on_disk.run(patterns, jobs, tell)

    def cell(self, name: str) -> None:
        """Runs one cell in this process."""
        self.on_disk.run_one(name)

    def cells(self, patterns: list[str]) -> tuple[list[tuple[str, str, float | None]], float]:
        """Name, state and minutes of each cell, and about how many minutes of one core are left.

        What is not done is taken to need the mean time of the method's cells, or of the kind's, or what the
        configuration expects.
        """
        standings = [self.on_disk.standing(job) for job in self.on_disk.plan().selected(patterns)]
        by_method, by_kind = defaultdict[tuple[str, str], list[float]](list), defaultdict[str, list[float]](list)
        for job, _, minutes in standings:
            if minutes is not None:
                by_method[job.kind, job.method].append(minutes)
                by_kind[job.kind].append(minutes)

        def expected(standing: Standing) -> float:
            job = standing.job
            times = by_method[job.kind, job.method] or by_kind[job.kind] or [self.study.expected_minutes]
            return sum(times) / len(times)

        left = sum(expected(s) for s in standings if s.state != "done")
        return [(s.job.name, s.state, s.minutes) for s in standings], left

    def report(self) -> str:
        """Writes table.json, the figures and the page of what is done; returns what was written.

        Raises:
            HeadwayError: no cell is done, or the page has lost its markers.
        """
        study, plan = self.study, self.on_disk.plan()
        cells, wanted = self.done(plan)
        labels = {name: m.label or name for name, m in study.all_methods.items()}
        results, page = Path(study.results), Path(study.page)
        made = table(cells, budget=study.budget, baseline=study.baseline, reference=study.reference)
        write_json(results / "table.json", made)
        rows = Rows(made, labels)
        drawn = figures(rows, cells)
        for name, (_, chart) in drawn.items():
            chart.save(results / f"{name}.svg", format="svg")
        page.parent.mkdir(parents=True, exist_ok=True)
        paths = [(title, os.path.relpath(results / f"{name}.svg", page.parent)) for name, (title, _) in drawn.items()]
        done = sum(len(by_seed) for methods in cells.values() for by_seed in methods.values())
        progress = f"{done} of {wanted} cells are done. Each line says how many seeds and problems it has so far."
        for setting, weights in starts(cells).items():
            if len(weights) > 1:
                progress += (
                    f" **The cells of `{setting}` start from {len(weights)} different models**, which are mixed."
                )
        there = page.read_text(encoding="utf-8") if page.exists() else f"# Study\n\n{BEGIN}\n{END}\n"
        page.write_text(put_between(there, generated(rows, paths, progress)), encoding="utf-8")
        return f"{page}: {progress}"

    def done(self, plan: Plan) -> tuple[dict[str, dict[str, dict[int, Any]]], int]:
        """The results that are there by setting, method and seed, and how many are wanted."""
        wanted = [job for job in plan.jobs.values() if job.kind in ("start", "cell")]
        cells: dict[str, dict[str, dict[int, Any]]] = {}
        for job in wanted:
            if (content := self.on_disk.content(job)) is not None:
                cells.setdefault(job.setting, {}).setdefault(job.method, {})[job.seed] = content
        if not cells:
            raise HeadwayError(f"no cell of {self.study.results} is done; run the study without --report first")
        order = {setting: cells[setting] for setting in self.study.settings if setting in cells}
        return order, len(wanted)


def starts(cells: dict[str, dict[str, dict[int, Any]]]) -> dict[str, set[str | None]]:
    """The weights that the cells of each setting start from."""
    return {
        setting: {content.get("start_weights") for by_seed in methods.values() for content in by_seed.values()}
        for setting, methods in cells.items()
    }
