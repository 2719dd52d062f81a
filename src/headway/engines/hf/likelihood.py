"""Probabilities of given continuations, all those of a trace in one pass.

The prompts of a trace are its prefixes with a forced suffix each. What they share, the trunk, is computed once, with
the model's own causal attention, or is there already. The rest of every prompt and its continuations are one tree,
computed in forwards that read the trunk's keys and values: a node sees its ancestors and as much of the trunk as its
prompt has, and its position is the one it has in its own prompt. The first forward has all prompts and the first
tokens of all continuations, each further one the next tokens of those that are still likely. A mask has (nodes) x
(trunk + nodes) entries: linear in the length of the trace, so that no dense square over the trace is ever made.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import DynamicCache

from headway.engines.prefill import Kept, prefill, shorten
from headway.engines.trees import ENTRIES, MOST_PADDED, WAVE, Tree, additive, aligned, grow, layout
from headway.engines.trunks import Trunk, padded, positions_of
from headway.types import TokenIds


@torch.no_grad()
def score(
    model: Any,
    trunks: Sequence[Trunk],
    continuations: Sequence[Sequence[TokenIds]],
    closers: torch.Tensor,
    *,
    temperature: float,
    most_tokens: int,
    kept: Kept | None = None,
) -> dict[int, list[float]]:
    """For the request at each place, the log-probability of each of its continuations, and then any of `closers`.

    The model must attend to all that its mask allows (no sliding window) and take a 4-D mask. Trunks of like length
    are computed together, `most_tokens` of them at most, and trees in as many forwards as their masks need.
    """
    vocabulary = model.config.get_text_config().vocab_size
    jobs = [Job(trunk, _trees(trunk, continuations, vocabulary)) for trunk in trunks]
    out: dict[int, list[float]] = {}
    for batch in _batches(jobs, most_tokens, vocabulary):
        cache, width = DynamicCache(config=model.config), max(len(job.trunk.token_ids) for job in batch)
        prefill(model, cache, [job.trunk for job in batch], kept)
        for trees in zip(*(job.trees for job in batch), strict=True):
            for tree, logprob in zip(trees, _follow(model, cache, trees, width, closers, temperature), strict=True):
                out.update({place: logprob[ends].tolist() for place, ends in tree.ends.items()})
            shorten(cache, width)
    return out


class Job(NamedTuple):
    """A trunk and its trees: one, or as many as the mask and the logits have no room for at once."""

    trunk: Trunk
    trees: list[Tree]

    @property
    def nodes(self) -> int:
        """Of the largest tree."""
        return max(len(tree.tokens) for tree in self.trees)


def _trees(trunk: Trunk, continuations: Sequence[Sequence[TokenIds]], vocabulary: int) -> list[Tree]:
    """The trees of a trunk's requests, each small enough or of one request."""
    tree = grow(trunk.requests, continuations)
    nodes, most = len(tree.tokens), len(trunk.requests)
    if nodes * max(len(trunk.token_ids) + nodes, vocabulary) <= ENTRIES or most == 1:
        return [tree]
    halves = trunk.requests[: most // 2], trunk.requests[most // 2 :]
    return [t for half in halves for t in _trees(trunk._replace(requests=half), continuations, vocabulary)]


def _batches(jobs: Sequence[Job], most_tokens: int, vocabulary: int) -> Iterator[list[Job]]:
    """Jobs of like size together, as far as little is lost to padding and memory has room; at least one."""
    batch: list[Job] = []
    for job in sorted(jobs, key=lambda j: (len(j.trees), j.nodes, len(j.trunk.token_ids))):
        if batch:
            together = [*batch, job]
            rows, width, nodes = len(together), max(len(j.trunk.token_ids) for j in together), job.nodes
            needed = sum(len(j.trunk.token_ids) + j.nodes for j in together)
            if (
                len(job.trees) > 1
                or rows * (width + nodes) > min(most_tokens, MOST_PADDED * needed)
                or rows * nodes * max(width + nodes, vocabulary) > ENTRIES
            ):
                yield batch
                batch = []
        batch.append(job)
    if batch:
        yield batch


def _follow(
    model: Any, cache: DynamicCache, trees: Sequence[Tree], width: int, closers: torch.Tensor, temperature: float
) -> list[Float[np.ndarray, " N"]]:
    """For each tree, the log-probability at each node of the tokens from its prompt's end to it, and then a closer.

    Continuations are computed a few tokens at a time, and what has become unlikely is not followed (-inf).
    """
    so_far = [np.where(tree.depth < 0, 0.0, -np.inf) for tree in trees]
    closed = [np.full(len(tree.tokens), -np.inf) for tree in trees]
    done = np.full((len(trees), 0), -1)
    for depth in range(0, 1 + max(int(tree.depth.max()) for tree in trees), WAVE):
        now = aligned([tree.due(logprob, depth) for tree, logprob in zip(trees, so_far, strict=True)])
        if not now.size:
            break
        _forward(model, cache, trees, width, done, now, so_far, closed, closers, temperature)
        done = np.concatenate([done, now], axis=1)
    return closed


def _forward(
    model: Any,
    cache: DynamicCache,
    trees: Sequence[Tree],
    width: int,
    done: Int[np.ndarray, "R C"],
    now: Int[np.ndarray, "R N"],
    so_far: Sequence[np.ndarray],
    closed: Sequence[np.ndarray],
    closers: torch.Tensor,
    temperature: float,
) -> None:
    """Computes the nodes `now` and writes down how likely they, their children and an end after them are."""
    device = model.device
    ids, place, sees = layout(trees, width, done, now)

    # logits are needed where an answer begins, goes on or ends
    below = [
        np.flatnonzero((tree.depth >= 0) & np.isin(tree.parent, row)) for tree, row in zip(trees, now, strict=True)
    ]
    needed = np.zeros(now.shape, dtype=bool)
    for row, tree in enumerate(trees):
        needed[row] = (now[row] >= 0) & ((tree.depth[now[row]] >= 0) | np.isin(now[row], tree.parent[below[row]]))
    kept = np.flatnonzero(needed.any(axis=0))
    out = model(
        input_ids=ids.to(device),
        attention_mask=additive(sees.to(device), model.dtype),
        position_ids=place.to(device),
        past_key_values=cache,
        logits_to_keep=torch.from_numpy(kept).to(device),
    )
    logits = out.logits.float() / temperature
    total = logits.logsumexp(dim=-1)
    closing = (logits[..., closers].logsumexp(dim=-1) - total).double().cpu().numpy()
    for row, tree in enumerate(trees):
        column = np.zeros(len(tree.tokens), dtype=np.int64)
        there = now[row, kept] >= 0
        column[now[row, kept][there]] = np.flatnonzero(there)
        children = below[row]
        before = torch.from_numpy(column[tree.parent[children]]).to(device)
        token = torch.from_numpy(tree.tokens[children]).to(device)
        step = (logits[row, before, token] - total[row, before]).double().cpu().numpy()
        for node, logprob in zip(children, step, strict=True):
            so_far[row][node] = so_far[row][tree.parent[node]] + logprob
        nodes = now[row, needed[row]]
        closed[row][nodes] = so_far[row][nodes] + closing[row, column[nodes]]


@torch.no_grad()
def score_separately(
    model: Any,
    prompts: Sequence[TokenIds],
    continuations: Sequence[Sequence[TokenIds]],
    closers: torch.Tensor,
    *,
    temperature: float,
    most_tokens: int,
) -> list[list[float]]:
    """The same for a model that cannot take a tree: each continuation is computed with the whole of its prompt."""
    rows = sorted(
        ((place, k) for place, some in enumerate(continuations) for k in range(len(some))),
        key=lambda at: len(prompts[at[0]]) + len(continuations[at[0]][at[1]]),
    )
    out = [[0.0] * len(some) for some in continuations]
    while rows:
        longest = len(prompts[rows[-1][0]]) + len(continuations[rows[-1][0]][rows[-1][1]])
        few = max(1, most_tokens // (2 * longest))
        batch, rows = rows[-few:], rows[:-few]
        answers = [continuations[place][k] for place, k in batch]
        sequences = [prompts[place] + answer for (place, _), answer in zip(batch, answers, strict=True)]
        ids, mask = padded(sequences, side="left", device=model.device)
        keep = max(map(len, answers)) + 1
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False, logits_to_keep=keep
        ).logits.float()
        logprobs = (logits / temperature).log_softmax(dim=-1)
        closing = logprobs[:, -1, closers].logsumexp(dim=-1)
        for row, ((place, k), answer) in enumerate(zip(batch, answers, strict=True)):
            steps = logprobs[row, -len(answer) - 1 : -1].gather(-1, ids[row, -len(answer) :, None])
            out[place][k] = float(steps.double().sum() + closing[row].double())
    return out
