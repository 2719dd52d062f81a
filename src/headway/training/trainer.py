"""MRT on TRL's GRPO.

GRPO samples, grades and normalizes; `MRTTrainer` replaces its advantages (B,) by those of `Step`, (B, T), a shape that
TRL's loss documents for subclasses. With `credit: grpo` or a progress weight of 0 the step is TRL's, bit for bit.
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import AutoTokenizer, TrainerCallback, TrainerState
from trl import GRPOTrainer

from headway.engines.hf.prefix_cache import PrefixCache
from headway.text.known_answers import KnownAnswers
from headway.text.prompts import meta_prover
from headway.text.tags import find_think_tags, opening_of, thinking_switches
from headway.training.checkpoints import SAVING, EndsOnce, move_into_place
from headway.training.config import MRTConfig
from headway.training.cost import Cost, StopAtCost
from headway.training.logs import StepLog
from headway.training.outcome import outcome_reward
from headway.training.policy import Policy
from headway.training.step import Step
from headway.types import Grader, HeadwayError

PARTS = 1000  # of a training that tokens end, for the schedule of its learning rate


class MRTTrainer(EndsOnce, GRPOTrainer):  # type: ignore[misc]
    """GRPO with credit for progress.

    Args:
        train_dataset: Rows with `id`, `prompt` (a conversation) and `answer`; `dataset_of` makes it.
        grader: Grades the branches and the traces; its rewards are the outcome where no `reward_funcs` are given.
        reward_funcs: TRL's. Where traces get credit, they also receive the traces (`outcome.TRACE`).
    """

    def __init__(
        self,
        model: Any,
        *,
        args: MRTConfig,
        train_dataset: Dataset,
        grader: Grader,
        reward_funcs: Any = None,
        processing_class: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        **rest: Any,
    ) -> None:
        if args.gives_credit and rest.get("rollout_func"):
            raise HeadwayError("rollout_func is not supported with credit; leave it out, or use credit: grpo")
        if processing_class is None:
            processing_class = AutoTokenizer.from_pretrained(
                model if isinstance(model, str) else model.config._name_or_path, padding_side="left"
            )
        self.grader = grader
        tags = self.tags = find_think_tags(
            processing_class, think_open=args.think_open, think_close=args.think_close, think_format=args.think_format
        )
        if opening_of(tags) and not tags.open:
            raise HeadwayError(
                f"training opens the thinking in the prompt, so that all completions begin in it: got think_open '' "
                f"where the model's own tag is {opening_of(tags)!r}; leave think_open out"
            )
        self.prover = meta_prover(
            tags, suffix=args.suffix, end_suffix=args.end_suffix, branches=args.branches,
            max_tokens=args.answer_tokens, temperature=args.temperature, top_p=args.top_p,
        )  # fmt: skip
        self.suffix_ids: list[int] = processing_class.encode(self.prover.suffix, add_special_tokens=False)
        # C0 of regret, for all traces
        self.budget = float(args.regret_budget or args.max_completion_length + len(self.suffix_ids))
        self.policy = Policy(self)
        self.step_log = StepLog(self)
        self.cost = Cost()
        self.steps_without_values = 0  # steps in which no value was known
        self.tell: Callable[[int, int], None] | None = None  # is told after each step how much is done, of how much
        self._opening: list[int] = processing_class.encode(tags.open, add_special_tokens=False)
        self._saving = False  # whether a checkpoint is being written
        self._current: Step | None = None  # the step that TRL is in, if it gives credit
        args = copy(args)
        args.chat_template_kwargs = {**thinking_switches(processing_class), **(args.chat_template_kwargs or {})}
        super().__init__(
            model, reward_funcs or outcome_reward(
                grader, processing_class, tags, ends=lambda: self.eos_token_ids, watch=self.step_log.competence
            ),
            args=args, train_dataset=train_dataset, processing_class=processing_class,
            callbacks=[*(callbacks or []), StopAtCost(self)], **rest,
        )  # fmt: skip
        self.cost.watch(self.accelerator.unwrap_model(self.model))
        self.known = KnownAnswers(processing_class, self.prover, grader)

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints are written: beside the whole ones, while one is."""
        folder = str(super()._get_output_dir(trial))
        return str(Path(folder) / SAVING) if self._saving else folder

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's, in a folder of its own that is then renamed: a checkpoint that is there is whole."""
        args = self.args
        if args.load_best_model_at_end or args.push_to_hub:  # these look for it before it is in place
            super()._save_checkpoint(model, trial)
            return
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(self._get_output_dir(trial), ignore_errors=True)
            raise HeadwayError(
                f"cannot write a checkpoint in {args.output_dir} ({' '.join(str(error).split())[:200]}); is the disk "
                "full? What was written before is whole: make room, and resume from the newest checkpoint"
            ) from error
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if args.should_save:
            name, best = f"checkpoint-{self.state.global_step}", self.state.best_model_checkpoint
            move_into_place(Path(self._get_output_dir(trial)), name, keep=args.save_total_limit, best=best)
        self.accelerator.wait_for_everyone()

    def is_over(self, state: TrainerState) -> bool:
        """Whether a state is that of the end of this training, by steps or by tokens."""
        spent = Cost()
        spent.resume(state.log_history)
        return spent.share(self.args) == 1 or super().is_over(state)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuses a checkpoint without all weights: the others would be those of the start."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or ()
        if lacks := sorted({*load_result.missing_keys} - {*tied}):
            raise HeadwayError(f"the checkpoint lacks {len(lacks)} weights of the model, such as {lacks[0]}")

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """TRL's schedule of the learning rate; where tokens end the training, it runs over their share."""
        if not self.cost.limits(self.args):
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = super().create_scheduler(PARTS, optimizer)
        of_part = getattr(self.lr_scheduler, "lr_lambdas", None)  # one for each group of parameters
        if of_part is None:
            raise HeadwayError(
                f"lr_scheduler_type '{self.args.lr_scheduler_type}' cannot run over tokens; use constant, linear or "
                "cosine, or max_steps instead of a limit of tokens"
            )
        self.lr_scheduler.lr_lambdas = [lambda _, at=at: at(PARTS * self.cost.share(self.args)) for at in of_part]
        return self.lr_scheduler

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        """TRL's prompts, with the thinking opened where the template does not open it, and with the stale prefixes."""
        ids, images, fields = super()._tokenize_prompts(prompts)
        if self.tags.open:
            tail = [self.processing_class.decode(i[-len(self._opening) - 2 :], skip_special_tokens=False) for i in ids]
            opening = self.tags.open.strip()
            ids = [i if t.rstrip().endswith(opening) else [*i, *self._opening] for i, t in zip(ids, tail, strict=True)]
        return ids if self._current is None else self._current.start(ids), images, fields

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        """TRL's rewards; the step reads the completions first."""
        if self.model.training:
            self.cost.sampled(sum(len(ids) for ids in completion_ids_list))
        if self._current is not None:
            inputs = self._current.read(inputs, completion_ids_list)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's output, with the advantages of the step."""
        self._current = Step(self) if self.model.training and self.args.gives_credit else None
        with self.policy.recording() if self._current else nullcontext() as recorder:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self._current and recorder:
            self.policy.cache = PrefixCache.recorded(recorder)
            output["advantages"] = self._current.advantages(output["advantages"], output["completion_ids"].shape[1])
            self.policy.cache = None
        return output
