"""Where the tokens went: thinking until the answer no longer changed, thinking after it, answers, forced answers."""

import numpy as np
from jaxtyping import Float

# the uses in the order of a trace, and their labels
USES = {
    "thinking_before": "thinking before the answer settled",
    "thinking_after": "thinking after it settled",
    "answer": "answer",
    "forced_answers": "forced answers",
}


def token_use(
    tokens: Float[np.ndarray, " traces"],
    thinking: Float[np.ndarray, " traces"],
    after: Float[np.ndarray, " traces"],
    forced: Float[np.ndarray, " traces"],
) -> dict[str, Float[np.ndarray, " traces"]]:
    """The tokens of each trace by use, in the order of `USES`.

    The first three add up to the trace's tokens; forced answers come on top of them. Where it is not known how much
    thinking came `after` the answer last changed, all of it counts as before.
    """
    idle = np.nan_to_num(after)
    return dict(zip(USES, (thinking - idle, idle, tokens - thinking, forced), strict=True))
