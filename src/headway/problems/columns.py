"""Which column holds what: by its usual names, as a flag says, or asked. A dotted path reaches inside a column."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from headway.types import HeadwayError

# Usual names of each column, in groups: one of a later group counts if there is none of an earlier one.
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "prompt": (
        ("prompt", "question", "problem", "query", "instruction", "input", "full_prompt", "problem_statement",
         "origin_prompt", "arguments.gen_args_0.arg_0", "arguments.0.0"),
        ("messages", "conversations", "conversation"),
        ("doc.problem", "doc.question", "extra_info.question"),
    ),
    "completion": (
        ("completion", "completions", "response", "responses", "generation", "generations", "output", "outputs",
         "resps", "model_output", "model_outputs", "model_response", "full_model_response", "generated_text",
         "generated_solution", "llm_response", "prediction", "predictions", "choices", "deepseek_solution"),
        ("messages", "conversations", "conversation"),
    ),
    "answer": (
        ("answer", "reference", "reference_answer", "gold", "gold_answer", "target", "ground_truth", "gts", "gt",
         "expected_answer", "final_answer", "correct_answer", "reward_model.ground_truth"),
        ("solution", "reference_solution", "ground_truth_solution", "gold_standard_solution"),
        ("doc.answer", "doc.solution"),
    ),
    "id": (("problem_id", "question_id", "doc_id", "example_id", "unique_id"), ("id", "uuid")),
    "reasoning": (("reasoning_content", "reasoning", "thinking", "deepseek_reasoning"),),
    "finish": (("finish_reason", "finish_reasons", "stop_reason", "is_truncated"),),
    "system": (("system", "system_prompt"),),
}  # fmt: skip
SOLUTIONS = (*NAMES["answer"][1], "doc.solution")
SAYS = {"prompt": "the prompt", "completion": "the completion", "answer": "the reference answer", "id": "the id"}
MISSING = object()
MOST_NAMED, MOST_USUAL = 30, 7  # columns in a message


def roots(given: Iterable[str | None] = ()) -> set[str]:
    """The columns, in lower case, in which anything is looked for: of all usual names, and of those given."""
    usual = (name for groups in NAMES.values() for group in groups for name in group)
    named = {name.lower() for name in given if name is not None}
    return {name.partition(".")[0] for name in (*usual, *named)} | named


def reach(row: Mapping[str, Any], path: str | None) -> Any:
    """The value of a column, or at a dotted path such as `reward_model.ground_truth`; MISSING if it is not there."""
    if path is None or path in row:
        return MISSING if path is None else row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.lstrip("-").isdecimal() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def find_columns(
    given: Mapping[str, str | None], sample: Sequence[Mapping[str, Any]], *, where: str, unread: Collection[str] = (),
    needed: Collection[str] = ("prompt", "answer"),
) -> dict[str, str | None]:  # fmt: skip
    """The column or path of each kind in `given`: the one given, or the one that the first rows of a file suggest.

    All that is missing or could be several columns is one HeadwayError, which names the flags that decide it.
    """
    found: dict[str, str | None] = {}
    asked: list[str] = []
    for kind, named in given.items():
        flag = f"--{kind}-column"
        if named is not None:
            if all(reach(row, named) is MISSING for row in sample):
                asked.append(f"there is no column '{named}' ({flag})")
            found[kind] = named
            continue
        candidates = _candidates(kind, sample)
        if kind in SAYS and _unclear(kind, candidates, sample):
            there = " or ".join(f"'{path}'" for path in candidates)
            asked.append(f"{SAYS[kind]} could be {there}: say which with {flag}")
        if not candidates and kind in needed:
            usual = ", ".join(NAMES[kind][0][:MOST_USUAL])
            asked.append(f"no column for {SAYS[kind]} (Headway looks for {usual} and the like): name it with {flag}")
        found[kind] = next(iter(candidates), None)
    if asked:
        raise HeadwayError(f"{where}: {'; '.join(asked)}. It has {_there(sample, unread)}; a.b reaches into a column")
    return found


def _candidates(kind: str, sample: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of the first group of usual names that is there, however spelled; likeliest first."""
    for empty in (False, True):
        for group in NAMES[kind]:
            spelled = (next((p for row in sample if (p := _spelled(row, name, empty=empty))), None) for name in group)
            if candidates := [path for path in spelled if path]:
                return candidates
    return []


def _spelled(row: Mapping[str, Any], name: str, *, empty: bool) -> str | None:
    """A path as a row spells it (`Problem` for `problem`), if it leads to a value or, if asked, to null."""
    if name in row:
        return name if row[name] is not None or empty else None
    path: list[str] = []
    value: Any = row
    for step in name.split("."):
        keys = value if isinstance(value, Mapping) else range(len(value)) if isinstance(value, list) else ()
        if (key := next((k for k in keys if str(k).lower() == step), None)) is None:
            return None
        path, value = [*path, str(key)], value[key]
    return ".".join(path) if value is not None or empty else None


def _unclear(kind: str, candidates: list[str], sample: Sequence[Mapping[str, Any]]) -> bool:
    """Whether columns could mean different things: `answer`, which may be the model's, beside any other reference,
    or other values, unless one prompt holds the others."""
    if kind == "answer" and len(candidates) > 1 and any(path.lower() == "answer" for path in candidates):
        return True
    for row in sample:
        values = [v for v in (reach(row, path) for path in candidates) if v is not MISSING and v is not None]
        try:
            there = [str(v) for v in values]
        except RecursionError:
            return len(values) > 1
        if any(other != there[0] and not (kind == "prompt" and other in there[0]) for other in there[1:]):
            return True
    return False


def _there(sample: Sequence[Mapping[str, Any]], unread: Collection[str]) -> str:
    """The columns there are, with those inside."""
    names: dict[str, None] = {}
    for row in sample:
        for key, value in row.items():
            inner = [f"{key}.{k}" for k in value] if isinstance(value, dict) else []
            names |= dict.fromkeys(inner or [str(key)])
    return listed([*names, *unread])


def listed(names: Iterable[str]) -> str:
    """Names of columns for a message, not too many and none too long."""
    shown = [name[:60] for name in islice(names, MOST_NAMED + 1)]
    return ", ".join([*shown[:MOST_NAMED], *(["…"] if len(shown) > MOST_NAMED else [])]) or "nothing"
