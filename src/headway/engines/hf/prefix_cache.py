"""Shared prefixes of prompts, computed once, and the KV cache rows that a trainer's sampling has computed already."""

from bisect import bisect
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from transformers import DynamicCache

from headway.engines.hf.batching import padded, positions_of
from headway.engines.hf.compat import LanguageModel, Recorder
from headway.types import Prompt, TokenIds


class Request(NamedTuple):
    """One prompt of a call: its place, its seed, and how many of its first tokens are in its shared prefix."""

    place: int
    prompt: Prompt
    seed: int = 0
    shared: int = 0

    @property
    def own(self) -> TokenIds:
        """The tokens after the shared prefix; at least one."""
        return self.prompt.ids[self.shared :]


class PrefixCache:
    """Sequences whose keys and values a model has computed, one row of its KV cache each.

    A trainer that samples with its own model has them for every trace; values at boundaries then cost only their own
    tokens. `mask` (rows, columns) is 1 for the tokens `token_ids` and 0 for padding, which comes first.
    """

    def __init__(self, cache: DynamicCache, token_ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._cache, self._first = cache, (mask.shape[1] - mask.sum(dim=1)).tolist()
        rows = zip(token_ids.tolist(), self._first, strict=True)
        self._ordered = sorted((tuple(ids[first:]), row) for row, (ids, first) in enumerate(rows))

    @classmethod
    def recorded(cls, recorder: Recorder) -> "PrefixCache | None":
        """What a model has computed while it was recorded; None if it cannot be reused."""
        computed = recorder.computed()
        return cls(*computed) if computed else None

    def find(self, base: TokenIds) -> tuple[int, int] | None:
        """The row that holds a base and how many of its tokens; its last token may be missing (never computed)."""
        at = bisect(self._ordered, (base,))
        for ids, row in self._ordered[max(0, at - 1) : at + 1][::-1]:
            if (length := _common(base, ids)) >= len(base) - 1:
                return row, length
        return None

    def copy(self, prefixes: "Prefixes", cache: DynamicCache) -> None:
        """Copies prefixes of its rows into an empty cache, right-padded."""
        width = max(len(p.token_ids) for p in prefixes)
        for index, layer in enumerate(self._cache.layers):
            both = []
            for old in (layer.keys, layer.values):
                new = old.new_zeros(len(prefixes), old.shape[1], width, old.shape[3])
                for k, prefix in enumerate(prefixes):
                    first, length = self._first[prefix.row], len(prefix.token_ids)
                    new[k, :, :length] = old[prefix.row, :, first : first + length]
                both.append(new)
            cache.update(*both, index)


class SharedPrefix(NamedTuple):
    """Tokens that are computed once, and the requests that begin with some of them; `row` of `cache` has them."""

    token_ids: TokenIds
    requests: Sequence[Request]
    cache: PrefixCache | None = None
    row: int = 0


Prefixes = Sequence[SharedPrefix]


def alone(requests: Sequence[Request]) -> list[SharedPrefix]:
    """Requests that share nothing."""
    return [SharedPrefix((), [request]) for request in requests]


def shared_prefixes(requests: Sequence[Request], cache: PrefixCache | None) -> list[list[SharedPrefix]]:
    """Groups neighbouring requests by their base: those that the cache holds, and the others; no batch mixes the two.

    A prefix is what others or the cache share of the longest prompt. The last token of each prompt is left to compute,
    for its logits. Longer prompts, which are the last of a trace, come first.
    """
    cached: list[SharedPrefix] = []
    rest: list[SharedPrefix] = []
    for base, group in groupby(reversed(requests), key=lambda r: r.prompt.base):
        some = list(group)
        found = cache.find(base) if cache else None
        longest = max(some, key=lambda r: r.prompt.stop).prompt.ids if len(some) > 1 else ()  # one shares nothing
        tokens = base[: found[1]] if found else longest
        some = [r._replace(shared=_shared(r.prompt, tokens)) for r in some]
        tokens = tokens[: max(r.shared for r in some)]
        if found:
            cached.append(SharedPrefix(tokens, some, cache, found[0]))
        else:
            rest.append(SharedPrefix(tokens, some))
    return [cached, rest]


def prefill(model: LanguageModel, prefixes: Prefixes) -> tuple[DynamicCache, int]:
    """A cache of shared prefixes, right-padded, and its width: copied if they are cached, else computed."""
    cache, width = model.new_cache(), max(len(p.token_ids) for p in prefixes)
    if width and prefixes[0].cache:
        prefixes[0].cache.copy(prefixes, cache)
    elif width:
        ids, mask = padded([p.token_ids for p in prefixes], side="right")
        model.forward(ids, mask, positions_of(mask), cache, keep=1)
    return cache, width


def _shared(prompt: Prompt, tokens: TokenIds) -> int:
    """How many tokens a prompt shares with a sequence that has its base, and perhaps the beginning of its tail."""
    stop = min(prompt.stop, len(tokens))
    tail = _common(prompt.tail, tokens[stop : stop + len(prompt.tail)])
    return min(stop + tail, len(prompt) - 1)


def _common(a: TokenIds, b: TokenIds) -> int:
    """The length of the common prefix."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
