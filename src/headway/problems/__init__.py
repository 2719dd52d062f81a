"""Sources of problems: files, data sets of the Hugging Face hub, named benchmarks, and generated sets."""

import logging
from typing import NamedTuple

import msgspec

from headway.problems import countdown_sets, gym
from headway.problems.columns import reach, roots
from headway.problems.fields import LeftOut, refused
from headway.problems.files import locate, open_file
from headway.problems.hub import PRESETS, HubSet, Preset, load_hub, open_hub
from headway.problems.rows import Columns, to_problems
from headway.types import HeadwayError, Problem

__all__ = ["Columns", "ProblemSet", "load_problems"]


class ProblemSet(NamedTuple):
    """Problems, the name a report gives them, and the grader that fits them."""

    name: str
    problems: list[Problem]
    grader: str


logger = logging.getLogger(__name__)
GENERATED = 200  # problems of a generated set without a limit
HUB, GYM = "hub:", "gym:"
PLACE = "{problem}"  # in a prompt template


def load_problems(
    spec: str, *, limit: int | None = None, seed: int = 0, columns: Columns | None = None, template: str | None = None,
    skip_bad: bool = False,
) -> ProblemSet:  # fmt: skip
    """The first `limit` problems of a set, or all; one that is unknown or cannot be read is a HeadwayError.

    Args:
        spec: A JSONL, JSON, CSV or Parquet file; `FILE:path` for rows inside a JSON object;
            `hub:owner/name[:config][@split]` (or a folder in place of the name); a preset such as `aime24`;
            `countdown` (held-out problems) and the others of `countdown_sets.SETS`; `gym:TASK` (reasoning-gym).
        limit: By default all problems, or the first 200 of a generated set.
        seed: Seed of a `gym:` set.
        columns: Those of a file or a hub data set, else found by their usual names; other sets have their own.
        template: The prompt, with `{problem}` in place of the question; a preset or `gym:` set has its own.
        skip_bad: Whether rows of a file or hub data set that cannot be used are left out, with a warning that counts
            them, or are a HeadwayError.
    """
    if limit is not None and limit < 1:
        raise HeadwayError(f"--limit must be at least 1, got {limit}")
    if template is not None and PLACE not in template:
        raise HeadwayError(f"--prompt-template needs {PLACE} in place of the question, got {template!r}")
    if columns is not None and (spec in countdown_sets.SETS or spec in PRESETS or spec.startswith(GYM)):
        raise HeadwayError(f"'{spec}' has its own columns; --prompt-column and the like are for files and hub: sets")
    own = PLACE
    if spec in PRESETS:
        own = PRESETS[spec].template
        made = ProblemSet(spec, _of_preset(spec, PRESETS[spec], limit), "math-verify")
    elif spec.startswith(GYM):
        own = gym.TEMPLATE
        made = ProblemSet(spec, list(gym.problems(spec.removeprefix(GYM), limit or GENERATED, seed=seed)), "gym")
    elif spec in countdown_sets.SETS:
        made = ProblemSet(spec, countdown_sets.problems(spec, limit or GENERATED), "countdown")
    else:
        made = _read(spec, limit, columns or Columns(), skip_bad=skip_bad)
    asked = own if template is None else template
    problems = [msgspec.structs.replace(p, prompt=asked.replace(PLACE, p.prompt)) for p in made.problems]
    return made._replace(problems=problems)


def _read(spec: str, limit: int | None, columns: Columns, *, skip_bad: bool) -> ProblemSet:
    bad = LeftOut() if skip_bad else refused
    if spec.startswith(HUB):
        source = HubSet.parse(spec.removeprefix(HUB))
        name, table = str(source), open_hub(source, load_hub(source))
    elif (path := locate(spec)[0]).is_file():
        name, table = path.stem, open_file(spec, roots(columns), bad)
    else:
        raise HeadwayError(
            f"no problem file or named set '{spec}'; named sets are {', '.join([*countdown_sets.SETS, *PRESETS])}; "
            "hub:owner/name reads a data set of the Hugging Face hub, gym:TASK makes problems with reasoning-gym"
        )
    problems = to_problems(table, columns, limit=limit, bad=bad)
    if isinstance(bad, LeftOut) and bad:
        logger.warning("%s: %s", spec, bad)
    return ProblemSet(name, problems, "math-verify")


def _of_preset(name: str, preset: Preset, limit: int | None) -> list[Problem]:
    data = load_hub(preset.source)
    if len(data) != preset.size:
        changed = f"'{preset.source.name}' holds {len(data)} problems, and {name} is known as a set of {preset.size}"
        raise HeadwayError(f"{changed}: the data set has changed; use it as it is with --problems hub:{preset.source}")
    table = open_hub(preset.source, data)
    if preset.skip_unanswered:
        rows = ((place, row) for place, row in table.rows if reach(row, preset.columns.answer))
        table = table._replace(rows=rows)
    problems = to_problems(table, preset.columns, limit=limit, reference=preset.reference)
    return [msgspec.structs.replace(p, id=f"{name}/{p.id}") for p in problems]
