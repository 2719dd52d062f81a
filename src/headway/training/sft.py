"""One round of fine-tuning on sampled texts: TRL's SFT, with the loss on the completions."""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging
from trl import ModelConfig, SFTTrainer, get_peft_config

from headway.engines.loading import load_tokenizer
from headway.training.checkpoints import EndsOnce, newest_whole
from headway.training.config import FineTuneConfig
from headway.training.loading import check_surroundings, load_policy
from headway.training.recipe import parse
from headway.types import TokenIds

NO_LOSS = -100  # PyTorch's label of a token without loss
Example = tuple[TokenIds, TokenIds]  # a prompt and its completion


class FineTuned(NamedTuple):
    """What a round of fine-tuning reports."""

    steps: int
    loss: float  # the mean over all steps, in nats a completion token


class _FineTuner(EndsOnce, SFTTrainer):  # type: ignore[misc]
    pass


class _Tell(TrainerCallback):  # type: ignore[misc]
    """Says after each step how many are done, of how many."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self._tell = tell

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tell(state.global_step, state.max_steps)


def parse_with_sft(groups: tuple[type, ...], arguments: list[str], command: str) -> tuple[Any, ...]:
    """The dataclasses of `groups`, SFT's options and the model's, as `parse` reads them."""
    parsed = parse((*groups, FineTuneConfig, ModelConfig), arguments, command)
    check_surroundings(parsed[-2])
    return parsed


def dataset_of_tokens(examples: Sequence[Example]) -> Dataset:
    """Prompts and completions as TRL takes them already tokenized: a prompt's labels are `NO_LOSS`.

    So no text is encoded again, and the loss is on the tokens that were sampled.
    """
    rows = [{"input_ids": [*p, *c], "labels": [NO_LOSS] * len(p) + list(c)} for p, c in examples]
    return Dataset.from_list(rows)


def fine_tune(
    examples: Sequence[Example], start: str, args: FineTuneConfig, model: ModelConfig, out: Path, work: Path, *,
    tell: Callable[[int, int], None],
) -> FineTuned:  # fmt: skip
    """Fine-tunes the model `start` and saves it with its tokenizer to `out`; an adapter is merged into it.

    Args:
        work: Folder of TRL's checkpoints; the training resumes from the last one there.
        tell: Is told after each step how many are done, of how many.

    Raises:
        HeadwayError: the model cannot be loaded.
    """
    args = copy(args)
    args.output_dir, args.disable_tqdm = str(work), True
    args.max_length = args.max_length if args.packing else None  # the selection leaves longer texts out
    logging.disable_progress_bar()
    policy, tokenizer = load_policy(start, args, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers to each other
        trainer = _FineTuner(
            policy, args=args, train_dataset=dataset_of_tokens(examples), processing_class=tokenizer,
            peft_config=get_peft_config(model), callbacks=[_Tell(tell)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        done = trainer.train(resume_from_checkpoint=newest_whole(work))
    trained = trainer.accelerator.unwrap_model(trainer.model)
    (trained.merge_and_unload() if hasattr(trained, "merge_and_unload") else trained).save_pretrained(out)
    load_tokenizer(start, trust_remote_code=args.trust_remote_code).save_pretrained(out)
    return FineTuned(int(done.global_step), float(done.training_loss))
