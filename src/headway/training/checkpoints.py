"""Checkpoints of a training: whole ones are resumed from, and one that is being written never looks like one."""

import json
import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from headway.types import HeadwayError

logger = logging.getLogger(__name__)

STATE = "trainer_state.json"
SAVING = ".saving"  # of the output folder: a checkpoint is written there, and then renamed
SHARDED = ("global_step*", "optimizer_*", "pytorch_model_fsdp_*")  # states of DeepSpeed and FSDP have other names


def to_resume(given: str | bool | None, output_dir: str) -> str | None:
    """The checkpoint to resume from: the given one, or with `true` the newest whole one of the output folder.

    Raises:
        HeadwayError: there is none, or the given one lacks what an exact resumption needs.
    """
    if given is None or str(given).lower() == "false":
        return None
    chosen = str(given)
    if chosen.lower() == "true":
        skipped = []
        for checkpoint in _newest_first(output_dir):
            if (why := fault(checkpoint)) is None:
                break
            skipped.append(f"{checkpoint.name} {why}")
        else:
            each = "; ".join(skipped) or "it has no checkpoint"
            raise HeadwayError(f"nothing to resume from in {output_dir}: {each}; leave resume_from_checkpoint out")
        for text in skipped:
            logger.warning(f"{text}; resuming from {checkpoint.name}")
        chosen = str(checkpoint)
    elif (why := fault(Path(chosen))) is not None:
        whole = newest_whole(output_dir)
        remedy = f"give {whole}, the newest whole one" if whole else "leave resume_from_checkpoint out"
        raise HeadwayError(f"cannot resume from {chosen}: it {why}; {remedy}")
    if json.loads((Path(chosen) / STATE).read_text(encoding="utf-8")).get("epoch", 0) >= 1:
        logger.warning(
            f"{chosen} is past the first pass over the problems: TRL orders them anew, so this training ends with "
            "other weights than an uninterrupted one"
        )
    return chosen


def newest_whole(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint of a training; None without one."""
    return next((str(c) for c in _newest_first(output_dir) if fault(c) is None), None)


def _newest_first(output_dir: str | Path) -> list[Path]:
    return sorted(Path(output_dir).glob("checkpoint-*"), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def fault(checkpoint: Path) -> str | None:
    """Why a training cannot go on from a checkpoint as if it had not stopped; None where it can."""
    if not checkpoint.is_dir():
        return "is not there"
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"has no whole {STATE}: it was cut off in its writing"
    weights = [*checkpoint.glob("*.safetensors")]
    for index in checkpoint.glob("*.safetensors.index.json"):
        try:
            pieces = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"has a damaged {index.name}"
        if missing := sorted({name for name in pieces if not (checkpoint / name).is_file()}):
            return f"has no {missing[0]}"
    if not weights and not any(checkpoint.glob(SHARDED[-1])):
        return "has no weights (*.safetensors)"
    for file in weights:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return f"has a damaged {file.name}"
    needed = [] if any(any(checkpoint.glob(p)) for p in SHARDED) else ["optimizer.pt", "scheduler.pt"]
    for pattern in (*needed, "rng_state*.pth"):
        files = [*checkpoint.glob(pattern)]
        if not files:
            return f"has no {pattern}, without which other weights come out (save_only_model leaves it out)"
        if damaged := [file.name for file in files if not zipfile.is_zipfile(file)]:
            return f"has a damaged {damaged[0]}"
    return None


def move_into_place(output_dir: Path, name: str, *, keep: int | None, best: str | None) -> None:
    """Renames a checkpoint that has been written whole, and removes those that are too many."""
    if (output_dir / name).exists():  # of an earlier training; what a kill leaves of it must not look whole
        os.replace(output_dir / name, output_dir / SAVING / "earlier")
    os.replace(output_dir / SAVING / name, output_dir / name)
    shutil.rmtree(output_dir / SAVING, ignore_errors=True)
    rotate_checkpoints(str(output_dir), save_total_limit=keep, best_model_checkpoint=best, use_mtime=True)


class EndsOnce:
    """Mixed into a trainer: resumed from its last step it is at its end, where TRL would do one more step."""

    args: Any
    state: TrainerState

    def train(self, resume_from_checkpoint: str | bool | None = None, **rest: Any) -> TrainOutput:
        """TRL's training."""
        if isinstance(resume_from_checkpoint, str):
            state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / STATE))
            if self.is_over(state):
                self._load_from_checkpoint(resume_from_checkpoint)  # type: ignore[attr-defined]
                self.state = state
                losses = [row["loss"] for row in state.log_history if "loss" in row]
                return TrainOutput(state.global_step, sum(losses) / len(losses) if losses else float("nan"), {})
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **rest)  # type: ignore[misc]

    def is_over(self, state: TrainerState) -> bool:
        """Whether a state is that of the end of this training."""
        if self.args.max_steps > 0:
            return state.global_step >= self.args.max_steps
        return state.global_step >= state.max_steps and state.num_train_epochs >= self.args.num_train_epochs
