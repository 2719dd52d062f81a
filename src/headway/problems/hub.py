"""Data sets of the Hugging Face hub, or folders of data files, through `datasets`; the named benchmarks among them.

Their names, splits, columns and sizes were checked against the sources in docs/measuring.md; sizes again at each load.
"""

import re
from typing import Any, NamedTuple

from headway.problems.fields import BadRow, reference_of
from headway.problems.files import Table
from headway.problems.rows import Columns, Reference
from headway.types import HeadwayError

# As the model cards of DeepSeek-R1 and Qwen3 advise. The paper's prompt is the problem: --prompt-template '{problem}'.
BOXED = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."


class HubSet(NamedTuple):
    """A data set: its name on the hub (or a folder), its configuration and its split."""

    name: str
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, spec: str) -> "HubSet":
        """The data set of `owner/name[:config][@split]`; another text is a HeadwayError."""
        if (found := re.fullmatch(r"([^:@]+)(?::([^:@]+))?(?:@([^:@]+))?", spec)) is None:
            raise HeadwayError(f"'hub:{spec}' is no data set; expected hub:owner/name, :config and @split if needed")
        return cls(*found.groups())

    def __str__(self) -> str:
        return self.name + (f":{self.config}" if self.config else "") + (f"@{self.split}" if self.split else "")


def load_hub(source: HubSet) -> Any:
    """A split of a data set, from the hub or its cache; without a name the only split, else a HeadwayError."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(source.name, source.config, split=source.split)
    except Exception as error:  # of the network, the hub or the file formats, which share no class
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__
        expected = "expected hub:owner/name[:config][@split], on the hub or in its cache (HF_HOME)"
        advice = "a private one needs HF_TOKEN. A JSONL, CSV or Parquet file needs no hub"
        raise HeadwayError(f"cannot load the data set '{source}': {reason}; {expected}; {advice}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if len(loaded) > 1:
        splits = ", ".join(loaded)
        raise HeadwayError(f"'{source}' has the splits {splits}; say which, e.g. hub:{source}@{next(iter(loaded))}")
    return next(iter(loaded.values()))


def open_hub(source: HubSet, data: Any) -> Table:
    """The rows of a data set, without the columns that must be decoded: images, sounds."""
    read = [name for name, feature in data.features.items() if not getattr(feature, "decode", False)]
    rows = enumerate(data.select_columns(read))
    named = ((f"the data set '{source}', row {number}", row) for number, row in rows)
    return Table(f"the data set '{source}'", named, tuple(name for name in data.column_names if name not in read))


def after_hashes(value: object, place: str, *, solution: bool = False) -> str:
    """GSM8K's reference: the number after its solution's `####`, without thousands commas; a BadRow without."""
    if "####" not in str(value):
        raise BadRow(place, "expected a solution that ends with '#### ' and the answer", f", got {str(value)[-80:]!r}")
    return reference_of(value, place)


class Preset(NamedTuple):
    """A named benchmark."""

    source: HubSet
    size: int  # rows
    columns: Columns
    reference: Reference = reference_of
    skip_unanswered: bool = False  # leaves out the rows whose answer is empty
    template: str = BOXED


_PROBLEM, _QUESTION = Columns("problem", "answer"), Columns("question", "answer")

PRESETS = {
    "aime24": Preset(HubSet("HuggingFaceH4/aime_2024", split="train"), 30, _PROBLEM),
    "aime25": Preset(HubSet("math-ai/aime25", split="test"), 30, _PROBLEM),
    "amc": Preset(HubSet("AI-MO/aimo-validation-amc", split="train"), 83, _PROBLEM),
    "math500": Preset(HubSet("HuggingFaceH4/MATH-500", split="test"), 500, Columns("problem", "answer", "unique_id")),
    "minerva": Preset(HubSet("math-ai/minervamath", split="test"), 272, _QUESTION),
    "gsm8k": Preset(HubSet("openai/gsm8k", "main", "test"), 1319, _QUESTION, after_hashes),
    "omni-math": Preset(HubSet("KbsdJames/Omni-MATH", split="test"), 4428, _PROBLEM, skip_unanswered=True),
}
