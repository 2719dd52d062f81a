"""Credit: from outcome and values to the advantage of each token. One file a scheme, one row of `SCHEMES`.

A trace is a row of choices: at each boundary the policy chooses the next episode, and at the last one, if the thought
ended by itself, it chooses to stop. A scheme maps a group to the bonus of each choice, baseline included;
`token_advantages` adds each bonus to the outcome's advantage on the tokens of its choice.

A bonus is added after the outcome is normalized and never goes through the reward: what a whole group shares, such as
the value of a common prefix, cancels there (docs/concepts.md).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from headway.credit import brpo, episode, grpo, mig, stale_prefix, to_go
from headway.credit.common import Bonuses, Group, centred, token_advantages

__all__ = ["SCHEMES", "Bonuses", "Group", "Scheme", "centred", "token_advantages"]


class Scheme(NamedTuple):
    """A way to give credit, and what a training step must do for it.

    Attributes:
        bonuses: The bonuses of each trace of a group. The first line of its docstring is the option's help.
        pays: What gets a bonus: each episode and the stop, the whole completion, or nothing (TRL's own step).
        starts: Where completions start: at the prompt, or at a prefix of a trace sampled for it (one a group).
        needs_values: Whether it reads `values` or `costs`; without them nothing is proved and both are NaN.
    """

    bonuses: Callable[[Group], Bonuses]
    pays: Literal["episodes", "completion", "nothing"] = "episodes"
    starts: Literal["prompt", "stale_prefix"] = "prompt"
    needs_values: bool = True


SCHEMES: dict[str, Scheme] = {
    "grpo": Scheme(grpo.bonuses, pays="nothing", needs_values=False),
    "episode": Scheme(episode.bonuses),
    "to_go": Scheme(to_go.bonuses),
    "stale_prefix": Scheme(stale_prefix.bonuses, pays="completion", starts="stale_prefix"),
    "brpo": Scheme(brpo.bonuses),
    "mig": Scheme(mig.bonuses),
}
