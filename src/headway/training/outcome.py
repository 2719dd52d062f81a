"""The outcome as a reward function of TRL's."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from headway.procedures.sample import grade_answers
from headway.text.answers import extract_answer
from headway.text.prompts import question_of
from headway.text.tags import ThinkTags
from headway.text.thoughts import read_answer, read_thought
from headway.types import Grader, Problem, Trace

TRACE = "headway_trace"  # the column in which reward functions get the graded trace of each completion


Watch = Callable[[Sequence[str], Sequence[float | None]], None]


def outcome_reward(
    grader: Grader,
    tokenizer: Any,
    tags: ThinkTags,
    *,
    ends: Callable[[], Collection[int]] | None = None,
    watch: Watch | None = None,
) -> Callable[..., list[float | None]]:
    """TRL's reward function for the outcome: 1 correct, 0 wrong or no answer, None undecided.

    Reads the sampled tokens, because TRL's text omits special tokens such as think tags. Where a step has traces,
    their rewards are the outcome. `ends` gives the end-of-text tokens, by default the tokenizer's; `watch` is told the
    thinking and the reward of all.
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
            thoughts, rewards = [trace.thought for trace in traces], [trace.reward for trace in traces]
        else:
            omitted = set(ends() if ends else [tokenizer.eos_token_id])
            sampled = [[t for t in ids if t not in omitted] for ids in completion_ids]
            texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in sampled]
            read = [read_thought(text, tags) for text in texts]
            extract = getattr(grader, "extract", extract_answer)
            answers = [read_answer(text, thought, extract) for text, thought in zip(texts, read, strict=True)]
            rows = ({"id": i, "prompt": p, "answer": a} for i, p, a in zip(id, prompts, answer, strict=True))
            rewards = grade_answers(id, answers, {row["id"]: problem_of(row) for row in rows}, grader)
            thoughts = [text[thought.start : thought.stop] for text, thought in zip(texts, read, strict=True)]
        if watch:
            watch(thoughts, rewards)
        return rewards

    return outcome


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a training row."""
    return Problem(str(row["id"]), question_of(row["prompt"]), str(row["answer"]))
