"""Likelihood: the probabilities of given continuations, all those of a trace in one pass.

The prompts of a trace are its prefixes with a forced suffix each. Their shared prefix is computed once, with the
model's own causal attention, or is cached. The rest of every prompt and its continuations are one tree: a node attends
to its ancestors and to as much of the shared prefix as its prompt has, and its position is the one in its own prompt.
The first forward has all prompts and the first tokens of all continuations, each further forward the next tokens of
those that are still likely. A mask has (nodes) x (prefix + nodes) entries: linear in the length of the trace.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import DynamicCache

from headway.engines.hf.batching import MAX_ENTRIES, Size, batches, padded, positions_of
from headway.engines.hf.compat import LanguageModel, shorten
from headway.engines.hf.prefix_cache import SharedPrefix, prefill
from headway.engines.hf.token_tree import LOOKAHEAD, TokenTree, as_rows, build, layout
from headway.types import Prompt, TokenIds


class Scoring(NamedTuple):
    """What a continuation's probability means: the tokens that end it, and the temperature."""

    closers: torch.Tensor
    temperature: float


class Job(NamedTuple):
    """A shared prefix and its trees: one, or as many as the mask and the logits have no room for at once."""

    prefix: SharedPrefix
    trees: list[TokenTree]

    @property
    def size(self) -> Size:
        """Of the largest tree; a prefix with several trees is computed alone."""
        nodes = max(len(tree.tokens) for tree in self.trees)
        return Size.of(len(self.prefix.token_ids), nodes, nodes if len(self.trees) == 1 else MAX_ENTRIES)


def score(
    model: LanguageModel,
    prefixes: Sequence[SharedPrefix],
    continuations: Sequence[Sequence[TokenIds]],
    scoring: Scoring,
) -> Iterator[tuple[int, list[float]]]:
    """The place of each request, and the log-probability of each of its continuations and then an end.

    The model must take trees.
    """
    jobs = [Job(prefix, _trees(model, prefix, continuations)) for prefix in prefixes]
    jobs.sort(key=lambda job: (len(job.trees), job.size.own, job.size.prefix))
    for batch in batches(jobs, lambda job: job.size, model):
        cache, width = prefill(model, [job.prefix for job in batch])
        for trees in zip(*(job.trees for job in batch), strict=True):
            for tree, logprob in zip(trees, _Scorer(model, cache, width, trees, scoring).run(), strict=True):
                yield from ((place, logprob[ends].tolist()) for place, ends in tree.ends.items())
            shorten(cache, width)


def _trees(model: LanguageModel, prefix: SharedPrefix, continuations: Sequence[Sequence[TokenIds]]) -> list[TokenTree]:
    """The trees of a prefix's requests, each small enough or of one request."""
    tree = build(prefix.requests, continuations)
    nodes, half = len(tree.tokens), len(prefix.requests) // 2
    if not half or Size.of(len(prefix.token_ids), nodes, nodes).has_small_logits(model):
        return [tree]
    halves = prefix.requests[:half], prefix.requests[half:]
    return [t for part in halves for t in _trees(model, prefix._replace(requests=part), continuations)]


class _Scorer:
    """The log-probabilities at the nodes of some trees, one for each row of the cache."""

    def __init__(
        self, model: LanguageModel, cache: DynamicCache, width: int, trees: Sequence[TokenTree], scoring: Scoring
    ) -> None:
        self._model, self._cache, self._width, self._trees, self._scoring = model, cache, width, trees, scoring
        self._so_far = [np.where(tree.depth < 0, 0.0, -np.inf) for tree in trees]
        self._closed = [np.full(len(tree.tokens), -np.inf) for tree in trees]

    def run(self) -> list[Float[np.ndarray, " N"]]:
        """At each node of each tree the log-probability of the tokens from its prompt's end to it, and then an end.

        Continuations are computed a few tokens at a time; those that become unlikely are dropped (-inf).
        """
        done = np.full((len(self._trees), 0), -1)
        for depth in range(0, 1 + max(int(tree.depth.max()) for tree in self._trees), LOOKAHEAD):
            now = as_rows(
                [tree.frontier(logprob, depth) for tree, logprob in zip(self._trees, self._so_far, strict=True)]
            )
            if not now.size:
                break
            self._forward(done, now)
            done = np.concatenate([done, now], axis=1)
        return self._closed

    def _forward(self, done: Int[np.ndarray, "R C"], now: Int[np.ndarray, "R N"]) -> None:
        """Computes the nodes `now`: how likely their children are, and an end after them."""
        ids, sees, position = layout(self._trees, self._width, done, now)
        # logits are needed where an answer begins, goes on or ends
        children = [
            np.flatnonzero((tree.depth >= 0) & np.isin(tree.parent, row))
            for tree, row in zip(self._trees, now, strict=True)
        ]
        needed = np.zeros(now.shape, dtype=bool)
        for row, tree in enumerate(self._trees):
            parents = tree.parent[children[row]]
            needed[row] = (now[row] >= 0) & ((tree.depth[now[row]] >= 0) | np.isin(now[row], parents))
        columns = np.flatnonzero(needed.any(axis=0))
        kept = self._model.forward(ids, sees, position, self._cache, keep=torch.from_numpy(columns))
        logits = kept.float() / self._scoring.temperature
        total = logits.logsumexp(dim=-1)
        closing = (logits[..., self._scoring.closers].logsumexp(dim=-1) - total).double().cpu().numpy()
        for row, tree in enumerate(self._trees):
            so_far, here = self._so_far[row], now[row, columns]
            column = np.zeros(len(tree.tokens), dtype=np.int64)
            column[here[here >= 0]] = np.flatnonzero(here >= 0)
            before = torch.from_numpy(column[tree.parent[children[row]]]).to(logits.device)
            token = torch.from_numpy(tree.tokens[children[row]]).to(logits.device)
            step = (logits[row, before, token] - total[row, before]).double().cpu().numpy()
            for node, logprob in zip(children[row], step, strict=True):
                so_far[node] = so_far[tree.parent[node]] + logprob
            nodes = now[row, needed[row]]
            self._closed[row][nodes] = so_far[nodes] + closing[row, column[nodes]]


def score_separately(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    continuations: Sequence[Sequence[TokenIds]],
    scoring: Scoring,
) -> list[list[float]]:
    """The same for a model that takes no trees: each continuation is computed with the whole of its prompt."""
    rows = [(i, k, prompts[i].ids, answer) for i, some in enumerate(continuations) for k, answer in enumerate(some)]
    rows.sort(key=lambda row: len(row[2]) + len(row[3]))
    out = [[0.0] * len(some) for some in continuations]
    for batch in batches(rows, lambda r: Size.of(0, 2 * (len(r[2]) + len(r[3])), len(r[3]) + 1), model):
        ids, mask = padded([prompt + answer for *_, prompt, answer in batch], side="left")
        keep = max(len(answer) for *_, answer in batch) + 1
        logits = model.forward(ids, mask, positions_of(mask), keep=keep).float()
        logprobs = (logits / scoring.temperature).log_softmax(dim=-1)
        closing = logprobs[:, -1, scoring.closers].logsumexp(dim=-1)
        for row, (place, k, _, answer) in enumerate(batch):
            token = torch.tensor(answer, device=logits.device)[:, None]
            steps = logprobs[row, -len(answer) - 1 : -1].gather(-1, token)
            out[place][k] = float(steps.double().sum() + closing[row].double())
    return out
