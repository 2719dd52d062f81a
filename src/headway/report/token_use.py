"""Where the tokens went: thinking until the answer no longer changed, thinking after it, answers, forced answers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from headway.types import Branch

# the uses in the order of a trace, and how people call them
USES = {
    "thinking_before": "thinking until the answer last changed",
    "thinking_after": "thinking after that",
    "answer": "answer",
    "forced_answers": "forced answers",
}


def settled(boundaries: Sequence[int], branches: Iterable[Branch]) -> float:
    """The tokens of thinking after which a trace's forced answer no longer changed.

    That is the first boundary from which on the commonest answer of the last boundary is also the commonest, or one
    of several, at each boundary. NaN where no branch of the last boundary has an answer.
    """
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for branch in branches:
        if branch.answer is not None:
            votes[branch.boundary][branch.answer] += 1
    last = votes[len(boundaries) - 1]
    if not last:
        return np.nan
    final = {answer for answer, n in last.items() if n == max(last.values())}
    position = boundaries[-1]
    for j in range(len(boundaries) - 2, -1, -1):
        most = max(votes[j].values(), default=0)
        final &= {answer for answer, n in votes[j].items() if n == most}
        if not final:
            break
        position = boundaries[j]
    return float(position)


def token_use(
    tokens: Float[np.ndarray, " traces"],
    thinking: Float[np.ndarray, " traces"],
    settled: Float[np.ndarray, " traces"],
    forced: Float[np.ndarray, " traces"],
) -> dict[str, Float[np.ndarray, " traces"]]:
    """The tokens of each trace by use, in the order of `USES`.

    The first three add up to the trace's tokens; forced answers come on top of them. Where it is not known when the
    answer last changed, all thinking counts as before it.
    """
    before = np.where(np.isnan(settled), thinking, settled)
    return dict(zip(USES, (before, thinking - before, tokens - thinking, forced), strict=True))
