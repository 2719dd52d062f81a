"""Likelihood: the probabilities of given continuations, all those of a trace in one pass.

The prompts of a trace are its prefixes with a forced suffix each. Their shared prefix is computed once, or is cached.
The rest of every prompt and its continuations are one tree: a node attends to its ancestors and to as much of the
shared prefix as its prompt has. The first forward has all prompts and the first tokens of all continuations, each
further forward the next tokens of those still likely. A mask has (nodes) x (prefix + nodes) entries.

A continuation ends with any one of a set of tokens: the closers of its number.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from headway.engines.hf.batching import MAX_ENTRIES, Size, batches, padded, positions_of
from headway.engines.hf.compat import LanguageModel, shorten
from headway.engines.hf.prefix_cache import Prefixes, SharedPrefix, prefill
from headway.engines.hf.token_tree import LOOKAHEAD, TokenTree, as_rows, build, layout
from headway.types import Prompts, TokenIds


class Ended(NamedTuple):
    """Tokens that may follow a prompt: continuation `number` of the prompt, and which closers end it."""

    number: int
    token_ids: TokenIds
    closers: int


Asked = Sequence[Sequence[Ended]]  # by the place of the prompt
Found = Iterator[tuple[int, int, float]]  # place, number, and the log-probability of the continuation and a closer
Tokens = Sequence[Sequence[TokenIds]]
Closers = Sequence[Int[Tensor, " _"]]
Job = tuple[SharedPrefix, list[TokenTree]]  # several trees if the mask and the logits have no room for one


def score(model: LanguageModel, prefixes: Prefixes, asked: Asked, *, closers: Closers, temperature: float) -> Found:
    """The log-probability of each continuation of the prefixes' requests; needs tree masks."""

    def size(job: Job) -> Size:
        """The size of the largest tree; a prefix with several trees is computed alone."""
        prefix, trees = job
        nodes = max(len(tree.tokens) for tree in trees)
        return Size.of(len(prefix.token_ids), nodes, nodes if len(trees) == 1 else MAX_ENTRIES)

    tokens = [[ended.token_ids for ended in some] for some in asked]
    jobs = [(prefix, _trees(model, prefix, tokens)) for prefix in prefixes]
    jobs.sort(key=lambda job: (len(job[1]), size(job).own, size(job).prefix))
    for batch in batches(jobs, size, model):
        cache, width = prefill(model, [prefix for prefix, _ in batch])
        for trees in zip(*(trees for _, trees in batch), strict=True):
            found = _follow(model, cache, trees, closers=closers, temperature=temperature)
            for tree, logprob in zip(trees, found, strict=True):
                for place, nodes in tree.ends.items():
                    for node, (number, _, closer) in zip(nodes, asked[place], strict=True):
                        yield place, number, float(logprob[node, closer])
            shorten(cache, width)


def _trees(model: LanguageModel, prefix: SharedPrefix, continuations: Tokens) -> list[TokenTree]:
    """The trees of a prefix's requests, each small enough or of one request."""
    tree = build(prefix.requests, continuations)
    nodes, half = len(tree.tokens), len(prefix.requests) // 2
    if not half or Size.of(len(prefix.token_ids), nodes, nodes).has_small_logits(model):
        return [tree]
    halves = prefix.requests[:half], prefix.requests[half:]
    return [t for part in halves for t in _trees(model, prefix._replace(requests=part), continuations)]


def _follow(
    model: LanguageModel, cache: DynamicCache, trees: Sequence[TokenTree], *, closers: Closers, temperature: float
) -> list[Float[np.ndarray, "N S"]]:
    """For each tree, the log-probability at each node of the tokens from its prompt's end to it, and then a closer.

    There is a column for each of the S sets of closers. Continuations are computed a few tokens at a time; those that
    become unlikely are dropped (-inf).
    """
    so_far = [np.where(tree.depth < 0, 0.0, -np.inf) for tree in trees]
    closed = [np.full((len(tree.tokens), len(closers)), -np.inf) for tree in trees]
    done, width = np.full((len(trees), 0), -1), cache.get_seq_length()
    for depth in range(0, 1 + max(0, *(int(tree.depth.max()) for tree in trees)), LOOKAHEAD):
        now = as_rows([tree.frontier(logprob, depth) for tree, logprob in zip(trees, so_far, strict=True)])
        if not now.size:
            break
        ids, sees, position = layout(trees, width, done, now)
        # logits are needed where an answer begins, continues or ends
        below = [np.flatnonzero((t.depth >= 0) & np.isin(t.parent, row)) for t, row in zip(trees, now, strict=True)]
        heads = [np.union1d(t.parent[b], t.empty) for t, b in zip(trees, below, strict=True)]
        used = [(t.depth[row] >= 0) | np.isin(row, head) for t, row, head in zip(trees, now, heads, strict=True)]
        needed = (now >= 0) & np.stack(used)
        columns = np.flatnonzero(needed.any(axis=0))
        logits = model.forward(ids, sees, position, cache, keep=torch.from_numpy(columns)).float() / temperature
        total = logits.logsumexp(dim=-1)
        closing = torch.stack([logits[..., last].logsumexp(dim=-1) - total for last in closers], dim=-1)
        ended = closing.double().cpu().numpy()
        for row, (tree, children) in enumerate(zip(trees, below, strict=True)):
            here = now[row, columns]
            column = np.zeros(len(tree.tokens), dtype=np.int64)
            column[here[here >= 0]] = np.flatnonzero(here >= 0)
            before = torch.from_numpy(column[tree.parent[children]]).to(logits.device)
            token = torch.from_numpy(tree.tokens[children]).to(logits.device)
            step = (logits[row, before, token] - total[row, before]).double().cpu().numpy()
            for node, logprob in zip(children, step, strict=True):
                so_far[row][node] = so_far[row][tree.parent[node]] + logprob
            nodes = now[row, needed[row]]
            closed[row][nodes] = so_far[row][nodes, None] + ended[row, column[nodes]]
        done = np.concatenate([done, now], axis=1)
    return closed


def score_separately(
    model: LanguageModel, prompts: Prompts, asked: Asked, *, closers: Closers, temperature: float
) -> Found:
    """The same for a model that takes no trees: each continuation is computed with the whole of its prompt."""
    rows = [(place, prompts[place].ids, ended) for place, some in enumerate(asked) for ended in some]

    def size(row: tuple[int, TokenIds, Ended]) -> Size:
        _, prompt, (_, answer, _) = row
        return Size.of(0, 2 * (len(prompt) + len(answer)), len(answer) + 1)

    rows.sort(key=lambda row: size(row).own)
    for batch in batches(rows, size, model):
        ids, mask = padded([prompt + ended.token_ids for _, prompt, ended in batch], side="left")
        keep = max(len(ended.token_ids) for *_, ended in batch) + 1
        logits = model.forward(ids, mask, positions_of(mask), keep=keep).float()
        logprobs = (logits / temperature).log_softmax(dim=-1)
        for row, (place, _, (number, answer, closer)) in enumerate(batch):
            token = torch.tensor(answer, dtype=torch.long, device=logits.device)[:, None]
            steps = logprobs[row, -len(answer) - 1 : -1].gather(-1, token)
            closing = logprobs[row, -1, closers[closer]].logsumexp(dim=-1)
            yield place, number, float(steps.double().sum() + closing.double())
