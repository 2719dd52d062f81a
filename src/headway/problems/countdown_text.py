"""What thoughts about Countdown say: written steps, right or wrong, and the claim that the target is reached."""

import re
from collections.abc import Sequence
from typing import NamedTuple

STEP = re.compile(r"(?<!\d)(\d{1,9}) ([-+*/]) (\d{1,9}) = (\d{1,9})(?!\d)")
CLAIM = "? Yes."


class Written(NamedTuple):
    """The steps that a thought has written, and how many of them are right."""

    right: int
    steps: int


def is_right(a: str, symbol: str, b: str, result: str) -> bool:
    """Whether a written step is right."""
    x, y, z = int(a), int(b), int(result)
    return {"+": x + y == z, "-": x - y == z, "*": x * y == z, "/": y != 0 and x == y * z}[symbol]


def written(thought: str) -> Written:
    """The steps `a + b = c` of a thought."""
    found = [is_right(*step) for step in STEP.findall(thought)]
    return Written(sum(found), len(found))


def claims_success(thought: str) -> bool:
    """Whether a thought ends on the claim that its last attempt reached the target."""
    return thought.rstrip().endswith(CLAIM)


def competence(thoughts: Sequence[str], rewards: Sequence[float | None]) -> dict[str, float]:
    """The share of written steps that are right, and of claimed successes that are; NaN where there are none."""
    found = [written(thought) for thought in thoughts]
    claimed = [r for thought, r in zip(thoughts, rewards, strict=True) if r is not None and claims_success(thought)]
    steps = sum(w.steps for w in found)
    return {
        "right_steps": sum(w.right for w in found) / steps if steps else float("nan"),
        "true_claims": sum(claimed) / len(claimed) if claimed else float("nan"),
    }
