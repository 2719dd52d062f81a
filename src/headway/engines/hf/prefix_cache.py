"""The keys and values of trunks: computed, or taken from what the model has computed already.

A trainer that samples with its own model computes the keys and values of every trace while it samples. `recording`
keeps them, and the values of a trace's boundaries then cost their own tokens only.
"""

from bisect import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from headway.engines.cache import RoomyLayer
from headway.engines.trunks import Request, Trunk, common, padded, positions_of
from headway.types import TokenIds

LACKS = 64  # tokens of a prompt that its kept row may lack, or half of them
_LAYERS = DynamicLayer, RoomyLayer  # a subclass of theirs may forget tokens


class Kept:
    """Sequences whose keys and values a model has computed, a row of its cache each.

    Args:
        cache: The cache, full attention in every layer.
        token_ids: What it has computed, (rows, columns).
        mask: 1 where a column is a token of its row, 0 where it is padding; padding comes first.
    """

    def __init__(self, cache: DynamicCache, token_ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._cache = cache
        self._first = (mask.shape[1] - mask.sum(dim=1)).tolist()
        rows = [tuple(ids[first:]) for ids, first in zip(token_ids.tolist(), self._first, strict=True)]
        self._ordered = sorted((ids, row) for row, ids in enumerate(rows))

    def trunks(self, requests: Sequence[Request]) -> tuple[list[Trunk], list[Request]]:
        """Trunks that are kept, for neighbouring requests that begin with them; and the requests that have none.

        Read from the end, since the prompts of a trace come shortest first: the shortest begin like others as well.
        """
        trunks: list[Trunk] = []
        rest: list[Request] = []
        for request in reversed(requests):
            row, ids, shared = self._longest(request.prompt)
            if not shared or len(request.prompt) - shared > max(LACKS, shared):
                rest.append(request)
                continue
            if not trunks or common(request.prompt, trunks[-1].token_ids) < shared:
                trunks.append(Trunk(ids, [], row))
            trunks[-1].requests.append(request._replace(shared=shared))
        return [t._replace(token_ids=t.token_ids[: max(r.shared for r in t.requests)]) for t in trunks], rest[::-1]

    def copy(self, trunks: Sequence[Trunk], cache: DynamicCache) -> None:
        """Copies kept trunks into an empty cache, right-padded."""
        width = max(len(t.token_ids) for t in trunks)
        places = [(t.row, self._first[t.row or 0], len(t.token_ids)) for t in trunks]
        for index, layer in enumerate(self._cache.layers):
            both = []
            for old in (layer.keys, layer.values):
                new = old.new_zeros(len(trunks), old.shape[1], width, old.shape[3])
                for k, (row, first, length) in enumerate(places):
                    new[k, :, :length] = old[row, :, first : first + length]
                both.append(new)
            cache.update(*both, index)

    def _longest(self, prompt: TokenIds) -> tuple[int, TokenIds, int]:
        """The row that has most of a prompt, what it has, and how much of the prompt; never its last token."""
        at = bisect(self._ordered, (prompt, len(self._ordered)))
        near = self._ordered[max(0, at - 1) : at + 1]
        shared, ids, row = max((min(common(prompt, ids), len(prompt) - 1), ids, row) for ids, row in near)
        return row, ids, shared


class Recorder:
    """What a model computes while it generates; `kept` is its last cache, None where there is none to be had."""

    def __init__(self) -> None:
        self._cache: Any = None
        self._ids: list[torch.Tensor] = []
        self._mask: Any = None

    def __call__(self, module: Any, args: Any, options: dict[str, Any]) -> None:
        """Sees a forward before it runs."""
        cache, ids, mask = (options.get(name) for name in ("past_key_values", "input_ids", "attention_mask"))
        if cache is None:
            return
        if cache is not self._cache:
            self._cache, self._ids = cache, []
            if _is_whole(cache, 0):
                cache.layers = [RoomyLayer() for _ in cache.layers]
        self._ids += [] if ids is None else [ids]
        self._mask = mask

    @property
    def kept(self) -> Kept | None:
        """The rows of the last cache, if it has all that was put in, and nothing else."""
        if not self._ids:
            return None
        ids = torch.cat(self._ids, dim=1)
        mask = torch.ones_like(ids) if self._mask is None else self._mask  # None where no row is padded
        whole = _is_whole(self._cache, ids.shape[1]) and ids.shape == mask.shape
        return Kept(self._cache, ids, mask) if whole else None


def _is_whole(cache: Any, length: int) -> bool:
    """Whether each layer of a cache attends to everything and has so many tokens."""
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(type(a) in _LAYERS and a.get_seq_length() == length for a in layers)


@contextmanager
def recording(model: Any) -> Iterator[Recorder]:
    """Records what a model, or the model below its adapters, computes while it generates.

    Its cache then grows in place. A model that drops out while it generates has nothing to keep: it is another model
    at every token.
    """
    recorder = Recorder()
    below = model.get_base_model() if hasattr(model, "get_base_model") else model
    if below.training and _drops_out(below):
        yield recorder
        return
    hook = below.register_forward_pre_hook(recorder, with_kwargs=True)
    try:
        yield recorder
    finally:
        hook.remove()


def _drops_out(model: Any) -> bool:
    attention = getattr(model.config.get_text_config(), "attention_dropout", 0)
    return bool(attention) or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


def prefill(model: Any, cache: DynamicCache, trunks: Sequence[Trunk], kept: Kept | None) -> None:
    """Trunks into an empty cache, right-padded: all from what is kept, or else by the model's own causal attention."""
    if kept is not None and trunks[0].row is not None:
        kept.copy(trunks, cache)
    elif any(trunk.token_ids for trunk in trunks):
        ids, mask = padded([trunk.token_ids for trunk in trunks], side="right", device=model.device)
        model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions_of(mask),
            past_key_values=cache,
            logits_to_keep=1,
        )


def shorten(cache: DynamicCache, width: int) -> None:
    """Forgets all but the first columns."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys, layer.values = layer.keys[..., :width, :], layer.values[..., :width, :]
