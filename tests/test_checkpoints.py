"""Checkpoints that cannot be resumed from exactly are refused, and none that is being written looks like one."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from trl import ModelConfig

import tiny
from headway.problems.graders import load_grader
from headway.training import MRTConfig, MRTTrainer, dataset_of
from headway.training.checkpoints import fault, newest_whole, to_resume
from headway.training.loading import check_surroundings, load_policy
from headway.training.logs import begin_traces
from headway.types import HeadwayError, Problem

pytestmark = pytest.mark.filterwarnings("default")  # third parties warn about their own futures

OPTIONS: dict[str, Any] = dict(
    num_generations=2, per_device_train_batch_size=4, max_completion_length=8, max_steps=3, bf16=False, use_cpu=True,
    activation_checkpointing=False, report_to="none", save_strategy="steps", save_steps=1, disable_tqdm=True, seed=3,
    credit="grpo", learning_rate=1e-2,
)  # fmt: skip


def trained(folder: Path, resume: str | None = None, **options: Any) -> MRTTrainer:
    trainer = MRTTrainer(
        tiny.model(seed=7), args=MRTConfig(output_dir=str(folder), **OPTIONS | options), grader=load_grader("exact"),
        train_dataset=dataset_of([Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(8)]),
        processing_class=tiny.tokenizer(),
        reward_funcs=lambda completion_ids, **_: [float(ids[0] % 2) for ids in completion_ids],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=to_resume(resume, str(folder)))
    return trainer


def weights(trainer: MRTTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[torch.Tensor]]:
    folder = tmp_path_factory.mktemp("training") / "out"
    return folder, weights(trained(folder))


@pytest.fixture
def copied(whole: tuple[Path, list[torch.Tensor]], tmp_path: Path) -> Path:
    shutil.copytree(whole[0], tmp_path / "out")
    return tmp_path / "out"


def cut(name: str) -> Callable[[Path], None]:
    def change(checkpoint: Path) -> None:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda checkpoint: (checkpoint / name).unlink()


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no state": (without("trainer_state.json"), "has no whole trainer_state.json"),
    "state cut off": (cut("trainer_state.json"), "has no whole trainer_state.json"),
    "no weights": (without("model.safetensors"), "has no weights"),
    "weights cut off": (cut("model.safetensors"), "has a damaged model.safetensors"),
    "no optimizer": (without("optimizer.pt"), "has no optimizer.pt, without which other weights come out"),
    "optimizer cut off": (cut("optimizer.pt"), "has a damaged optimizer.pt"),
    "no schedule": (without("scheduler.pt"), "has no scheduler.pt"),
    "no random state": (without("rng_state.pth"), "has no rng_state"),
    "random state cut off": (cut("rng_state.pth"), "has a damaged rng_state.pth"),
    "nothing": (shutil.rmtree, "is not there"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_checkpoint_that_lacks_something_is_refused_by_name_and_skipped_by_true(
    copied: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, says = FAULTS[kind]
    damage(copied / "checkpoint-3")
    with pytest.raises(HeadwayError, match=f"{says}.*give .*checkpoint-2, the newest whole one"):
        to_resume(str(copied / "checkpoint-3"), str(copied))
    with caplog.at_level(logging.WARNING):
        assert to_resume("true", str(copied)) == str(copied / "checkpoint-2")
    assert kind == "nothing" or f"checkpoint-3 {says}" in caplog.text


def test_without_a_whole_checkpoint_there_is_nothing_to_resume_from(copied: Path, tmp_path: Path) -> None:
    for checkpoint in copied.glob("checkpoint-*"):
        without("optimizer.pt")(checkpoint)
    with pytest.raises(HeadwayError, match=r"nothing to resume from .*checkpoint-3 has no optimizer.pt.*leave"):
        to_resume(True, str(copied))
    with pytest.raises(HeadwayError, match="it has no checkpoint"):
        to_resume("True", str(tmp_path / "nowhere"))
    assert to_resume(None, str(copied)) is to_resume("false", str(copied)) is None


def test_a_resumed_training_ends_with_the_same_weights(whole: tuple[Path, list[torch.Tensor]], copied: Path) -> None:
    shutil.rmtree(copied / "checkpoint-3")
    again = weights(trained(copied, "true"))
    assert all(torch.equal(a, b) for a, b in zip(again, whole[1], strict=True))


def test_a_training_past_the_first_pass_says_that_it_is_not_resumed_exactly(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = copied / "checkpoint-3" / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"epoch": 1.25}))
    with caplog.at_level(logging.WARNING):
        to_resume("true", str(copied))
    assert "past the first pass over the problems" in caplog.text


def test_a_checkpoint_that_is_being_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop at any point of its writing leaves the one before as the newest; later trainings clear up."""
    write = Trainer._save_rng_state

    def stopped(self: Trainer, output_dir: str) -> None:
        assert Path(output_dir).parent.name == ".saving"
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        write(self, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_rng_state", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-1"]
    assert newest_whole(tmp_path) == str(tmp_path / "checkpoint-1")
    trained(tmp_path, "true")
    assert not (tmp_path / ".saving").exists() and fault(tmp_path / "checkpoint-3") is None


def test_traces_of_another_training_and_torn_lines_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    lines = [json.dumps({"step": step, "text": "x"}) + "\n" for step in (0, 1, 2)]
    file.write_text("".join(lines) + '{"step": 3, "te')
    begin_traces(file, 2)  # resumed at step 2
    assert file.read_text() == "".join(lines[:2])
    begin_traces(file, 0)  # begun anew
    assert not file.exists() and (tmp_path / "traces.old.jsonl").read_text() == "".join(lines[:2])
    begin_traces(tmp_path / "new" / "traces.jsonl", 0)
    assert (tmp_path / "new").is_dir()


def test_processes_that_each_believe_they_are_alone_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = MRTConfig(output_dir=str(tmp_path), **OPTIONS)
    check_surroundings(args)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HeadwayError, match=r"2 processes were started.*--use_cpu true"):
        check_surroundings(args)


@pytest.mark.parametrize(
    ("name", "says"), [("nonsense", "report_to must be none, all or of"), ("comet_ml", "not installed")]
)
def test_a_tracker_that_is_not_there_is_said_before_anything_is_loaded(tmp_path: Path, name: str, says: str) -> None:
    args = MRTConfig(output_dir=str(tmp_path), **OPTIONS)
    args.report_to = [name]
    with pytest.raises(HeadwayError, match=says):
        check_surroundings(args)


def test_options_of_the_model_are_used_or_refused(tmp_path: Path) -> None:
    args = MRTConfig(output_dir=str(tmp_path), **OPTIONS)
    with pytest.raises(HeadwayError, match="load_in_4bit is not supported"):
        load_policy("builtin:countdown", args, ModelConfig(load_in_4bit=True))
    with pytest.raises(HeadwayError, match=r"cannot load the model 'builtin:countdown'.*(flash|Flash)"):
        load_policy("builtin:countdown", args, ModelConfig(attn_implementation="flash_attention_2"))
    model, _ = load_policy("builtin:countdown", args, ModelConfig(dtype="bfloat16", attn_implementation="eager"))
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")


def test_no_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="max_steps is 0"):
        MRTConfig(output_dir=str(tmp_path), **OPTIONS | {"max_steps": 0})


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def test_a_training_that_is_resumed_at_its_end_does_no_step_more(
    whole: tuple[Path, list[torch.Tensor]], copied: Path
) -> None:
    again = trained(copied, resume="true")
    assert again.state.global_step == 3 and equal(weights(again), whole[1])
    assert trained(copied, resume="true", max_steps=4).state.global_step == 4


def test_a_training_that_is_resumed_at_its_last_token_does_no_step_more(tmp_path: Path) -> None:
    options = dict(max_steps=9, max_generated_tokens=40)
    first = trained(tmp_path, **options, logging_steps=1)
    last = first.state.global_step
    again = trained(tmp_path, resume="true", **options, logging_steps=1)
    assert last < 9 and again.state.global_step == last and equal(weights(again), weights(first))


def test_a_checkpoint_without_a_weight_is_refused(copied: Path) -> None:
    file = copied / "checkpoint-2" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(HeadwayError, match=r"lacks 1 weights of the model, such as model\.norm\.weight"):
        trained(copied, resume=str(copied / "checkpoint-2"))


def test_a_disk_that_is_full_is_one_message_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    trained(tmp_path, max_steps=1)
    (tmp_path / ".saving").write_text("no folder can be made here")
    with pytest.raises(HeadwayError, match="cannot write a checkpoint"):
        trained(tmp_path, resume="true")
    assert [c.name for c in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
