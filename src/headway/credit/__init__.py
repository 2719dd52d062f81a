"""Credit: from outcome and values to the advantage of each token. One file a scheme, one row of `SCHEMES`.

The policy chooses tokens. A scheme maps a group to two bonuses of each episode, one for the tokens within it and one
for the token that ends it, baseline included; `token_advantages` adds them to the outcome's advantage. A bonus never
goes through the reward: what a whole group shares, such as the value of a common prefix, cancels there
(docs/concepts.md).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from headway.credit import (
    brpo,
    discounted,
    dler,
    episode,
    grpo,
    length_penalty,
    mig,
    mixed_prefix,
    regret,
    s_grpo,
    stale_prefix,
    to_go,
    vineppo,
)
from headway.credit.common import Bonuses, Group, centred, token_advantages

__all__ = ["SCHEMES", "Bonuses", "Group", "Scheme", "centred", "token_advantages"]


class Scheme(NamedTuple):
    """A way to give credit, and what a training step must do for it."""

    bonuses: Callable[[Group], Bonuses]  # of each trace; the first line of its docstring is the option's help
    pays: Literal["episodes", "episodes+answer", "completion", "nothing"] = "episodes"  # what gets a bonus
    # the prompt, a stale prefix of a sampled trace (one a group), or that and for half of the group a forced answer
    starts: Literal["prompt", "stale_prefix", "mixed_prefix"] = "prompt"
    needs_values: bool = True  # whether it reads `values` or `costs`; both are NaN without
    values_of: Literal["answer", "policy"] = "answer"  # a forced answer, or the policy going on by itself


SCHEMES: dict[str, Scheme] = {
    "grpo": Scheme(grpo.bonuses, pays="nothing", needs_values=False),
    "episode": Scheme(episode.bonuses),
    "to_go": Scheme(to_go.bonuses),
    "lambda": Scheme(discounted.bonuses),
    "regret": Scheme(regret.bonuses),
    "stale_prefix": Scheme(stale_prefix.bonuses, pays="completion", starts="stale_prefix"),
    "mixed_prefix": Scheme(mixed_prefix.bonuses, pays="completion", starts="mixed_prefix", needs_values=False),
    "brpo": Scheme(brpo.bonuses),
    "mig": Scheme(mig.bonuses),
    "vineppo": Scheme(vineppo.bonuses, pays="episodes+answer", values_of="policy"),
    "s_grpo": Scheme(s_grpo.bonuses, pays="episodes+answer"),
    "length_penalty": Scheme(length_penalty.bonuses, pays="completion", needs_values=False),
    "dler": Scheme(dler.bonuses, pays="completion", needs_values=False),
}
