"""`headway train`: a YAML recipe and flags, through TRL's own parser, to a fine-tuned model."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

from datasets import Dataset
from transformers import PrinterCallback
from transformers.utils import logging
from trl import ModelConfig, TrlParser, get_peft_config

from headway.choices import Option, check_options
from headway.engines.loading import DTYPES
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.training.checkpoints import to_resume
from headway.training.config import MRTConfig, with_help
from headway.training.loading import check_surroundings, load_policy
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
    check_surroundings(args)
    checkpoint = to_resume(args.resume_from_checkpoint, args.output_dir)
    problems = load_problems(arguments.problems, limit=arguments.limit)
    policy, tokenizer = load_policy(model.model_name_or_path, args, model)
    tokenizer.padding_side = "left"
    if args.device.type == "cpu":
        keep_freed_memory()
    if tell is not None:
        args.disable_tqdm = True
        logging.disable_progress_bar()
    grader = load_grader(problems.grader if arguments.grader == "auto" else arguments.grader)
    try:
        trainer = MRTTrainer(
            policy, args=args, train_dataset=dataset_of(problems.problems), processing_class=tokenizer, grader=grader,
            peft_config=get_peft_config(model),
        )  # fmt: skip
    except (ValueError, TypeError, ImportError) as error:  # what TRL checks only here
        if isinstance(error, HeadwayError):
            raise
        raise HeadwayError(f"cannot train with this recipe: {' '.join(str(error).split())[:500]}") from error
    with warnings.catch_warnings():
        if tell is not None:
            trainer.tell = tell
            trainer.remove_callback(PrinterCallback)
            warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers to each other
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except (ValueError, TypeError, LookupError, ImportError) as error:  # what TRL checks only in its first step
            if isinstance(error, HeadwayError) or checkpoint or trainer.state.global_step:
                raise
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            raise HeadwayError(f"the first step fails with this recipe: {said}") from error
        trainer.save_model(args.output_dir)
        trainer.save_state()
    return trainer


class _Parser(TrlParser):  # type: ignore[misc]
    """TRL's parser, with one message for an option that has a value of another type."""

    hints: dict[str, Any]
    nullable: set[str]

    def error(self, message: str) -> NoReturn:
        raise HeadwayError(f"cannot use this recipe: {message}")

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """TRL's, but the short names of `dtype` are accepted, too."""
        if "--dtype" in names and options.get("choices"):
            options["choices"] = list(DTYPES)
        return super().add_argument(*names, **options)

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        for name, value in config.items():
            hint = self.hints.get(name, Any)
            kinds = {get_origin(h) or h for h in (hint, *get_args(hint))}
            if kinds & {Any, object} or isinstance(value, str) or (value is None and name in self.nullable):
                continue  # argparse converts text
            if type(value) is int and float in kinds and int not in kinds:
                config[name] = float(value)
            elif type(value) not in kinds:
                asked = getattr(hint, "__name__", str(hint)).replace("typing.", "")
                raise HeadwayError(f"{name} is {value!r:.60}, a {type(value).__name__}; expected {asked}")
        return super().set_defaults_with_config(**config)


def parse(groups: tuple[type, ...], arguments: list[str], command: str) -> tuple[Any, ...]:
    """The dataclasses of `groups` from a YAML recipe and the flags that override it; HeadwayError if it has others."""
    parser = _Parser(groups, prog=f"headway {command}")
    parser.hints = {name: hint for group in groups for name, hint in get_type_hints(group).items()}
    parser.nullable = {f.name for group in groups for f in fields(group) if f.default is None}
    parser.usage = f"headway {command} --config recipe.yaml [--option value ...]"  # not all 250 of them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers to TRL
            return parser.parse_args_and_config(args=arguments)
    except HeadwayError:
        raise
    except Exception as error:  # YAML of any sort, through TRL, argparse and the checks of three dataclasses
        said = " ".join(str(error).split())[:500]
        what = said if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {said}"
        raise HeadwayError(f"cannot use this recipe: {what}") from error


GROUPS = (TrainArguments, MRTConfig, ModelConfig)  # what a recipe of training may name


def main(arguments: list[str], *, tell: Callable[[int, int], None] | None = None) -> None:
    """Parses a YAML recipe and the flags that override it, and trains; HeadwayError says which cannot be used."""
    train(*parse(GROUPS, arguments, "train"), tell=tell)
