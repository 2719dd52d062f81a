"""Problems: where they come from. A JSONL file, or a named set that is made on the fly."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from headway.tasks import countdown
from headway.types import HeadwayError, Problem


class ProblemSet(NamedTuple):
    """Problems, the name a report gives them, and the grader that fits them."""

    name: str
    problems: list[Problem]
    grader: str


NAMED = {"countdown": "heldout", "countdown-train": "train"}
NAMED_SIZE = 200


def load_problems(spec: str, *, limit: int | None = None) -> ProblemSet:
    """The problems of a named set or a JSONL file with `id`, `prompt` and `answer` on each line, at most `limit`.

    `countdown` is the held-out set of the embedded default's task, `countdown-train` its training set; both are
    endless, and without a limit give the first 200.

    Raises:
        HeadwayError: no such file or set, a malformed line (file, line, what was expected), an id that occurs twice,
            or no problem at all.
    """
    if limit is not None and limit < 1:
        raise HeadwayError(f"--limit must be at least 1, got {limit}")
    if spec in NAMED:
        split = NAMED[spec]
        made = countdown.problems(limit or NAMED_SIZE, split="heldout" if split == "heldout" else "train")
        return ProblemSet(spec, list(made), "countdown")
    path = Path(spec)
    if not path.is_file():
        raise HeadwayError(f"no problem file or named set '{spec}'; named sets are {', '.join(NAMED)}")
    return ProblemSet(path.stem, _read(path, limit), "math-verify")


class _Line(msgspec.Struct):
    """What is read of a line; other fields are ignored (data sets carry solutions, levels, sources)."""

    id: str | int
    prompt: str
    answer: str | int | float


def _read(path: Path, limit: int | None) -> list[Problem]:
    problems: dict[str, Problem] = {}
    decoder = msgspec.json.Decoder(_Line)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                read = decoder.decode(line)
                problem = Problem(str(read.id), read.prompt, str(read.answer))
            except (msgspec.DecodeError, ValueError) as error:
                raise HeadwayError(
                    f"{path}, line {number}: {error}; expected a JSON object with 'id', 'prompt' and 'answer', e.g. "
                    '{"id": "1", "prompt": "What is 2 + 2?", "answer": "4"}'
                ) from error
            if problem.id in problems:
                raise HeadwayError(f"{path}, line {number}: the id '{problem.id}' was seen before; ids must differ")
            problems[problem.id] = problem
            if limit is not None and len(problems) == limit:
                break
    if not problems:
        raise HeadwayError(f"{path} holds no problem; expected a JSON object a line with 'id', 'prompt' and 'answer'")
    return list(problems.values())
