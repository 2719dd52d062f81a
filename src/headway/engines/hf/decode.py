"""The decoding loop: one seed for each request, so samples do not depend on the batch; completions that end leave it.

It has two layouts. *Separate*: each completion is a row with its own copy of the keys and values of its prompt.
*Together*: all completions of a shared prefix are in one row, so that its keys and values are stored and read once.
Every completion also reads, masked, the tokens of the others, so these must be few.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from headway.engines.hf.batching import Size, batches, padded, positions_of
from headway.engines.hf.compat import LanguageModel, shorten
from headway.engines.hf.prefix_cache import Prefixes, SharedPrefix, prefill
from headway.engines.hf.sampler import Decoding, sample_seeds
from headway.engines.hf.token_tree import as_rows, build, layout
from headway.engines.streaming import Parts
from headway.types import Completion, SamplingParams

SHORT = 1024  # tokens that the completions of a shared prefix have together, at most
COMPACT_EVERY = 4  # steps after which completions that have ended may leave

Start = Callable[[np.ndarray], Decoding]  # begins completions, one for each seed


class Queries(NamedTuple):
    """The completions that the next forward continues, Q in each of R rows."""

    number: Tensor  # (R, Q): which completion each is, -1 for none
    position: Tensor  # (R, Q): of its last token
    sees: Tensor  # what this token attends to: (R, Q, columns), or (R, columns) where each row is one completion


def sample_separately(
    model: LanguageModel, prefixes: Prefixes, params: SamplingParams, start: Start, done: Collection[int] = ()
) -> Parts:
    """The completions of each request, each in a row of its own; a batch at a time, but those that are all done."""

    def size(prefix: SharedPrefix) -> Size:
        own = max(len(r.prompt) - r.shared for r in prefix.requests) + params.max_tokens
        return Size.of(len(prefix.token_ids), own, 1, rows=len(prefix.requests) * params.n)

    parts: list[SharedPrefix] = []
    for prefix in sorted(prefixes, key=lambda p: max(len(r.prompt) for r in p.requests)):
        some = prefix.requests
        most = max(1, len(some) * model.max_tokens // (2 * size(prefix).needed))
        parts += [prefix._replace(requests=some[k : k + most]) for k in range(0, len(some), most)]
    for batch in batches(parts, size, model, max_padded=math.inf):
        requests = [r for prefix in batch for r in prefix.requests]
        if all(r.place in done for r in requests):
            continue
        cache, width = prefill(model, batch)
        if width:
            prefix_of = [k for k, prefix in enumerate(batch) for _ in prefix.requests]
            cache.batch_select_indices(torch.tensor(prefix_of, device=model.model.device))
        ids, own = padded([r.own for r in requests], side="left")
        sees = torch.cat([torch.arange(width) < torch.tensor([[r.shared] for r in requests]), own], dim=1)
        position = positions_of(sees)[:, -ids.shape[1] :]
        logits = model.forward(ids, sees, position, cache, keep=1)
        cache.batch_repeat_interleave(params.n)
        number = torch.arange(len(requests) * params.n)[:, None]
        last, sees, logits = (x.repeat_interleave(params.n, 0) for x in (position[:, -1:], sees, logits))
        decoding = start(sample_seeds([r.seed for r in requests], params.n).reshape(-1))
        sampled = decode(model, cache, decoding, Queries(number, last, sees), logits)
        yield {r.place: sampled[k * params.n : (k + 1) * params.n] for k, r in enumerate(requests)}


def sample_together(
    model: LanguageModel, prefixes: Prefixes, params: SamplingParams, start: Start, done: Collection[int] = ()
) -> Parts:
    """As `sample_separately`, with the completions of a shared prefix in one row; the model must take trees."""

    def at_once(prefix: SharedPrefix) -> int:
        """How many completions of each prompt are decoded together."""
        return min(params.n, max(1, SHORT // (len(prefix.requests) * params.max_tokens)))

    def size(prefix: SharedPrefix) -> Size:
        branches = len(prefix.requests) * at_once(prefix)
        own = sum(len(r.prompt) - r.shared for r in prefix.requests) + branches * params.max_tokens
        return Size.of(0, len(prefix.token_ids) + own, branches)

    for batch in batches(sorted(prefixes, key=lambda p: (len(p.requests), len(p.token_ids))), size, model):
        found: dict[int, list[Completion]] = defaultdict(list)
        requests = [r for prefix in batch for r in prefix.requests]
        if all(r.place in done for r in requests):
            continue
        cache, _ = prefill(model, batch)
        queries, logits = _after_prompts(model, cache, batch)
        for first in range(0, params.n, at_once(batch[-1])):
            n = min(at_once(batch[-1]), params.n - first)
            of_request, position, sees = (x.repeat_interleave(n, 1) for x in queries)
            number = of_request * n + torch.arange(n).repeat(queries.number.shape[1])
            seeds = sample_seeds([r.seed for r in requests], first + n)[:, first:].reshape(-1)
            several = Queries(number.where(of_request >= 0, -1), position, sees)
            sampled = decode(model, cache, start(seeds), several, logits.repeat_interleave(n, 1))
            for k, request in enumerate(requests):
                found[request.place] += sampled[k * n : (k + 1) * n]
            shorten(cache, queries.sees.shape[2])
        yield dict(found)


def _after_prompts(model: LanguageModel, cache: DynamicCache, prefixes: Prefixes) -> tuple[Queries, Tensor]:
    """Computes the rest of each prompt: one query for each request, after its last token, and its logits."""
    trees = [build(prefix.requests, {r.place: [()] for r in prefix.requests}) for prefix in prefixes]
    nodes = as_rows([np.arange(len(tree.tokens)) for tree in trees])
    ids, sees, position = layout(trees, cache.get_seq_length(), nodes[:, :0], nodes)
    last = torch.from_numpy(as_rows([np.array(list(tree.ends.values()))[:, 0] for tree in trees]))
    number = torch.full(last.shape, -1)
    number[last >= 0] = torch.arange(int((last >= 0).sum()))
    row, node = torch.arange(len(trees))[:, None], last.clamp(min=0)
    needed, column = torch.unique(node, return_inverse=True)
    logits = model.forward(ids, sees, position, cache, keep=needed)
    logits = logits[row.to(logits.device), column.to(logits.device)]
    return Queries(number, position[row, node], sees[row, node]), logits


def decode(
    model: LanguageModel, cache: DynamicCache, decoding: Decoding, queries: Queries, logits: Tensor
) -> list[Completion]:
    """Samples all completions to their ends; `logits` (R, Q, V) are those of their first tokens."""
    number, position, sees = queries
    separate = sees.ndim == 2
    row = torch.arange(len(number))[:, None]
    for t in range(decoding.max_tokens):
        there = number >= 0
        tokens = torch.zeros_like(number)
        tokens[there] = decoding.step(number[there], logits[there.to(logits.device)].float(), t)
        alive = there.clone()
        alive[there] = ~decoding.ended[number[there]]
        if t + 1 == decoding.max_tokens or not alive.any():
            break
        if t % COMPACT_EVERY == COMPACT_EVERY - 1:
            if not separate:
                # completions that go on move to the front of their row, and all rows end with the longest
                order = alive.int().argsort(dim=1, descending=True, stable=True)[:, : int(alive.sum(dim=1).max())]
                tokens, number, position, alive = (x.gather(1, order) for x in (tokens, number, position, alive))
                number, sees = number.where(alive, -1), sees[row, order]
            elif alive.sum() <= len(alive) * 3 // 4:  # fewer rows are worth a copy of the cache
                left = alive[:, 0].nonzero().squeeze(1)
                cache.batch_select_indices(left.to(logits.device))
                tokens, number, position, sees = (x[left] for x in (tokens, number, position, sees))
        position = position + 1
        itself = torch.eye(number.shape[1], dtype=torch.bool).expand(len(number), -1, -1)
        sees = torch.cat([sees, itself[:, 0] if separate else itself], dim=-1)
        logits = model.forward(tokens, sees, position, cache)
    return decoding.completions()
