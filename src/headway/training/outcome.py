"""The outcome as a reward function of TRL's."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

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
