"""Short branches beside each other: all boundaries of a trace and all their samples in one row.

A row is a trunk, computed once. After it come the rest of each prompt and then, one token a step, every branch. A
branch sees its prompt and its own tokens. So the keys and values of a trunk are kept once, whatever the number of
branches, and each step reads them once for all of them; what it costs is that the branches' own tokens, few and
short, are read by all and masked.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from headway.engines.cache import RoomyLayer
from headway.engines.choosing import Writing, sample_seeds
from headway.engines.prefill import Kept, prefill, shorten
from headway.engines.trees import ENTRIES, MOST_PADDED, additive, aligned, grow, layout
from headway.engines.trunks import Trunk
from headway.types import Completion, SamplingParams

SHORT = 1024  # tokens that the branches of a trunk have together, at most
COMPACT_EVERY = 4  # steps between looks at whether ended branches should leave


def sample(
    model: Any,
    trunks: Sequence[Trunk],
    params: SamplingParams,
    writer: Callable[[np.ndarray], Writing],
    *,
    most_tokens: int,
    kept: Kept | None = None,
) -> Iterator[tuple[int, list[Completion]]]:
    """For the request at each place, its `params.n` completions, as many at a time as pay to be beside each other."""
    for batch in _batches(trunks, params, most_tokens, model.config.get_text_config().vocab_size):
        drawn: dict[int, list[Completion]] = {}
        at_once = _at_once(batch[-1], params)
        cache, width = DynamicCache(config=model.config), max(len(trunk.token_ids) for trunk in batch)
        cache.layers = [RoomyLayer() for _ in cache.layers]
        prefill(model, cache, batch, kept)
        for first in range(0, params.n, at_once):
            some = range(first, min(first + at_once, params.n))
            for place, completions in _sample_batch(model, cache, width, batch, some, params.max_tokens, writer):
                drawn.setdefault(place, []).extend(completions)
            shorten(cache, width)
        yield from drawn.items()


def _at_once(trunk: Trunk, params: SamplingParams) -> int:
    """How many samples of each prompt are decoded beside each other: their tokens are read by all, so not too many."""
    return min(params.n, max(1, SHORT // (len(trunk.requests) * params.max_tokens)))


def _batches(
    trunks: Sequence[Trunk], params: SamplingParams, most_tokens: int, vocabulary: int
) -> Iterator[list[Trunk]]:
    """Trunks of like size together, as far as little is lost to padding and memory has room; at least one."""

    def tokens(trunk: Trunk) -> int:
        rest = sum(len(r.prompt) - r.shared for r in trunk.requests)
        return len(trunk.token_ids) + rest + len(trunk.requests) * _at_once(trunk, params) * params.max_tokens

    batch: list[Trunk] = []
    for trunk in sorted(trunks, key=lambda t: (len(t.requests), len(t.token_ids))):
        if batch:
            together = [*batch, trunk]
            rows, width = len(together), max(map(tokens, together))
            branches = len(trunk.requests) * _at_once(trunk, params)
            if (
                rows * width > min(most_tokens, MOST_PADDED * sum(map(tokens, together)))
                or rows * branches * max(width, vocabulary) > ENTRIES
            ):
                yield batch
                batch = []
        batch.append(trunk)
    if batch:
        yield batch


def _sample_batch(
    model: Any,
    cache: DynamicCache,
    width: int,
    trunks: Sequence[Trunk],
    some: range,
    max_tokens: int,
    writer: Callable[[np.ndarray], Writing],
) -> list[tuple[int, list[Completion]]]:
    """The samples `some` of each prompt, after trunks of at most `width` in the cache."""
    device, n = model.device, len(some)
    # the last token of each prompt is the node that its branches go on from
    requests = [r for t in trunks for r in t.requests]
    trees = [
        grow([r._replace(prompt=r.prompt[:-1]) for r in t.requests], {r.place: [r.prompt[-1:]] for r in t.requests})
        for t in trunks
    ]
    nodes = aligned([np.arange(len(tree.tokens)) for tree in trees])
    ids, place, sees = layout(trees, width, nodes[:, :0], nodes)
    writing = writer(sample_seeds([r.seed for r in requests], some.stop)[:, some.start :].reshape(-1))

    # branch[row, q] is the completion that query q of a row writes, -1 for none
    most = max(len(t.requests) for t in trunks) * n
    branch = torch.full((len(trunks), most), -1)
    node = torch.zeros(len(trunks), most, dtype=torch.long)
    first = 0
    for row, (trunk, tree) in enumerate(zip(trunks, trees, strict=True)):
        here = len(trunk.requests) * n
        branch[row, :here] = torch.arange(first, first + here)
        node[row, :here] = torch.tensor([tree.ends[r.place][0] for r in trunk.requests]).repeat_interleave(n)
        first += here
    kept, column = torch.unique(node, return_inverse=True)
    out = model(
        input_ids=ids.to(device),
        attention_mask=additive(sees.to(device), model.dtype),
        position_ids=place.to(device),
        past_key_values=cache,
        logits_to_keep=kept.to(device),
    )
    row_of = torch.arange(len(trunks))[:, None]
    sees, place = sees[row_of, node], place[row_of, node]
    logits = out.logits[row_of.to(device), column.to(device)]
    for t in range(max_tokens):
        there = branch >= 0
        chosen = writing.write(branch[there], logits[there.to(device)].float(), t).cpu()
        alive = there.clone()
        alive[there] = ~writing.ended[branch[there]]
        if t + 1 == max_tokens or not alive.any():
            break
        tokens = torch.zeros_like(branch)
        tokens[there] = chosen
        if t % COMPACT_EVERY == COMPACT_EVERY - 1:
            # those that go on move to the front, and the row ends with the longest
            order = alive.int().argsort(dim=1, descending=True, stable=True)[:, : int(alive.sum(dim=1).max())]
            tokens, branch, place = tokens.gather(1, order), branch.gather(1, order), place.gather(1, order)
            branch = branch.where(alive.gather(1, order), -1)
            sees = sees[row_of, order]
        place = place + 1
        itself = torch.eye(branch.shape[1], dtype=torch.bool).expand(len(trunks), -1, -1)
        sees = torch.cat([sees, itself], dim=2)
        logits = model(
            input_ids=tokens.to(device),
            attention_mask=additive(sees.to(device), model.dtype),
            position_ids=place.to(device),
            past_key_values=cache,
        ).logits
    drawn = writing.completions()
    return [(r.place, drawn[k * n : k * n + n]) for k, r in enumerate(requests)]
