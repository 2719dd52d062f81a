"""What `headway study` does: run cells, list them, report on them."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from headway.runs.study.config import read_study
from headway.runs.study.schedule import Standing, StudyRun


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
        """Writes table, figures and page of what is done; returns what was written."""
        raise NotImplementedError
