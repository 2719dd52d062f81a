"""The transformers engine: batched sampling with a seed per request and one prefill for prompts that share a prefix.

Branches of a trace are prompts "prefix of the trace + suffix", one for each boundary: the longest of them (the trunk)
is computed once, and each of the others takes from its cache what they share. Samples of one prompt share all of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.utils import logging

from headway.engines import branching, packed
from headway.engines.cache import RoomyLayer
from headway.engines.choosing import Writing, sample_seeds
from headway.engines.prefill import Kept, prefill
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

    Attributes:
        kept: Sequences that the model, as it is, has computed already; what begins like them starts from there.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.model = model
        self.kept: Kept | None = None
        self.tokenizer: Any = tokenizer
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = sorted({e for e in [*ends, tokenizer.eos_token_id] if e is not None})
        self._stop_criteria = lru_cache(maxsize=8)(self._make_stop_criteria)
        self._most_tokens = max(1, cache_bytes // _cache_bytes_per_token(model))
        self._closers = lru_cache(maxsize=8)(self._find_closers)
        self._shares = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)

    @property
    def _takes_trees(self) -> bool:
        """Whether the model attends to all that a 4-D mask allows."""
        return self._shares and self.model.config._attn_implementation in ("sdpa", "eager")

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[TokenIds], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """`params.n` samples of each prompt; prompts of one trace belong side by side, to share a trunk."""
        requests = [Request(i, p, s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
        if any(not r.prompt for r in requests):
            raise ValueError("a prompt needs at least one token")
        groups = self._trunks(requests) if self._shares else [[Trunk((), [request]) for request in requests]]
        out: list[list[Completion]] = [[] for _ in requests]
        writer, most = partial(self._writing, params=params), self._most_tokens
        for trunks in groups:
            short: list[Trunk] = []
            long: list[Trunk] = []
            for trunk in trunks:
                few = len(trunk.requests) * params.max_tokens <= branching.SHORT
                (short if self._takes_trees and few else long).append(trunk)
            for batch in self._batches(long, params):
                for place, completions in self._sample_batch(batch, params):
                    out[place] = completions
            drawn = branching.sample(self.model, short, params, writer, most_tokens=most, kept=self.kept)
            for place, completions in drawn:
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

        Prompts of one trace, side by side, are computed over one trunk (`packed`). A model whose layers do not all
        attend to everything (sliding windows, state spaces), or whose attention takes no 4-D mask, computes each
        continuation with its whole prompt.
        """
        if temperature <= 0:
            raise ValueError(f"a likelihood needs a temperature above 0, got {temperature}")
        if any(not p for p in prompts) or any(not c for some in continuations for c in some):
            raise ValueError("a prompt and a continuation need at least one token each")
        requests = [Request(i, p, 0) for i, (p, some) in enumerate(zip(prompts, continuations, strict=True)) if some]
        options: Any = dict(closers=self._closers(ends), temperature=temperature, most_tokens=self._most_tokens)
        if not self._takes_trees:
            return packed.score_separately(self.model, prompts, continuations, **options)
        found: dict[int, list[float]] = {}
        for trunks in self._trunks(requests):
            found |= packed.score(self.model, trunks, continuations, kept=self.kept, **options)
        return [found.get(place, []) for place in range(len(prompts))]

    def _trunks(self, requests: Sequence[Request]) -> list[list[Trunk]]:
        """What the requests share: first what is kept, then what is to be computed, which no batch mixes."""
        found, rest = self.kept.trunks(requests) if self.kept else ([], requests)
        return [found, find_trunks(rest)]

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
        if width := max(len(trunk.token_ids) for trunk in trunks):
            prefill(self.model, cache, trunks, self.kept)
            of_trunk = [k for k, trunk in enumerate(trunks) for _ in trunk.requests]
            cache.batch_select_indices(torch.tensor(of_trunk, device=device))
            shared = torch.tensor([r.shared for r in requests], device=device)
            mask = (torch.arange(width, device=device) < shared[:, None]).long()
        ids, own = padded([r.prompt[r.shared :] for r in requests], side="left", device=device)
        mask = torch.cat([mask, own], dim=1)
        positions = positions_of(mask)[:, -ids.shape[1] :]
        logits = self._logits(ids, mask, positions, cache)

        n = params.n
        cache.batch_repeat_interleave(n)
        seeds = sample_seeds([r.seed for r in requests], n).reshape(-1)
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
        writing = self._writing(seeds, params)
        rows = torch.arange(len(seeds))  # the row of the call that each row of the batch is
        for t in range(params.max_tokens):
            alive = ~writing.ended[rows]
            if t % COMPACT_EVERY == 0 and alive.sum() <= len(rows) * 3 // 4:
                keep = alive.nonzero().squeeze(1)
                rows, there = rows[keep], keep.to(device)
                logits, mask, position = logits[there], mask[there], position[there]
                cache.batch_select_indices(there)
            if not alive.any():
                break
            chosen = writing.write(rows, logits, t)
            if t + 1 == params.max_tokens or writing.ended.all():
                break
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._logits(chosen[:, None], mask, position[:, None], cache)
        return writing.completions()

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

    def _writing(self, seeds: np.ndarray, params: SamplingParams) -> Writing:
        return Writing(seeds, params, self._ends, self._stop_criteria(params.stop) if params.stop else None)

    def _make_stop_criteria(self, stop: tuple[str, ...]) -> StopStringCriteria:
        return StopStringCriteria(self.tokenizer, list(stop))


def _width(trunks: Sequence[Trunk], params: SamplingParams) -> int:
    """Cache slots of a row: trunk, rest of the prompt, new tokens."""
    rest = max(len(r.prompt) - r.shared for t in trunks for r in t.requests)
    return max(len(t.token_ids) for t in trunks) + rest + params.max_tokens


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
