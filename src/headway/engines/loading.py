"""Finds and loads models and tokenizers. Importing this loads neither torch nor transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from headway.engines.window import context_window
from headway.types import HeadwayError

BUILTIN = "builtin:"


def model_path(model: str) -> str:
    """A model's folder or hub name; `builtin:NAME` is a folder of the package, HeadwayError if there is none."""
    if not model.startswith(BUILTIN):
        return model
    folder = Path(str(files("headway") / "builtin" / model.removeprefix(BUILTIN)))
    if not (folder / "config.json").is_file():
        known = sorted(f"{BUILTIN}{p.parent.name}" for p in folder.parent.glob("*/config.json"))
        raise HeadwayError(f"no model '{model}' in the package; expected {', '.join(known)}")
    return str(folder)


def load_tokenizer(model: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder, hub name or `builtin:NAME`; HeadwayError says why it cannot be loaded."""
    from transformers import AutoTokenizer  # imports torch where there is one

    with loading(model):
        return AutoTokenizer.from_pretrained(model_path(str(model)), trust_remote_code=trust_remote_code)


def window_of(model: str | Path, *, trust_remote_code: bool = False) -> int | None:
    """The context window of a model that is not loaded (`context_window`); None where it has no configuration."""
    from transformers import AutoConfig

    try:
        return context_window(AutoConfig.from_pretrained(model_path(str(model)), trust_remote_code=trust_remote_code))
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def loading(model: str | Path) -> Iterator[None]:
    """Turns a failure to load a model or its tokenizer into one message; hides the progress bars of transformers."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except HeadwayError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        expected = "builtin:countdown, a folder with config.json, *.safetensors and a tokenizer, or a name on the hub"
        raise HeadwayError(f"cannot load the model '{model}': {reason}; expected {expected}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
