"""Every contact with the internals of transformers; `tests/contracts/test_transformers_seam.py` tests each."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation.stopping_criteria import StopStringCriteria

from headway.types import HeadwayError

TREE_ATTENTION = ("sdpa", "eager")  # the implementations that take a 4-D mask as it is
CALL = ("past_key_values", "input_ids", "attention_mask")  # how `generate` names what it gives a forward


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that appends in place, where the layer of transformers copies all it has for every token."""

    keys: Tensor
    values: Tensor
    _storage: tuple[Tensor | None, ...] = (None, None)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends in place where there is room, else moves to a storage that is an eighth larger."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        keys = _appended(self._storage[0], self.keys, key_states, begin)
        values = _appended(self._storage[1], self.values, value_states, begin)
        self._storage = keys, values
        self.keys, self.values = (s[..., : begin + key_states.shape[-2], :] for s in (keys, values))
        return self.keys, self.values


def _appended(storage: Tensor | None, old: Tensor, new: Tensor, begin: int) -> Tensor:
    """The storage with `new` after `old`; a new one if it has no room, or if `old` was replaced (say, reordered)."""
    end = begin + new.shape[-2]
    same = storage is not None and (storage.data_ptr(), storage.stride()) == (old.data_ptr(), old.stride())
    if storage is None or not same or storage.shape[:-2] != old.shape[:-2] or storage.shape[-2] < end:
        storage = new.new_empty(*new.shape[:-2], end + end // 8 + 64, new.shape[-1])
        if begin:
            storage[..., :begin, :] = old
    storage[..., begin:end, :] = new
    return storage


def attends_to_all(cache: Any, length: int = 0) -> bool:
    """Whether each layer of a cache attends to everything before a token and holds `length` tokens."""
    kinds = (DynamicLayer, GrowingLayer)  # a subclass of these may forget tokens
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(type(layer) in kinds and layer.get_seq_length() == length for layer in layers)


def grow_in_place(cache: Any) -> None:
    """Makes the layers of a cache grow in place if it is empty and all have full attention."""
    if attends_to_all(cache):
        cache.layers = [GrowingLayer() for _ in cache.layers]


def shorten(cache: DynamicCache, width: int) -> None:
    """Removes all columns of a cache but the first `width`."""
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys, layer.values = layer.keys[..., :width, :], layer.values[..., :width, :]


class LanguageModel:
    """A causal language model of transformers, as the engine uses it."""

    def __init__(self, model: Any, cache_bytes: int) -> None:
        self.model = model
        config = model.config.get_text_config()
        heads = _setting(config, "num_key_value_heads", "num_attention_heads")
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        slot = 2 * _setting(config, "num_hidden_layers") * heads * width * model.dtype.itemsize
        self.max_tokens = max(1, cache_bytes // int(slot))  # of a batch: their keys and values fit into `cache_bytes`
        self.vocabulary: int = _setting(config, "vocab_size")
        self.full_attention = attends_to_all(DynamicCache(config=model.config))  # in every layer

    @property
    def takes_trees(self) -> bool:
        """Whether the model attends to exactly what a 4-D mask allows."""
        attention = self.model.config._attn_implementation
        if self.full_attention and attention not in TREE_ATTENTION:
            warn_once(
                f"attention '{attention}' takes no 4-D mask, so branches and likelihoods are computed one by one, "
                f"which is slower; load the model with one of {', '.join(TREE_ATTENTION)}"
            )
        return self.full_attention and attention in TREE_ATTENTION

    def new_cache(self) -> DynamicCache:
        """An empty cache; it grows in place where all layers have full attention."""
        cache = DynamicCache(config=self.model.config)
        grow_in_place(cache)
        return cache

    def forward(
        self, ids: Tensor, sees: Tensor, position: Tensor, cache: DynamicCache | None = None, *, keep: int | Tensor = 0
    ) -> Tensor:
        """The logits after tokens (R, N): after all of them, the last `keep`, or those at the indices `keep`.

        `sees` is (R, C) where attention is causal and only padding is masked, or (R, N, C): what each token attends
        to. Its C columns are those of the cache, then the tokens.

        Raises:
            HeadwayError: the model returned logits of other tokens.
        """
        device = self.model.device
        sees = sees.to(device)
        logits: Tensor = self.model(
            input_ids=ids.to(device),
            attention_mask=sees.long() if sees.ndim == 2 else additive(sees, self.model.dtype),
            position_ids=position.to(device),
            logits_to_keep=keep if isinstance(keep, int) else keep.to(device),
            **({"use_cache": False} if cache is None else {"past_key_values": cache}),
        ).logits
        if isinstance(keep, int):
            return logits[:, -keep:]
        if logits.shape[1] != len(keep):
            raise HeadwayError(
                f"the forward of {type(self.model).__name__} ignores logits_to_keep: got the logits of "
                f"{logits.shape[1]} tokens, expected {len(keep)}; use a model class of transformers or another engine"
            )
        return logits


def _setting(config: Any, *names: str) -> Any:
    """The first of some settings that a model's configuration has."""
    found = [value for name in names if (value := getattr(config, name, None)) is not None]
    if not found:
        raise HeadwayError(f"{type(config).__name__} has no {' or '.join(names)}; expected a decoder of transformers")
    return found[0]


def learned_positions(model: Any, window: int | None) -> bool:
    """Whether a model has an embedding for each position of its window, some with an offset of 2, and none beyond."""
    tokens = model.get_input_embeddings()
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not tokens]
    return window is not None and any(table.num_embeddings - window in (0, 2) for table in tables)


def additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """What each query attends to, (R, N, C), as the mask that is added to its attention: (R, 1, N, C)."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def stop_strings(tokenizer: Any, stop: tuple[str, ...]) -> Callable[[Tensor], Tensor]:
    """A function that says which rows of token ids end with one of some strings."""
    criteria = StopStringCriteria(tokenizer, list(stop))
    return lambda ids: criteria(ids, None)


class Recorder:
    """The tokens, mask and KV cache of the last generation of a model; sees each forward before it runs."""

    def __init__(self) -> None:
        self._cache: Any = None
        self._ids: list[Tensor] = []
        self._mask: Any = None
        self.problem = f"no forward was given {CALL[:2]}"

    def __call__(self, module: Any, args: Any, options: dict[str, Any]) -> None:
        """A forward pre-hook."""
        cache, ids, mask = (options.get(name) for name in CALL)
        if cache is None:
            return
        if cache is not self._cache:
            self._cache, self._ids = cache, []
            self.problem = "it does not hold all tokens with full attention"
            grow_in_place(cache)
        self._ids += [] if ids is None else [ids]
        self._mask = mask

    def computed(self) -> tuple[DynamicCache, Tensor, Tensor] | None:
        """The last cache, its tokens and their mask; None, and a warning, if it does not hold exactly these."""
        if self._ids:
            ids = torch.cat(self._ids, dim=1)
            mask = torch.ones_like(ids) if self._mask is None else self._mask  # None where no row is padded
            if ids.shape == mask.shape and attends_to_all(self._cache, ids.shape[1]):
                return self._cache, ids, mask
        warn_once(f"the KV cache of sampling cannot be reused, so values compute each trace again: {self.problem}")
        return None


@contextmanager
def recording(model: Any) -> Iterator[Recorder]:
    """Records what a model, or the model below its adapters, computes while it generates.

    Its cache then grows in place. With dropout active nothing is recorded: every token is computed with another mask.
    """
    recorder = Recorder()
    below = model.get_base_model() if hasattr(model, "get_base_model") else model
    attention = getattr(below.config.get_text_config(), "attention_dropout", 0)
    if below.training and (attention or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in below.modules())):
        recorder.problem = "dropout is active"
        yield recorder
    else:
        with below.register_forward_pre_hook(recorder, with_kwargs=True):
            yield recorder


@cache
def warn_once(text: str) -> None:
    """Logs a warning, the first time."""
    logging.getLogger(__name__).warning(text)
