"""What a training costs: tokens sampled, tokens computed, seconds; and the end of training by either count."""

import time
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

COUNTS = ("generated_tokens", "computed_tokens", "seconds")


class Cost:
    """Counts since the start of training, on all processes; a resumed training goes on from the log's.

    `generated_tokens` are sampled: traces, branches and prefixes. `computed_tokens` are positions that the policy
    computed, padding included; where a backward follows, which costs two forwards, they count three times.
    `seconds` is wall time.
    """

    def __init__(self) -> None:
        self.totals = dict.fromkeys(COUNTS, 0.0)
        self._sampled = self._computed = 0  # of this process, not yet in the totals
        self._since = time.perf_counter()

    def watch(self, model: Any) -> None:
        """Counts what a language model computes from now on, by what its embedding looks up."""
        model.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, embedding: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        self._computed += args[0].numel() * (3 if torch.is_grad_enabled() else 1)

    def sampled(self, n: int) -> None:
        """Adds sampled tokens of this process."""
        self._sampled += n

    def total(self) -> dict[str, float]:
        """The totals, with what all processes have done since the last call."""
        mine, now = (self._sampled, self._computed), time.perf_counter()
        sampled, computed = map(sum, zip(*gather_object([mine]), strict=True))
        for name, more in zip(COUNTS, (sampled, computed, now - self._since), strict=True):
            self.totals[name] += more
        self._sampled, self._computed, self._since = 0, 0, now
        return self.totals

    def limits(self, args: Any) -> dict[str, int]:
        """The counts that end the training, each with its limit."""
        each = {name: getattr(args, f"max_{name}", None) for name in COUNTS}
        return {name: limit for name, limit in each.items() if limit}

    def share(self, args: Any) -> float:
        """How much of the limits is used, from 0 to 1."""
        return max((min(1.0, self.totals[name] / limit) for name, limit in self.limits(args).items()), default=0.0)

    def resume(self, log: list[dict[str, float]]) -> None:
        """Goes on from the last counts of a checkpoint's log."""
        for name in COUNTS:
            found = [row[f"mrt/{name}"] for row in log if f"mrt/{name}" in row]
            self.totals[name] = float(found[-1]) if found else 0.0
        self._since = time.perf_counter()


class StopAtCost(TrainerCallback):  # type: ignore[misc]
    """Says how far the training is, and ends it at `max_generated_tokens` or `max_computed_tokens`."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Reads the counts from the log of the checkpoint."""
        self._trainer.cost.resume(state.log_history)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ends the training once a limit is reached."""
        t = self._trainer
        totals = t.cost.total()
        t._metrics["train"] |= {f"mrt/{name}": [count] for name, count in totals.items()}
        control.should_training_stop |= t.cost.share(t.args) == 1
        limits = t.cost.limits(t.args).items()
        shares = [(state.global_step, state.max_steps), *((int(min(totals[n], most)), most) for n, most in limits)]
        if t.tell:
            t.tell(*max(shares, key=lambda s: s[0] / s[1]))
