"""Votes over answers by the numbers of their classes (`headway.text.equivalence`); -1 (no answer) does not vote."""

from collections import Counter
from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

Ties = Literal["share", "half"]
Classes = Int[np.ndarray, " n"]  # of each answer
Marks = Bool[np.ndarray, " n"]  # whether each is correct
Each = Float[np.ndarray, " n"]

NO_VOTE = -1
MOST_SUBSETS = 2000


def maj_at_k(classes: Classes, right: Marks, most: int | None = None) -> Float[np.ndarray, " k"]:
    """The accuracy of a majority vote over k of n answers, for k = 1..n (or 1..`most`): the exact mean over subsets.

        maj@k = sum_{s: |s| = k} (right winners of s) / (winners of s) / C(n, k)

    Winners are the classes with the most votes; a class is correct if any of its answers is. A tie shares the point,
    and no vote at all is wrong. Subsets are counted, not sampled: for each number of votes at the top, a product of
    binomials over the classes. From a thousand answers on give `most`, or the binomials are too large for a float.
    """
    n = len(classes)
    sizes = Counter(classes[classes != NO_VOTE].tolist())
    of_right = set(classes[right].tolist())
    good = tuple(sorted(size for c, size in sizes.items() if c in of_right))
    bad = tuple(sorted(size for c, size in sizes.items() if c not in of_right))
    return np.array(_shares(good, bad, n - sizes.total(), n if most is None else min(n, most)))


@lru_cache(maxsize=65536)
def _shares(good: tuple[int, ...], bad: tuple[int, ...], blank: int, most: int) -> tuple[float, ...]:
    """maj@1..most for classes of these sizes: a few patterns, which repeat."""
    n = sum(good) + sum(bad) + blank
    total = np.zeros(most + 1)
    for top in range(1, min(max((*good, *bad), default=0), most) + 1):
        ties = most // top
        # subsets with v votes in which r right and w wrong classes have `top` votes each, and no class has more
        ways = np.zeros((most + 1, min(len(good), ties) + 1, min(len(bad), ties) + 1))
        ways[: blank + 1, 0, 0] = [comb(blank, v) for v in range(min(blank, most) + 1)]
        for size, is_right in (*((s, True) for s in good), *((s, False) for s in bad)):
            more = np.zeros_like(ways)
            for v in range(min(size, top) + 1):
                moved = ways[: most + 1 - v] * comb(size, v)
                if v < top:
                    more[v:] += moved
                elif is_right:
                    more[v:, 1:] += moved[:, :-1]
                else:
                    more[v:, :, 1:] += moved[:, :, :-1]
            ways = more
        r, w = np.ogrid[: ways.shape[1], : ways.shape[2]]
        total += (ways * (r / np.maximum(r + w, 1))).sum(axis=(1, 2))
    return tuple(float(total[k] / comb(n, k)) for k in range(1, most + 1))


def weighted_maj(classes: Classes, right: Marks, weights: Each, k: int, *, ties: Ties = "share") -> float:
    """The accuracy of a weighted vote over k of the answers: the mean over all subsets, or `MOST_SUBSETS` random ones.

    With equal weights and `ties="share"` it is `maj_at_k`. `ties="half"` gives a correct winner half a point however
    many it ties with, as the authors' analysis does. NaN where there are fewer than k answers.
    """
    n = len(classes)
    if k > n:
        return np.nan
    kinds = np.unique(classes[classes != NO_VOTE])
    if len(kinds) == 0:
        return 0.0
    ballots = (classes[:, None] == kinds) * weights[:, None]
    tally = ballots[_subsets(n, k)].sum(axis=1)
    winners = (tally > 0) & np.isclose(tally, tally.max(axis=1, keepdims=True), rtol=1e-12, atol=0)
    won = (winners & np.isin(kinds, classes[right])).sum(axis=1)
    tied = winners.sum(axis=1)
    if ties == "half":
        points = np.where((won > 0) & (won == tied), 1.0, np.where(won > 0, 0.5, 0.0))
    else:
        points = won / np.maximum(tied, 1)
    return float(points.mean())


@lru_cache(maxsize=64)
def _subsets(n: int, k: int) -> Int[np.ndarray, "subsets k"]:
    """All subsets of k of n, or `MOST_SUBSETS` random ones where there are more."""
    if comb(n, k) <= MOST_SUBSETS:
        return np.array(list(combinations(range(n), k)))
    return np.random.default_rng(0).random((MOST_SUBSETS, n)).argsort(axis=1)[:, :k]


def logprob_weights(logprobs: Each, sampled: Each) -> Each:
    """The weight of each answer's vote in the authors' analysis: 2 to the power of its mean log-probability per token.

    The logarithm is natural and the base is 2, as released. An unknown log-probability is an unknown weight.
    """
    return np.exp2(logprobs / np.maximum(sampled, 1.0))


def winners(classes: Classes) -> frozenset[int]:
    """The classes with the most votes; none where nobody votes."""
    sizes = Counter(classes[classes != NO_VOTE].tolist())
    most = max(sizes.values(), default=0)
    return frozenset(c for c, size in sizes.items() if size == most)


def settled_at(classes: Int[np.ndarray, "J B"]) -> int | None:
    """The first boundary from which on one majority answer of the last boundary is in the majority.

    A tie counts for each answer in it. None where the last boundary has no answer. Branches are noisy: the true
    answer settles no later on average.
    """
    last = winners(classes[-1]) if len(classes) else frozenset()
    if not last:
        return None
    settled = len(classes) - 1
    while settled > 0 and (last := last & winners(classes[settled - 1])):
        settled -= 1
    return settled
