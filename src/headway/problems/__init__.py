"""Sources of problems: files, data sets of the Hugging Face hub, known sets, and generated sets.

`files` and `hub` read rows, `rows` makes problems of them, and `presets` lists the known sets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from headway.problems import countdown, gym
from headway.problems.files import read_file
from headway.problems.hub import HubSet, load_hub, read_hub
from headway.problems.presets import PRESETS, Preset
from headway.problems.rows import Columns, to_problems
from headway.types import HeadwayError, Problem

__all__ = ["Columns", "ProblemSet", "load_problems"]


class ProblemSet(NamedTuple):
    """Problems, the name a report gives them, and the grader that fits them."""

    name: str
    problems: list[Problem]
    grader: str


NAMED = ("countdown", "countdown-train")
NAMED_SIZE = 200
HUB, GYM = "hub:", "gym:"
PLACE = "{problem}"  # in a prompt template


def load_problems(
    spec: str, *, limit: int | None = None, seed: int = 0, columns: Columns | None = None, template: str | None = None
) -> ProblemSet:
    """The first `limit` problems of a set, or all of them.

    Args:
        spec: What `--problems` takes: a JSONL, CSV or Parquet file; `hub:owner/name[:config][@split]` (or a folder in
            place of the name); a preset such as `aime24`; `countdown` (held-out problems of the embedded default's
            task) or `countdown-train`; `gym:TASK` (reasoning-gym). Generated sets are endless; without a limit, their
            first 200.
        limit: Maximum number of problems.
        seed: Seed of a `gym:` set.
        columns: The columns of a file or a hub data set; other sets have their own.
        template: The prompt, with `{problem}` in place of the question; a preset or `gym:` set has its own.

    Raises:
        HeadwayError: there is no such set, or it cannot be read: where, what was got, what was expected.
    """
    if limit is not None and limit < 1:
        raise HeadwayError(f"--limit must be at least 1, got {limit}")
    if template is not None and PLACE not in template:
        raise HeadwayError(f"--prompt-template needs {PLACE} in place of the question, got {template!r}")
    if spec not in NAMED and spec not in PRESETS and not spec.startswith(GYM):
        made, own = _read(spec, limit, columns or Columns()), None
    elif columns is not None:
        raise HeadwayError(f"'{spec}' has its own columns; --prompt-column and the like are for files and hub: sets")
    else:
        made, own = _known(spec, limit, seed)
    return made._replace(problems=_asked(made.problems, own if template is None else template))


def _known(spec: str, limit: int | None, seed: int) -> tuple[ProblemSet, str | None]:
    """The problems of a preset or a generated set, and its prompt template."""
    if spec in PRESETS:
        preset = PRESETS[spec]
        return ProblemSet(spec, _of_preset(spec, preset, limit), "math-verify"), preset.template
    if spec.startswith(GYM):
        made = gym.problems(spec.removeprefix(GYM), limit or NAMED_SIZE, seed=seed)
        return ProblemSet(spec, list(made), "gym"), gym.TEMPLATE
    split: Literal["heldout", "train"] = "heldout" if spec == "countdown" else "train"
    return ProblemSet(spec, list(countdown.problems(limit or NAMED_SIZE, split=split)), "countdown"), None


def _read(spec: str, limit: int | None, columns: Columns) -> ProblemSet:
    """The problems of a file or of a data set of the hub."""
    if spec.startswith(HUB):
        source = HubSet.parse(spec.removeprefix(HUB))
        data = load_hub(source)
        problems = to_problems(read_hub(source, data, columns), columns, where=source.name, limit=limit)
        return ProblemSet(spec.removeprefix(HUB), problems, "math-verify")
    path = Path(spec)
    if not path.is_file():
        known = ", ".join([*NAMED, *PRESETS])
        raise HeadwayError(
            f"no problem file or named set '{spec}'; named sets are {known}; hub:owner/name reads a data set of the "
            "Hugging Face hub, gym:TASK makes problems with reasoning-gym"
        )
    return ProblemSet(path.stem, to_problems(read_file(path), columns, where=spec, limit=limit), "math-verify")


def _of_preset(name: str, preset: Preset, limit: int | None) -> list[Problem]:
    data = load_hub(preset.source)
    if len(data) != preset.size:
        raise HeadwayError(
            f"'{preset.source.name}' holds {len(data)} problems, and {name} is known as a set of {preset.size}: the "
            f"data set has changed; use it as it is with --problems hub:{preset.source}"
        )
    rows = read_hub(preset.source, data, preset.columns)
    if preset.skip_unanswered:
        rows = ((place, row) for place, row in rows if row.get(preset.columns.answer))
    problems = to_problems(rows, preset.columns, where=preset.source.name, limit=limit, reference=preset.reference)
    return [msgspec.structs.replace(p, id=f"{name}/{p.id}") for p in problems]


def _asked(problems: Sequence[Problem], template: str | None) -> list[Problem]:
    """The problems as the template asks them."""
    if template is None:
        return list(problems)
    return [msgspec.structs.replace(p, prompt=template.replace(PLACE, p.prompt)) for p in problems]
