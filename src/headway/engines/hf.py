"""The transformers engine: batched sampling with a seed per request and one prefill for prompts that share a prefix.

Branches of a trace are prompts "prefix of the trace + suffix", one for each boundary: the longest of them (the trunk)
is computed once, and each of the others takes from its cache what they share. Samples of one prompt share all of it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.utils import logging

from headway.engines import packed
from headway.engines.cache import RoomyLayer
from headway.engines.trunks import Request, Trunk, find_trunks, padded, positions_of, split
from headway.types import Completion, HeadwayError, SamplingParams, TokenIds

CACHE_BYTES = 2**30  # of keys and values a batch may take
COMPACT_EVERY = 16  # steps between looks at whether finished rows should leave the batch


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
        self._closers = lru_cache(maxsize=8)(self._find_closers)
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

    def logprobs(
        self,
        prompts: Sequence[TokenIds],
        continuations: Sequence[Sequence[TokenIds]],
        *,
        ends: tuple[str, ...],
        temperature: float = 1.0,
    ) -> list[list[float]]:
        """The log-probability of each continuation of each prompt, and then of an end.

        Prompts of one trace, side by side, are computed in two forwards (`packed`). A model whose layers do not all
        attend to everything (sliding windows, state spaces), or whose attention takes no 4-D mask, computes each
        continuation with its whole prompt.
        """
        if temperature <= 0:
            raise ValueError(f"a likelihood needs a temperature above 0, got {temperature}")
        if any(not p for p in prompts) or any(not c for some in continuations for c in some):
            raise ValueError("a prompt and a continuation need at least one token each")
        requests = [Request(i, p, 0) for i, (p, some) in enumerate(zip(prompts, continuations, strict=True)) if some]
        options: Any = dict(closers=self._closers(ends), temperature=temperature, most_tokens=self._most_tokens)
        if not self._shares or self.model.config._attn_implementation not in ("sdpa", "eager"):
            return packed.score_separately(self.model, prompts, continuations, **options)
        found = packed.score(self.model, find_trunks(requests), continuations, **options)
        return [found.get(place, []) for place in range(len(prompts))]

    def _find_closers(self, ends: tuple[str, ...]) -> torch.Tensor:
        """The tokens that end an answer: the end of the text, and all whose text begins, spaces aside, with an end."""
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))], skip_special_tokens=False)
        found = [i for i, text in enumerate(texts) if text.lstrip(" ").startswith(ends)] if ends else []
        rows = self.model.get_output_embeddings().weight.shape[0]
        return torch.tensor([i for i in sorted({*self._ends, *found}) if i < rows], device=self.model.device)

    def _batches(self, trunks: list[Trunk], params: SamplingParams) -> Iterator[list[Trunk]]:
        """Trunks of like length together, as many as the cache may hold with all their samples; at least one."""
        batch: list[Trunk] = []
        width = rows = 0
        for trunk in sorted(trunks, key=lambda t: max(len(r.prompt) for r in t.requests)):
            for part in split(trunk, max(1, self._most_tokens // (2 * params.n * max(1, _width([trunk], params))))):
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
            ids, own = padded([t.token_ids for t in trunks], side="right", device=device)
            self.model(
                input_ids=ids,
                attention_mask=own,
                position_ids=positions_of(own),
                past_key_values=cache,
                logits_to_keep=1,
            )
            of_trunk = [k for k, trunk in enumerate(trunks) for _ in trunk.requests]
            cache.batch_select_indices(torch.tensor(of_trunk, device=device))
            shared = torch.tensor([r.shared for r in requests], device=device)
            mask = (torch.arange(ids.shape[1], device=device) < shared[:, None]).long()
        ids, own = padded([r.prompt[r.shared :] for r in requests], side="left", device=device)
        mask = torch.cat([mask, own], dim=1)
        positions = positions_of(mask)[:, -ids.shape[1] :]
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
            if over.any() and len(ends) > 1:  # the completion's probability is that of any end
                which = over.to(device)
                any_end = distribution(logits[which], params)[:, ends].sum(dim=-1).log() - logprob[which]
                logprobs[rows[over]] += any_end.cpu()
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


def _width(trunks: Sequence[Trunk], params: SamplingParams) -> int:
    """Cache slots of a row: trunk, rest of the prompt, new tokens."""
    rest = max(len(r.prompt) - r.shared for t in trunks for r in t.requests)
    return max(len(t.token_ids) for t in trunks) + rest + params.max_tokens


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


def distribution(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The probability of each token after temperature and top-p, (rows, vocabulary)."""
    if params.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    probabilities = torch.softmax(logits.double() / params.temperature, dim=-1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= params.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def choose(logits: torch.Tensor, u: np.ndarray, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each row, where the running sum of its probabilities passes the row's uniform number, and the
    logarithm of the token's probability; both (rows,)."""
    if params.temperature == 0:
        return logits.argmax(dim=-1), torch.zeros(len(logits), dtype=torch.double, device=logits.device)
    probabilities = distribution(logits, params)
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
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise HeadwayError(
            f"cannot load the model '{model}': {reason}; expected builtin:countdown, a folder with config.json, "
            "*.safetensors and a tokenizer, or a model of the Hugging Face hub"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    loaded.requires_grad_(False).to(place)
    loaded.train(False)
    return HFEngine(loaded, tokenizer)
