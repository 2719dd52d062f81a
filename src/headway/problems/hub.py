"""Data sets of the Hugging Face hub, or folders of data files, through `datasets`."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from headway.problems.rows import Columns, Row
from headway.types import HeadwayError


class HubSet(NamedTuple):
    """A data set: its name on the hub (or a folder), its configuration and its split."""

    name: str
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, spec: str) -> "HubSet":
        """The data set of `owner/name[:config][@split]`; another text is a HeadwayError."""
        found = re.fullmatch(r"([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?", spec)
        if found is None:
            raise HeadwayError(f"'hub:{spec}' is no data set; expected hub:owner/name, :config and @split if needed")
        return cls(*found.groups())

    def __str__(self) -> str:
        return self.name + (f":{self.config}" if self.config else "") + (f"@{self.split}" if self.split else "")


def load_hub(source: HubSet) -> Any:
    """A split of a data set, from the hub or its cache; the only split where none is named.

    Raises:
        HeadwayError: the data set, configuration or split cannot be loaded, or there are several splits.
    """
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(source.name, source.config, split=source.split)
    except Exception as error:  # of the network, the hub or the file formats, which share no class
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__
        raise HeadwayError(
            f"cannot load the data set '{source}': {reason}; expected hub:owner/name[:config][@split] and a way to "
            "the hub, or the data set in its cache (HF_HOME); a private one needs HF_TOKEN. A JSONL, CSV or Parquet "
            "file of the problems needs no hub"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if len(loaded) > 1:
        splits = ", ".join(loaded)
        raise HeadwayError(f"'{source}' has the splits {splits}; say which, e.g. hub:{source}@{next(iter(loaded))}")
    return next(iter(loaded.values()))


def read_hub(source: HubSet, data: Any, columns: Columns) -> Iterator[Row]:
    """The rows of a data set, with the needed columns only (others may be images, say)."""
    wanted = {columns.prompt, columns.answer, columns.id or "id"}
    there = data.column_names
    if not {columns.prompt, columns.answer, columns.id or columns.prompt} <= set(there):
        yield f"the data set '{source}'", dict.fromkeys(there)  # all of its columns, for the error message
    for number, row in enumerate(data.select_columns([c for c in there if c in wanted])):
        yield f"the data set '{source}', row {number}", row
