"""From completions to traces: where the thinking ends, its tokens for the meta-prover, and the problems."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headway.problems.fields import BadRow
from headway.procedures.sample import TraceKey
from headway.runs.importers.rows import CompletionRow, Untagged
from headway.text.offsets import decode_with_offsets
from headway.text.prompts import prompt_ids, question_of
from headway.text.tags import FORMATS, ThinkTags
from headway.text.thoughts import read_written, unknown_tag
from headway.types import HeadwayError, Problem, Tokenizer, Trace

MOST_CUT = 20  # completions without tags for each that closes thinking which its prompt opened


class SplitCompletion(NamedTuple):
    """The thinking of a completion, and its answer; None where the thinking is not closed."""

    thinking: str
    answer: str | None


class Survey(NamedTuple):
    """What the completions of a file show together: what one without tags is, and what a user should know of them."""

    untagged: Untagged
    notes: tuple[str, ...] = ()


def survey(rows: Iterable[CompletionRow], formats: Sequence[ThinkTags], untagged: Untagged) -> Survey:
    """Reads the tags of all completions of a file.

    A completion without tags is thinking that was cut off where the prompt opened the thinking: where more completions
    close thinking that they did not open than open it, and either at least two do, and one for `MOST_CUT` without
    tags, or at least as many as have none. One row decides for no more than one other.
    """
    seen: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for row in rows:
        if row.thinking and row.thinking.strip():
            alone = not (row.text or "").strip() and row.stop == "stop"
            seen["alone"] += alone and not ((found := read_written(row.thinking, formats)) and found.answer)
        elif found := read_written(row.text or "", formats):
            used[found.tags.close] += 1
            seen["opened" if found.opened else "unopened"] += 1
        elif row.text and row.stop != "length":
            seen["untagged"] += 1
            unknown.update({tag} if (tag := unknown_tag(row.text)) else ())
    closing, without = seen["unopened"], seen["untagged"]
    notes = []
    if untagged == "auto":
        several = closing >= max(2, without / MOST_CUT) or closing >= without
        thought = closing > seen["opened"] and several
        untagged = "thought" if thought else "auto"
        if closing and without:
            how, other = ("cut-off thinking", "answer") if thought else ("answers", "thought")
            notes.append(
                f"{without} completions without think tags are read as {how}: {closing} others close thinking they "
                f"did not open, {seen['opened']} open it; --untagged {other} reads them the other way"
            )
    if set(used) - {FORMATS["think"].close}:
        notes.append("think tags found: " + ", ".join(f"{close} in {n} completions" for close, n in used.items()))
    for tag, n in unknown.most_common(1):
        notes.append(
            f"{n} completions without known think tags have {tag!r}; if it marks thinking, say so with "
            "--author-think-open and --author-think-close"
        )
    if seen["alone"]:
        notes.append(f"{seen['alone']} completions ended with all their text in the reasoning: they have no answer")
    return Survey(untagged, tuple(notes))


def divide(row: CompletionRow, formats: Sequence[ThinkTags], *, untagged: Untagged = "auto") -> SplitCompletion:
    """Splits a completion into thinking and answer, by the tags of the format that it is written in.

    Thinking in a separate field is closed if a text follows, if it has a closing tag itself, or if the completion
    ended by itself. A text without tags is, as `untagged` says, an answer or thinking that was cut off; under "auto"
    it was cut off if its length was.
    """
    text = row.text or ""
    found = read_written(text, formats)
    if row.thinking and row.thinking.strip():
        inner = read_written(row.thinking, formats)
        thinking, after = (inner.thinking, inner.answer) if inner else (row.thinking, None)
        if text.strip():
            return SplitCompletion(thinking, found.answer if found and found.answer is not None else text)
        return SplitCompletion(thinking, text if after is None and row.stop == "stop" else after)
    if found:
        return SplitCompletion(found.thinking, found.answer)
    cut_off = untagged == "thought" or (untagged == "auto" and row.stop == "length")
    return SplitCompletion(text, None) if cut_off else SplitCompletion("", text)


class Encoded(NamedTuple):
    """An ungraded trace, the author's answer, and whether the text round-trips through the meta-prover's tokens."""

    trace: Trace
    answer: str | None
    faithful: bool


def encode(
    tokenizer: Tokenizer,
    row: CompletionRow,
    split: SplitCompletion,
    tags: ThinkTags,
    *,
    key: TraceKey,
    budget: int | None = None,
) -> Encoded:
    """A completion as a trace in the tokens of a meta-prover, cut at `budget` thinking tokens.

    The thinking is encoded by itself, and so is the closing tag with the answer: it ends where the author's does. An
    end-of-text token at the end is left out.
    """
    try:
        prompt = prompt_ids(tokenizer, row.conversation, tags)
    except HeadwayError as error:
        raise HeadwayError(f"{row.place}: {error}; or give the question alone as the prompt") from error
    end = getattr(tokenizer, "eos_token", None)
    thinking = split.thinking if split.answer is not None else _without(end, split.thinking)
    answer = None if split.answer is None else _without(end, split.answer)
    after = "" if answer is None else tags.close + answer
    thought = tokenizer.encode(thinking, add_special_tokens=False)
    rest = [] if answer is None else tokenizer.encode(after, add_special_tokens=False)
    stop = row.stop or ("length" if answer is None else "stop")
    if over := budget is not None and len(thought) > budget:
        thought, rest, answer, stop = thought[:budget], [], None, "length"
    text, offsets = decode_with_offsets(tokenizer, [*thought, *rest])
    trace = Trace(*key, prompt, (*thought, *rest), text, offsets, len(thought), answer is not None, stop)
    return Encoded(trace, answer, over or text == thinking + after)


def _without(end: str | None, text: str) -> str:
    return text.rstrip().removesuffix(end) if end and text.rstrip().endswith(end) else text


class Problems:
    """The problems of rows. Rows with the same id, or without ids the same prompt, are traces of one problem."""

    def __init__(self) -> None:
        self.by_id: dict[str, Problem] = {}
        self.traces: Counter[str] = Counter()
        self._numbered: dict[str, str] = {}

    def of(self, row: CompletionRow) -> TraceKey:
        """The trace's key; another prompt or reference answer than in an earlier row of the problem is an error."""
        prompt = question_of(row.conversation)
        name = row.id if row.id is not None else self._numbered.setdefault(prompt, str(len(self._numbered) + 1))
        try:
            problem = Problem(name, prompt, row.answer)
        except ValueError as error:
            raise BadRow(row.place, str(error)) from error
        known = self.by_id.setdefault(name, problem)
        for what, field in (("prompt", "prompt"), ("reference answer", "answer")):
            if (before := getattr(known, field)) != (now := getattr(problem, field)):
                differ = f" '{name:.60}' ({now[:60]!r}, before {before[:60]!r}); give it another id (--id-column)"
                raise BadRow(row.place, f"another {what} than in an earlier row of its problem", differ)
        self.traces[name] += 1
        return name, self.traces[name] - 1
