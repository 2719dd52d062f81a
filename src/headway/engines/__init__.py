"""Engines: one door to every model. Each is in a module of its own; importing this one loads none."""

from importlib.resources import files
from pathlib import Path

from headway.types import HeadwayError

BUILTIN = "builtin:"


def model_path(model: str) -> str:
    """A model's folder or hub name; `builtin:NAME` is a folder of the package.

    Raises:
        HeadwayError: there is no such builtin model.
    """
    if not model.startswith(BUILTIN):
        return model
    folder = Path(str(files("headway") / "builtin" / model.removeprefix(BUILTIN)))
    if not (folder / "config.json").is_file():
        there = sorted(f"{BUILTIN}{p.parent.name}" for p in folder.parent.glob("*/config.json"))
        raise HeadwayError(f"no model '{model}' in the package; there is {', '.join(there)}")
    return str(folder)
