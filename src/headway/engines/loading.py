"""Finds and loads models and tokenizers. Importing this loads neither torch nor transformers."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from headway.choices import lookup
from headway.engines.window import context_window
from headway.types import HeadwayError

BUILTIN = "builtin:"
EXPECTED = "builtin:countdown, a folder with config.json, *.safetensors and a tokenizer, or a name on the hub"
DTYPES = {name: name for name in ("auto", "float32", "bfloat16", "float16")}
DTYPES |= {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# sizes whose product with hidden_size is a number of weights
SIZES = (("vocab_size",), ("num_hidden_layers", "intermediate_size"), ("num_attention_heads", "head_dim"))

logger = logging.getLogger(__name__)


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


def load_weights(model: str | Path, load: Callable[..., Any], *, dtype: str | None = "auto", **options: Any) -> Any:
    """A model by `load`, a `from_pretrained` of transformers; safetensors only.

    Raises:
        HeadwayError: it cannot be loaded, or a weight that it needs is not in its files or has another shape there.
    """
    options |= {"dtype": lookup(DTYPES, "auto" if dtype is None else dtype, "dtype"), "use_safetensors": True}
    path, reports = model_path(str(model)), list[str]()

    def keep(record: logging.LogRecord) -> bool:
        """Collects the tables of transformers, in place of which the message below is."""
        if is_report := "LOAD REPORT" in (text := record.getMessage()):
            reports.append(text)
        return not is_report

    log = logging.getLogger("transformers.modeling_utils")
    with loading(model):
        _check_sizes(path, options)
        log.addFilter(keep)
        try:
            loaded, info = load(path, output_loading_info=True, ignore_mismatched_sizes=True, **options)
        finally:
            log.removeFilter(keep)
        lacks = [f"{name} is missing" for name in sorted(info["missing_keys"])]
        lacks += [f"{name} is {tuple(is_)}, not {tuple(by)}" for name, is_, by in sorted(info["mismatched_keys"])]
        # where a base model has none of its weights, only the table says so
        lacks = lacks or [f"weights are missing: {' '.join(r.split())[:300]}" for r in reports if "MISSING" in r]
        if lacks:
            more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
            raise HeadwayError(
                f"the model '{model}' does not have the weights that its config.json asks for: {lacks[0]}{more}; they "
                "would be random. Copy the whole model, with the config.json that belongs to its weights"
            )
    if unused := sorted(info["unexpected_keys"]):
        logger.warning(f"the model '{model}' does not use {len(unused)} weights of its files, such as {unused[0]}")
    return loaded


def _check_sizes(path: str, options: dict[str, Any]) -> None:
    """Refuses a configuration of many more weights than the files could hold, which would take all memory."""
    if not (bits := 8 * sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))):
        return
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=options.get("trust_remote_code", False))
    config = config.get_text_config()
    for names in SIZES:
        given = {name: getattr(config, name, None) for name in ("hidden_size", *names)}
        if bad := [f"{name} {size}" for name, size in given.items() if isinstance(size, int) and size < 1]:
            raise HeadwayError(f"config.json of '{path}' has {bad[0]}; expected at least 1")
        sizes = {name: size or 1 for name, size in given.items()}
        if math.prod(sizes.values()) > bits:
            said = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise HeadwayError(f"config.json of '{path}' has {said}: its files of {bits // 8} bytes cannot hold them")


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
    except Exception as error:  # a damaged or hostile folder: what transformers raises has no bounds
        reason = next(iter(str(error).strip().splitlines()), "")
        what = reason if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {reason}"
        raise HeadwayError(f"cannot load the model '{model}': {what[:300]}; expected {EXPECTED}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
