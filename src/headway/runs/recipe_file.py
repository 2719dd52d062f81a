"""Reads a recipe's YAML before torch and TRL are imported, so that a file that cannot be used is said at once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headway.runs.settings import extra
from headway.types import HeadwayError

MOST_BYTES, MOST_ALIASES, MOST_INTEGER = 2**20, 10, 2**63
EXPECTED = "expected YAML lines such as 'max_steps: 100', see docs/training.md"


def check_recipe(arguments: list[str]) -> None:
    """Refuses a `--config` that is no flat mapping of options to plain values; HeadwayError says what is wrong."""
    for place, argument in enumerate(arguments):
        if argument == "--config" or argument.startswith("--config="):
            given = argument.partition("=")[2] or next(iter(arguments[place + 1 :]), "")
            if "=" in argument or not given:
                raise HeadwayError("--config needs the file of a recipe after it: --config recipe.yaml")
            options_of(Path(given))


def content_of(file: Path) -> Any:
    """What a YAML file holds; HeadwayError where it cannot be read, or is larger or more entangled than a recipe."""
    with extra("train", "a recipe needs pyyaml"):
        import yaml
    try:
        content = file.read_bytes()
        if len(content) > MOST_BYTES:
            raise HeadwayError(f"the recipe {file} has {len(content)} bytes, at most {MOST_BYTES} are read")
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content)) > MOST_ALIASES:
            raise HeadwayError(f"the recipe {file} has more than {MOST_ALIASES} aliases (*name); write the values out")
        found = yaml.safe_load(content)
        json.dumps(found, default=str)  # raises where a value contains itself
        return found
    except HeadwayError:
        raise
    except OSError as error:
        raise HeadwayError(f"cannot read the recipe {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise HeadwayError(f"cannot read the recipe {file}: {reason}; {EXPECTED}") from error


def options_of(file: Path) -> dict[str, Any]:
    """The options in a recipe."""
    options = content_of(file)
    if not isinstance(options, dict):
        raise HeadwayError(f"the recipe {file} is a {type(options).__name__}, not a mapping; {EXPECTED}")
    for name, value in (*options.items(), *_items(options.get("env"))):
        if not isinstance(name, str):
            raise HeadwayError(f"the recipe {file} has an option {name!r:.40}, which is no text; {EXPECTED}")
        for plain in _leaves(value):
            _check_plain(file, name, plain)
    return options


def _items(env: Any) -> list[tuple[Any, Any]]:
    if env is None:
        return []
    if not isinstance(env, dict):
        raise HeadwayError(f"env is a {type(env).__name__}, not a mapping of environment variables to texts")
    if bad := [name for name in env if not isinstance(name, str) or not name or set("=\0") & set(name)]:
        raise HeadwayError(f"env has {bad[0]!r:.40}, which is no name of an environment variable")
    return list(env.items())


def _leaves(value: Any) -> Iterator[Any]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if parts is None:
        yield value
    for part in parts or ():
        yield from _leaves(part)


def _check_plain(file: Path, name: str, value: Any) -> None:
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise HeadwayError(f"{name} in {file} is a {type(value).__name__} to YAML; put the value in quotes")
    if isinstance(value, str) and "\0" in value:
        raise HeadwayError(f"{name} in {file} has a NUL character")
    if isinstance(value, (int, float)) and not abs(value) < MOST_INTEGER:  # nor NaN
        raise HeadwayError(f"{name} in {file} is {value!r:.40}; expected a finite number below 2**63")
