"""The transformers engine: batched sampling with a seed per request and one prefill for prompts that share a prefix.

Branches of a trace are prompts "prefix of the trace + suffix", one for each boundary: the longest of them (the trunk)
is computed once, and each of the others takes from its cache what they share. Samples of one prompt share all of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.utils import logging

from headway.types import Completion, HeadwayError, SamplingParams, TokenIds

CACHE_BYTES = 2**30  # of keys and values a batch may take
COMPACT_EVERY = 16  # steps between looks at whether finished rows should leave the batch


class Request(NamedTuple):
    """One prompt: its place in the call, its seed, and how many of its first tokens its trunk has computed."""

    place: int
    prompt: TokenIds
    seed: int
    shared: int = 0


class Trunk(NamedTuple):
    """Tokens that are computed once, and the requests that begin with some of them."""

    token_ids: TokenIds
    requests: list[Request]


class HFEngine:
    """Samples from a transformers causal language model.

    Args:
        model: A causal language model in evaluation mode, adapters and all; used as it is.
        tokenizer: Its tokenizer.
        cache_bytes: How much memory the keys and values of one batch may take; sets the batch size.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.model = model
        self.tokenizer: Any = tokenizer
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = sorted({e for e in [*ends, tokenizer.eos_token_id] if e is not None})
        self._stop_criteria = lru_cache(maxsize=8)(self._make_stop_criteria)
        self._most_tokens = max(1, cache_bytes // _cache_bytes_per_token(model))
        self._shares = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[TokenIds], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """`params.n` samples of each prompt; prompts of one trace belong side by side, to share a trunk."""
        requests = [Request(i, p, s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
        if any(not r.prompt for r in requests):
            raise ValueError("a prompt needs at least one token")
        trunks = find_trunks(requests) if self._shares else [Trunk((), [request]) for request in requests]
        out: list[list[Completion]] = [[] for _ in requests]
        for batch in self._batches(trunks, params):
            for place, completions in self._sample_batch(batch, params):
                out[place] = completions
        return out

    def _batches(self, trunks: list[Trunk], params: SamplingParams) -> Iterator[list[Trunk]]:
        """Trunks of like length together, as many as the cache may hold with all their samples; at least one."""
        batch: list[Trunk] = []
        width = rows = 0
        for trunk in sorted(trunks, key=lambda t: max(len(r.prompt) for r in t.requests)):
            for part in _split(trunk, max(1, self._most_tokens // (2 * params.n * max(1, _width([trunk], params))))):
                more = len(part.requests) * params.n
                width = max(width, _width([part], params))
                if batch and (rows + more) * width > self._most_tokens:
                    yield batch
                    batch, rows, width = [], 0, _width([part], params)
                batch.append(part)
                rows += more
        if batch:
            yield batch

    def _sample_batch(self, trunks: list[Trunk], params: SamplingParams) -> Iterator[tuple[int, list[Completion]]]:
        """Prefills the trunks, then the rest of each prompt, then decodes `n` rows of each."""
        device = self.model.device
        requests = [request for trunk in trunks for request in trunk.requests]
        cache = self._new_cache()
        mask = torch.zeros(len(requests), 0, dtype=torch.long, device=device)
        if any(trunk.token_ids for trunk in trunks):
            ids, own = _padded([t.token_ids for t in trunks], side="right", device=device)
            self.model(
                input_ids=ids,
                attention_mask=own,
                position_ids=_positions(own),
                past_key_values=cache,
                logits_to_keep=1,
            )
            of_trunk = [k for k, trunk in enumerate(trunks) for _ in trunk.requests]
            cache.batch_select_indices(torch.tensor(of_trunk, device=device))
            shared = torch.tensor([r.shared for r in requests], device=device)
            mask = (torch.arange(ids.shape[1], device=device) < shared[:, None]).long()
        ids, own = _padded([r.prompt[r.shared :] for r in requests], side="left", device=device)
        mask = torch.cat([mask, own], dim=1)
        positions = _positions(mask)[:, -ids.shape[1] :]
        logits = self._logits(ids, mask, positions, cache)

        n = params.n
        cache.batch_repeat_interleave(n)
        numbers = (
            np.array([r.seed for r in requests], dtype=np.uint64)[:, None] + np.arange(n, dtype=np.uint64) * _GAMMA
        )
        seeds = _mix(numbers.reshape(-1))
        drawn = self._decode(
            logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0), positions[:, -1].repeat_interleave(n, 0),
            cache, seeds, params,
        )  # fmt: skip
        for k, request in enumerate(requests):
            yield request.place, drawn[k * n : k * n + n]

    def _decode(
        self,
        logits: torch.Tensor,
        mask: torch.Tensor,
        position: torch.Tensor,
        cache: DynamicCache,
        seeds: np.ndarray,
        params: SamplingParams,
    ) -> list[Completion]:
        """Decodes all rows together; rows that have ended leave the batch now and then."""
        device = logits.device
        ends = torch.tensor(self._ends, device=device)
        stops = self._stop_criteria(params.stop) if params.stop else None
        ended = torch.zeros(len(seeds), dtype=torch.bool)
        rows = torch.arange(len(seeds))  # the row of the call that each row of the batch is
        written = torch.zeros(len(seeds), params.max_tokens, dtype=torch.long)
        lengths = torch.full((len(seeds),), params.max_tokens)
        logprobs = torch.zeros(len(seeds), dtype=torch.double)
        for t in range(params.max_tokens):
            alive = ~ended[rows]
            if t % COMPACT_EVERY == 0 and alive.sum() <= len(rows) * 3 // 4:
                keep = alive.nonzero().squeeze(1)
                rows, there = rows[keep], keep.to(device)
                logits, mask, position = logits[there], mask[there], position[there]
                cache.batch_select_indices(there)
                alive = torch.ones(len(rows), dtype=torch.bool)
            if not alive.any():
                break
            chosen, logprob = choose(logits, uniforms(seeds[rows.numpy()], t), params)
            written[rows, t] = chosen.cpu()
            logprobs[rows[alive]] += logprob.cpu()[alive]
            over = torch.isin(chosen, ends).cpu() & alive
            lengths[rows[over]] = t
            if stops is not None:
                hit = stops(written[rows, : t + 1].to(device), None).cpu() & alive & ~over
                lengths[rows[hit]] = t + 1
                over |= hit
            ended[rows[over]] = True
            if t + 1 == params.max_tokens or ended.all():
                break
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._logits(chosen[:, None], mask, position[:, None], cache)
        return [
            Completion(tuple(w[:k].tolist()), "stop" if over else "length", logprob)
            for w, k, over, logprob in zip(written, lengths.tolist(), ended.tolist(), logprobs.tolist(), strict=True)
        ]

    def _logits(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """The logits after the last token of each row."""
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        )
        return out.logits[:, -1].float()

    def _new_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self.model.config)
        if self._shares:
            cache.layers = [RoomyLayer() for _ in cache.layers]
        return cache

    def _make_stop_criteria(self, stop: tuple[str, ...]) -> StopStringCriteria:
        return StopStringCriteria(self.tokenizer, list(stop))


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that keeps room to grow, where transformers' own copies all it has for every token."""

    keys: torch.Tensor
    values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Starts empty."""
        super().lazy_initialization(key_states, value_states)
        self.keys = key_states[..., :0, :]
        self.values = value_states[..., :0, :]
        self._rooms: list[torch.Tensor | None] = [None, None]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends in place where there is room, else moves to half as much again."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = (
            self._append(0, self.keys, key_states),
            self._append(1, self.values, value_states),
        )
        return self.keys, self.values

    def _append(self, which: int, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        begin, end = old.shape[-2], old.shape[-2] + new.shape[-2]
        room = self._rooms[which]
        if room is None or room.shape[-2] < end:
            room = new.new_empty(*new.shape[:-2], end + end // 2 + 16, new.shape[-1])
            room[..., :begin, :] = old
            self._rooms[which] = room
        room[..., begin:end, :] = new
        return room[..., :end, :]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats rows; the room stays with the old ones."""
        super().batch_repeat_interleave(repeats)
        self._rooms = [None, None]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Selects rows; the room stays with the old ones."""
        super().batch_select_indices(indices)
        self._rooms = [None, None]


def find_trunks(requests: Sequence[Request]) -> list[Trunk]:
    """Groups neighbouring requests by what their prompts share.

    Read from the end, since the prompts of a trace come shortest first. A prompt joins a trunk if at least half of it
    is there and little is left to compute: 32 tokens or a quarter of it. Its last token is always left, for logits.
    """
    trunks: list[Trunk] = []
    for request in reversed(requests):
        prompt = request.prompt
        if trunks:
            shared = min(_common(prompt, trunks[-1].token_ids), len(prompt) - 1)
            left = len(prompt) - shared
            if 2 * shared >= len(prompt) and left <= max(32, len(prompt) // 4):
                trunks[-1].requests.append(request._replace(shared=shared))
                continue
        trunks.append(Trunk(prompt, [request._replace(shared=len(prompt) - 1)]))
    # a trunk without branches is its one request; what no request shares need not be computed
    return [
        Trunk((), [t.requests[0]._replace(shared=0)])
        if len(t.requests) == 1
        else Trunk(t.token_ids[: max(r.shared for r in t.requests)], t.requests)
        for t in trunks
    ]


def _common(a: TokenIds, b: TokenIds) -> int:
    """The length of the common prefix."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _split(trunk: Trunk, most: int) -> Iterator[Trunk]:
    """The trunk with at most `most` requests at a time."""
    for start in range(0, len(trunk.requests), most):
        yield Trunk(trunk.token_ids, trunk.requests[start : start + most])


def _width(trunks: Sequence[Trunk], params: SamplingParams) -> int:
    """Cache slots of a row: trunk, rest of the prompt, new tokens."""
    rest = max(len(r.prompt) - r.shared for t in trunks for r in t.requests)
    return max(len(t.token_ids) for t in trunks) + rest + params.max_tokens


def _padded(sequences: Sequence[TokenIds], *, side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, (rows, longest)."""
    width = max(map(len, sequences))
    ids, mask = np.zeros((2, len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        where = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        ids[row, where], mask[row, where] = sequence, 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token among those its row has."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al., 2014): counters to 64 random bits each; overflow is meant."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: np.ndarray, step: int) -> np.ndarray:
    """One uniform number in [0, 1) for each seed at a step, whatever the other seeds are."""
    bits = _mix(seeds + np.array([step + 1], dtype=np.uint64) * _GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) / 2**53


def choose(logits: torch.Tensor, u: np.ndarray, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each row, where the running sum of its probabilities passes the row's uniform number, and the
    logarithm of the token's probability; both (rows,)."""
    if params.temperature == 0:
        return logits.argmax(dim=-1), torch.zeros(len(logits), dtype=torch.double, device=logits.device)
    probabilities = torch.softmax(logits.double() / params.temperature, dim=-1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= params.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    sums = probabilities.cumsum(dim=-1)
    aim = torch.from_numpy(u).to(sums.device)[:, None] * sums[:, -1:]
    chosen = torch.searchsorted(sums, aim, right=True).clamp(max=logits.shape[-1] - 1)
    return chosen.squeeze(1), (probabilities.gather(-1, chosen) / sums[:, -1:]).log().squeeze(1)


def _cache_bytes_per_token(model: Any) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def load(
    model: str | Path, *, device: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> HFEngine:
    """The engine of a model folder or hub name; safetensors only.

    Raises:
        HeadwayError: there is no such model, or it cannot be loaded; says why.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    with _loading(model):
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    loaded.requires_grad_(False).to(place)
    loaded.train(False)
    return HFEngine(loaded, tokenizer)


def load_tokenizer(model: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub name, without the model.

    Raises:
        HeadwayError: there is no such model, or it cannot be loaded; says why.
    """
    with _loading(model):
        return AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)


@contextmanager
def _loading(model: str | Path) -> Iterator[None]:
    """Says why a model cannot be loaded; no progress bars of others."""
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HeadwayError(
            f"cannot load the model '{model}': {reason}; expected builtin:countdown, a folder with config.json, "
            "*.safetensors and a tokenizer, or a model of the Hugging Face hub"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
