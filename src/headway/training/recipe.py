"""`headway train`: a YAML recipe and flags, through TRL's own parser, to a fine-tuned model."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback
from transformers.utils import logging
from trl import ModelConfig, TrlParser, get_peft_config

from headway.choices import Option, check_options
from headway.engines.loading import model_path
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.training.config import MRTConfig, with_help
from headway.training.memory import keep_freed_memory
from headway.training.trainer import MRTTrainer
from headway.types import HeadwayError, Problem


def dataset_of(problems: Sequence[Problem]) -> Dataset:
    """Problems as rows for the trainer."""
    return Dataset.from_list(
        [{"id": p.id, "prompt": [{"role": "user", "content": p.prompt}], "answer": p.answer} for p in problems]
    )


@with_help
@dataclass
class TrainArguments:
    """What is trained on, and how it is graded."""

    problems: Annotated[str | None, Option("A file, a named benchmark, hub:..., gym:TASK or countdown-train.")] = None
    limit: Annotated[int | None, Option("Use only the first problems, this many.")] = None
    grader: Annotated[str, Option("auto (depends on the problems), exact, numeric, ...")] = "auto"

    def __post_init__(self) -> None:
        check_options(self)


def train(
    arguments: TrainArguments, args: MRTConfig, model: ModelConfig, *, tell: Callable[[int, int], None] | None = None
) -> MRTTrainer:
    """Fine-tunes a model and saves it with its tokenizer to `args.output_dir`.

    With `tell`, calls of it replace TRL's bar and printed logs: how much is done, of how much (tokens where
    `max_generated_tokens` is set, else steps).

    Raises:
        HeadwayError: the model, the problems or a setting cannot be used.
    """
    if not arguments.problems:
        raise HeadwayError("no problems to train on; give 'problems' in the recipe or --problems")
    if not model.model_name_or_path:
        raise HeadwayError("no model to train; give 'model_name_or_path' in the recipe or --model_name_or_path")
    problems = load_problems(arguments.problems, limit=arguments.limit)
    path = model_path(model.model_name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=args.trust_remote_code, padding_side="left")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise HeadwayError(f"cannot load the model '{model.model_name_or_path}': {reason}") from error
    loading = {"dtype": model.dtype, "use_safetensors": True, "trust_remote_code": args.trust_remote_code}
    args.model_init_kwargs = {**loading, **(args.model_init_kwargs or {})}
    if args.device.type == "cpu":
        keep_freed_memory()
    if tell is not None:
        args.disable_tqdm = True
        logging.disable_progress_bar()
    trainer = MRTTrainer(
        path, args=args, train_dataset=dataset_of(problems.problems), processing_class=tokenizer,
        grader=load_grader(problems.grader if arguments.grader == "auto" else arguments.grader),
        peft_config=get_peft_config(model),
    )  # fmt: skip
    with warnings.catch_warnings():
        if tell is not None:
            trainer.tell = tell
            trainer.remove_callback(PrinterCallback)
            warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers to each other
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.save_model(args.output_dir)
        trainer.save_state()
    return trainer


def parse(groups: tuple[type, ...], arguments: list[str], command: str) -> tuple[Any, ...]:
    """The dataclasses of `groups` from a YAML recipe and the flags that override it; HeadwayError if it has others."""
    parser = TrlParser(groups, prog=f"headway {command}")
    parser.usage = f"headway {command} --config recipe.yaml [--option value ...]"  # not all 250 of them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers to TRL
            return parser.parse_args_and_config(args=arguments)
    except (ValueError, OSError) as error:
        if isinstance(error, HeadwayError):
            raise
        raise HeadwayError(f"cannot use this recipe: {error}") from error


GROUPS = (TrainArguments, MRTConfig, ModelConfig)  # what a recipe of training may name


def main(arguments: list[str], *, tell: Callable[[int, int], None] | None = None) -> None:
    """Parses a YAML recipe and the flags that override it, and trains; HeadwayError says which cannot be used."""
    train(*parse(GROUPS, arguments, "train"), tell=tell)
