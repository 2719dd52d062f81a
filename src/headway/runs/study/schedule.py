"""Runs the jobs of a study side by side, each in a process of its own, and says how far the study is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from headway.report.numbers.study_cell import unpack
from headway.runs.study.cell import Cell, folder_of, is_running, read_json, write_json
from headway.runs.study.config import Recipe, Study
from headway.runs.study.plan import Job, Plan
from headway.types import HeadwayError

State = Literal["done", "running", "begun", "outdated", "waiting", "missing"]
RULE = "the highest mean success on the validation problems over the tuning seeds; of equal ones the first of the grid"
POLL_SECONDS = 0.5


class Standing(NamedTuple):
    """A job, and what has become of it."""

    job: Job
    state: State
    minutes: float | None  # that it took, where it is done


class StudyRun:
    """A study on disk: its plan, results and choices."""

    def __init__(self, study: Study, command: Sequence[str]) -> None:
        self.study, self.command = study, list(command)  # `headway study --config FILE`, to repeat it

    def plan(self) -> Plan:
        """The plan with the choices made so far; makes those whose tuning is done."""
        plan = Plan(self.study, self._choices(Plan(self.study, {})))
        made = [where for where in self._tuning(plan) if where not in plan.choices and self._choose(plan, where)]
        return Plan(self.study, self._choices(plan)) if made else plan

    def result(self, job: Job) -> Path:
        """The file of a job's result."""
        room = "tuning" if job.kind == "tuning" else "cells"
        return Path(self.study.results) / room / f"{job.name}.json"

    def content(self, job: Job) -> dict[str, Any] | None:
        """A job's result; None without one, or where it was made with other options."""
        file = self.result(job)
        content = read_json(file) if file.exists() else None
        return content if content is not None and all(content[k] == v for k, v in job.asked.items()) else None

    def standing(self, job: Job) -> Standing:
        """What has become of a job; its model lies in the work folder and may have to be made again."""
        folder, content = folder_of(self.study, job.name), self.content(job)
        if is_running(folder):
            return Standing(job, "running", None)
        if content is not None and (job.kind != "model" or (folder / "model" / "trainer_state.json").exists()):
            seconds = content["cost"]["seconds"].values()
            return Standing(job, "done", sum(stage["wall"] for stage in seconds) / 60)
        if content is None and self.result(job).exists():
            return Standing(job, "outdated", None)
        return Standing(job, "begun" if (folder / "asked.json").exists() else "missing", None)

    # -- tuning --------------------------------------------------------------------------------------------------

    def _choice_file(self, where: tuple[str, str]) -> Path:
        return Path(self.study.results) / "tuning" / f"{'-'.join(where)}.json"

    def _choices(self, plan: Plan) -> dict[tuple[str, str], Recipe]:
        """The frozen choices that are points of the grid as it is now."""
        places = [(setting, name) for setting in self.study.settings for name in self.study.methods]
        files = {where: self._choice_file(where) for where in places}
        found = {where: read_json(file)["chosen"] for where, file in files.items() if file.exists()}
        return {where: chosen for where, chosen in found.items() if chosen in plan.points(where[1])}

    def _tuning(self, plan: Plan) -> dict[tuple[str, str], list[Job]]:
        found: dict[tuple[str, str], list[Job]] = {}
        for job in plan.jobs.values():
            if job.kind == "tuning":
                found.setdefault((job.setting, job.method), []).append(job)
        return found

    def _choose(self, plan: Plan, where: tuple[str, str]) -> bool:
        """Freezes the best point of a method's grid; False where a tuning job is still to be done."""
        contents = [(job, self.content(job)) for job in self._tuning(plan)[where]]
        tried: dict[str, dict[str, Any]] = {}
        for job, content in contents:
            if content is None:
                return False
            entry = tried.setdefault(repr(job.point), {"point": job.point, "seeds": [], "success": []})
            entry["seeds"].append(job.seed)
            entry["success"].append(self._validated(content))
        rows = [entry | {"mean": sum(entry["success"]) / len(entry["success"])} for entry in tried.values()]
        best = max(rows, key=lambda row: row["mean"])
        write_json(self._choice_file(where), {"chosen": best["point"], "rule": RULE, "tried": rows})
        return True

    def _validated(self, content: dict[str, Any]) -> float:
        """The mean success on the validation problems at the trained budget."""
        return float(unpack(content["tests"]["validation"]["success"][str(self.study.budget)]).mean())

    # -- running -------------------------------------------------------------------------------------------------

    def run_one(self, name: str) -> None:
        """Runs one job in this process."""
        plan = self.plan()
        if name not in plan.jobs:
            raise HeadwayError(f"no cell {name}; see --list")
        job = plan.jobs[name]
        if waits := [n for n in job.needs if self.standing(plan.jobs[n]).state != "done"]:
            raise HeadwayError(f"{name} needs {', '.join(waits)} first; without --cell the study does them")
        Cell(self.study, job, self.result(job), " ".join([*self.command, "--only", f"'{name}'"])).run()

    def run(self, patterns: list[str], jobs: int, tell: Callable[[str], None]) -> None:
        """Runs what is missing of the chosen jobs, `jobs` at a time.

        Raises:
            HeadwayError: some failed; the others were done.
        """
        running: dict[str, subprocess.Popen[bytes]] = {}
        failed: dict[str, str] = {}
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while True:
                plan = self.plan()
                chosen = plan.selected(patterns)
                states = {job.name: self.standing(job).state for job in chosen if job.name not in running}
                done = {name for name, state in states.items() if state == "done"}
                left = [j for j in chosen if j.name not in {*done, *failed, *running} and states[j.name] != "running"]
                ready = [job for job in left if done.issuperset(job.needs)]
                for job in ready[: jobs - len(running)]:
                    tell(f"{job.name}: begins ({len(done)} of {len(chosen)} are done)")
                    running[job.name] = self._start(job)
                if not running:
                    break
                for name, code in self._ended(running):
                    tell(f"{name}: {'done' if code == 0 else f'failed with exit code {code}'}")
                    if code:
                        failed[name] = str(folder_of(self.study, name) / "log.txt")
        finally:
            for process in running.values():
                os.killpg(process.pid, signal.SIGTERM)
            signal.signal(signal.SIGTERM, previous)
        if failed:
            logs = "; ".join(f"{name} ({log})" for name, log in failed.items())
            raise HeadwayError(f"{len(failed)} cells failed, see their logs: {logs}")

    def _start(self, job: Job) -> "subprocess.Popen[bytes]":
        folder = folder_of(self.study, job.name)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", *self.command, "--cell", job.name]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **threads},
            )  # fmt: skip

    def _ended(self, running: dict[str, "subprocess.Popen[bytes]"]) -> list[tuple[str, int]]:
        """Waits until at least one process has ended, and takes those out."""
        while True:
            ended = [(name, code) for name, process in running.items() if (code := process.poll()) is not None]
            if ended:
                for name, _ in ended:
                    del running[name]
                return ended
            time.sleep(POLL_SECONDS)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
