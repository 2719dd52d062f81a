"""Coverage: how many of the correct answers a likelihood counts, found out by a few branches."""

import logging
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from headway.procedures.prove import Prover
from headway.procedures.sample import derive_seed
from headway.types import Trace

logger = logging.getLogger(__name__)

BOUNDARIES, BRANCHES = 64, 2  # of the sample
LEAST_SHARE = 0.7  # of the correct branches; a warning below it
LEAST_CORRECT = 8  # correct branches for which a share means something


class Coverage(NamedTuple):
    """Branches of a sample of boundaries with known answers, those correct, and those of them that wrote one.

    `sampled` are their tokens: the cost.
    """

    branches: int
    correct: int
    counted: int
    sampled: int

    @property
    def share(self) -> float:
        """The share of the correct branches whose probability a likelihood counts; NaN where none is correct."""
        return self.counted / self.correct if self.correct else float("nan")

    def record(self) -> dict[str, int | float]:
        """The numbers by name."""
        return {**self._asdict(), "share": self.share}

    def warn_if_low(self) -> bool:
        """Logs a warning, and says so, if a likelihood leaves out many correct answers."""
        low = self.correct >= LEAST_CORRECT and self.share < LEAST_SHARE
        if low:
            logger.warning(
                f"likelihood values leave out correct answers: of {self.branches} branches sampled to check them, "
                f"{self.correct} are correct and {self.counted} of these ({self.share:.0%}) wrote a known form. Add "
                "the forms that are missing (candidates of the grader), or use values hybrid or branches"
            )
        return low


def sampled(prover: Prover, traces: Sequence[Trace], *, seed: int) -> Coverage:
    """Samples `BRANCHES` branches at up to `BOUNDARIES` boundaries of as many traces, at random by the seed.

    Boundaries of problems without a known answer, whose likelihood is unknown, are left out.
    """
    rng = Random(derive_seed(seed, "coverage"))
    chosen = [traces[i] for i in sorted(rng.sample(range(len(traces)), min(BOUNDARIES, len(traces))))]
    at = [f for trace in chosen for f in prover.forced(trace) if prover.forms(f).answers]
    asked = [at[i] for i in sorted(rng.sample(range(len(at)), min(BOUNDARIES, len(at))))]
    few = prover.with_branches(BRANCHES)
    branches = few.branches_at(asked, seed=derive_seed(seed, "coverage"), mark_known=True)
    correct = [b for b in branches if b.reward == 1]
    return Coverage(len(branches), len(correct), sum(b.known for b in correct), sum(b.sampled for b in branches))
