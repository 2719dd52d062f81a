"""Named benchmarks: the place of each on the Hugging Face hub, its size, its prompt and its reference answers.

Names, splits, columns and sizes were checked against the sets' cards on the hub and lighteval's and others' task
definitions (docs/measuring.md says which); the sizes are checked again whenever a set is loaded.
"""

from collections.abc import Callable
from typing import NamedTuple

from headway.problems.hub import HubSet
from headway.problems.rows import Columns

# As the model cards of DeepSeek-R1 and Qwen3 advise. The paper's prompt is the problem: --prompt-template '{problem}'.
BOXED = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."


def after_hashes(answer: str) -> str:
    """GSM8K's reference: the number after its solution's `####` (ValueError without), without thousands commas."""
    _, mark, number = answer.rpartition("####")
    if not mark:
        raise ValueError(f"expected a solution that ends with '#### ' and the answer, got {answer[-80:]!r}")
    return number.strip().replace(",", "")


class Preset(NamedTuple):
    """A named benchmark.

    `size` is its number of rows. `reference` extracts the answer from the answer's column. `skip_unanswered` leaves
    out the rows whose answer is empty.
    """

    source: HubSet
    size: int
    columns: Columns
    reference: Callable[[str], str] = str
    skip_unanswered: bool = False
    template: str = BOXED


_PROBLEM, _QUESTION = Columns("problem"), Columns("question")

PRESETS = {
    "aime24": Preset(HubSet("HuggingFaceH4/aime_2024", split="train"), 30, _PROBLEM),
    "aime25": Preset(HubSet("math-ai/aime25", split="test"), 30, _PROBLEM),
    "amc": Preset(HubSet("AI-MO/aimo-validation-amc", split="train"), 83, _PROBLEM),
    "math500": Preset(HubSet("HuggingFaceH4/MATH-500", split="test"), 500, Columns("problem", id="unique_id")),
    "minerva": Preset(HubSet("math-ai/minervamath", split="test"), 272, _QUESTION),
    "gsm8k": Preset(HubSet("openai/gsm8k", "main", "test"), 1319, _QUESTION, reference=after_hashes),
    "omni-math": Preset(HubSet("KbsdJames/Omni-MATH", split="test"), 4428, _PROBLEM, skip_unanswered=True),
}
