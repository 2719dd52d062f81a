"""One job of a study: train, measure, write the result. Each stage goes on where it was stopped."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from headway import __version__
from headway.engines.loading import model_path
from headway.report.numbers import study_cell
from headway.runs.lock import writing
from headway.runs.measure import Measurement
from headway.runs.settings import Settings, extra
from headway.runs.study.config import Study
from headway.runs.study.plan import Evaluation, Job
from headway.types import HeadwayError

MODEL, STATE = "model", "trainer_state.json"
# what every training of a study has, so that it resumes and its log is kept
RESUMES = {
    "save_strategy": "steps", "save_steps": 10, "save_total_limit": 1, "logging_steps": 1, "report_to": "none",
    "disable_tqdm": True,
}  # fmt: skip
PACKAGES = ("torch", "trl", "transformers", "numpy")


class Cell:
    """A job in its work folder, where `model` and a run folder for each evaluation are."""

    def __init__(self, study: Study, job: Job, result: Path, command: str) -> None:
        self.study, self.job, self.result, self.command = study, job, result, command
        self.folder = folder_of(study, job.name)

    def run(self) -> None:
        """Does what is missing, and writes the result; a HeadwayError where another process does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder) as self._lock:
            self._begin()
            if self.job.train is not None:
                self._timed("train", self._train)
            tests = {name: self._timed(name, lambda of=name: self._evaluate(of)) for name in self.job.evaluations}
            write_json(self.result, self._content(tests))
            for checkpoint in (self.folder / MODEL).glob("checkpoint-*"):
                shutil.rmtree(checkpoint)

    def _begin(self) -> None:
        """Keeps what was made for the same job, and nothing else."""
        file = self.folder / "asked.json"
        if file.exists() and read_json(file) != self.job.asked:
            for there in self.folder.iterdir():
                if there.name not in ("lock", "log.txt"):
                    shutil.rmtree(there) if there.is_dir() else there.unlink()
        write_json(file, self.job.asked)

    def _timed(self, stage: str, work: Any) -> Any:
        """Does a stage and adds the seconds that it took to those of earlier attempts."""
        file, begun, used = self.folder / "seconds.json", time.monotonic(), cpu_seconds()
        try:
            return work()
        finally:
            there = read_json(file) if file.exists() else {}
            before = there.get(stage, {"wall": 0.0, "cpu": 0.0})
            spent = {"wall": time.monotonic() - begun, "cpu": cpu_seconds() - used}
            write_json(file, there | {stage: {name: round(before[name] + spent[name], 1) for name in spent}})

    def _train(self) -> None:
        out = self.folder / MODEL
        if (out / STATE).exists():
            return
        with extra("train", "a study needs pyyaml"):
            import yaml
        recipe = self.folder / "recipe.yaml"
        start = model_of(self.study, self.job.model)
        asked = {"model_name_or_path": start} | RESUMES | (self.job.train or {}) | {"seed": self.job.seed}
        recipe.write_text(yaml.safe_dump(asked, sort_keys=False), encoding="utf-8")
        arguments = ["train", "--config", str(recipe), "--output_dir", str(out)]
        if (checkpoint := last_checkpoint(out)) is not None:
            arguments += ["--resume_from_checkpoint", str(checkpoint)]
        # a training that outlives this process holds the lock as well
        done = subprocess.run([sys.executable, "-m", "headway", *arguments], pass_fds=[self._lock])
        if done.returncode:
            raise HeadwayError(f"training of {self.job.name} ended with exit code {done.returncode}, see above")
        if not (out / STATE).exists():
            raise HeadwayError(f"training of {self.job.name} left no {out / STATE}")

    def _evaluate(self, name: str) -> dict[str, Any]:
        asked, study = self.job.evaluations[name], self.study
        model = model_of(study, self.job.model) if self.job.train is None else str(self.folder / MODEL)
        with Measurement.create(self.folder / name, self.settings(asked, model)) as measurement:
            measurement.sample()
            if asked.grid_tokens is not None:
                measurement.prove()
            table, order = measurement.table(), [p.id for p in measurement.problems.problems]
            budgets = [round(study.budget * m) for m in study.multiples if round(study.budget * m) <= asked.budget]
            found: dict[str, Any] = {
                "problems": asked.problems, "n_problems": len(order), "traces": asked.traces,
                "success": study_cell.success(table, order, budgets), "tokens": round(float(table.tokens.mean()), 1),
            }  # fmt: skip
            if asked.grid_tokens is not None:
                found |= study_cell.curves(table, order, [b + study.answer_tokens for b in budgets])
            if name == "votes":
                found |= study_cell.votes(table, order)
            if measurement.problems.grader == "countdown":
                found |= study_cell.written(measurement.run.traces(), study.budget)
        return found

    def settings(self, of: Evaluation, model: str) -> Settings:
        """The settings of an evaluation; its seed is the cell's own."""
        options: dict[str, Any] = {"limit": of.limit, "traces": of.traces, "budget": of.budget, "seed": self.job.seed}
        if of.grid_tokens is not None:
            options |= {"values": "likelihood", "segment": "tokens", "episode_tokens": of.grid_tokens}
        return Settings.of(model=model, problems=of.problems, answer_tokens=self.study.answer_tokens, **options)

    def _content(self, tests: Mapping[str, Any]) -> dict[str, Any]:
        job, state = self.job, self.folder / MODEL / STATE
        log = read_json(state)["log_history"] if job.train is not None else []
        return {
            "cell": job.name, "command": self.command, "versions": versions(), **job.asked,
            "point": job.point, "start_weights": weights_of(model_of(self.study, job.model)),
            "cost": {
                "steps": study_cell.last_known(log, "step"),
                "generated_tokens": study_cell.last_known(log, "mrt/generated_tokens"),
                "computed_tokens": study_cell.last_known(log, "mrt/computed_tokens"),
                "step_seconds": round(sum(row.get("step_time", 0.0) for row in log), 1) if log else None,
                "seconds": read_json(self.folder / "seconds.json"),
            },
            "training": study_cell.training(log), "tests": dict(tests),
        }  # fmt: skip


def folder_of(study: Study, name: str) -> Path:
    """The work folder of a job."""
    return Path(study.work) / name


def model_of(study: Study, model: str) -> str:
    """The model of a job's start: one that a job has made, or as it is named."""
    made = folder_of(study, model) / MODEL
    return str(made) if (made / STATE).exists() else model


def weights_of(model: str) -> str | None:
    """The beginning of the SHA-256 of a model's weights, to see that cells start from the same; None where unknown."""
    file = Path(model_path(model)) / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else None


def last_checkpoint(out: Path) -> Path | None:
    """The last whole checkpoint of a training, None without; one that was being written is removed."""
    found = sorted(out.glob("checkpoint-*"), key=lambda c: int(c.name.rpartition("-")[2]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / STATE).read_text())  # written last
            return checkpoint
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    return None


def locked(folder: Path) -> AbstractContextManager[int]:
    """Holds the lock of a work folder, which ends with the process; a HeadwayError where another one holds it."""
    return writing(folder, "lock")


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of a work folder."""
    if not (folder / "lock").exists():
        return False
    try:
        with locked(folder):
            return False
    except HeadwayError:
        return True


def cpu_seconds() -> float:
    """The processor time of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def versions() -> dict[str, str]:
    """The versions of what is installed; the commit where Headway is run from a checkout."""
    found = {"headway": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True) if shutil.which("git") else None
    return found | ({"commit": commit.stdout.strip()} if commit and commit.returncode == 0 else {})


def read_json(file: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(file.read_bytes())


def write_json(file: Path, content: Any) -> None:
    """Writes JSON in one piece: a crash leaves the old file or the new one. A line for each list of numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(compact(json.loads(msgspec.json.encode(content))) + "\n", encoding="utf-8")
    partial.replace(file)


def compact(content: Any, indent: str = "") -> str:
    """JSON with a line for each entry of a mapping, and lists in one line."""
    if not isinstance(content, dict) or not content:
        return json.dumps(content, ensure_ascii=False, separators=(", ", ": "))
    inner = indent + " "
    lines = [f"{inner}{json.dumps(name, ensure_ascii=False)}: {compact(x, inner)}" for name, x in content.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
