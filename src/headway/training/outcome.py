"""What the trainer gives TRL beside itself: the outcome as a reward function, and the end of training by tokens."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headway.procedures.sample import grade_answers
from headway.text.prompts import question_of
from headway.text.tags import ThinkTags, read_answer, read_thought
from headway.types import Grader, Problem, Trace

TRACE = "headway_trace"  # the column in which reward functions get the graded trace of each completion


def outcome_reward(
    grader: Grader, tokenizer: Any, tags: ThinkTags, *, ends: Callable[[], Collection[int]] | None = None
) -> Callable[..., list[float | None]]:
    """TRL's reward function for the outcome: 1 correct, 0 wrong or no answer, None undecided.

    Reads the sampled tokens, because TRL's text omits special tokens such as think tags. Where a step has traces,
    their rewards are the outcome. `ends` gives the end-of-text tokens, by default the tokenizer's.
    """

    def outcome(
        prompts: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        id: Sequence[str],
        answer: Sequence[str],
        **columns: Any,
    ) -> list[float | None]:
        traces: Sequence[Trace] | None = columns.get(TRACE)
        if traces is not None:
            return [trace.reward for trace in traces]
        omitted = set(ends() if ends else [tokenizer.eos_token_id])
        sampled = [[t for t in ids if t not in omitted] for ids in completion_ids]
        texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in sampled]
        answers = [read_answer(text, read_thought(text, tags)) for text in texts]
        rows = ({"id": i, "prompt": p, "answer": a} for i, p, a in zip(id, prompts, answer, strict=True))
        return grade_answers(id, answers, {row["id"]: problem_of(row) for row in rows}, grader)

    return outcome


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a training row."""
    return Problem(str(row["id"]), question_of(row["prompt"]), str(row["answer"]))


class StopAtTokens(TrainerCallback):  # type: ignore[misc]
    """Says how far the training is, and ends it at `max_generated_tokens`; the count continues from a checkpoint's."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Reads the count from the log of the checkpoint."""
        counts = [row["mrt/generated_tokens"] for row in state.log_history if "mrt/generated_tokens" in row]
        self._trainer.generated_tokens = int(counts[-1]) if counts else 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ends the training once the limit is reached."""
        limit, done = self._trainer.args.max_generated_tokens, self._trainer.generated_tokens
        if limit is not None and done >= limit:
            control.should_training_stop = True
        if self._trainer.tell:
            self._trainer.tell(*((state.global_step, state.max_steps) if limit is None else (min(done, limit), limit)))
