"""The transformers engine: sampling with a seed for each request, and one prefill for prompts that share a base."""

import math
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from headway.engines.hf import decode, likelihood
from headway.engines.hf.compat import LanguageModel, learned_positions, stop_strings
from headway.engines.hf.prefix_cache import PrefixCache, Request, alone, shared_prefixes
from headway.engines.hf.sampler import Decoding
from headway.engines.hf.vocabulary import Vocabulary
from headway.engines.loading import load_tokenizer, load_weights
from headway.engines.streaming import Parts, together
from headway.engines.window import context_window, refuse_beyond
from headway.types import Completion, Continuations, HeadwayError, Prompts, SamplingParams

CACHE_BYTES = 2**30  # of keys and values a batch may take


class HFEngine:
    """Samples from a causal language model of transformers in evaluation mode, adapters included.

    The keys and values of one batch take at most `cache_bytes` of memory: this sets the batch size.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.language_model = LanguageModel(model, cache_bytes)
        self.prefix_cache: PrefixCache | None = None  # what the current model has computed already
        ends = model.generation_config.eos_token_id if model.generation_config else None
        ends = ends if isinstance(ends, list) else [ends]
        if bad := [e for e in ends if e is not None and not isinstance(e, int)]:
            raise HeadwayError(f"eos_token_id of the model's generation_config is {bad[0]!r:.60}; expected token ids")
        self._ends = sorted({e for e in [*ends, tokenizer.eos_token_id] if e is not None})
        self.window = context_window(model.config)
        self._hard = self.window if learned_positions(model, self.window) else None  # no text may be longer
        self._stops = lru_cache(maxsize=8)(partial(stop_strings, tokenizer))

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """`params.n` samples of each prompt; prompts of one base belong side by side, to share its prefix.

        Raises:
            HeadwayError: a prompt has no room, in a model with an embedding for each position.
        """
        return together(self.stream(prompts, params, seeds=seeds), len(prompts))

    @torch.no_grad()
    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """The samples of `sample`, a batch at a time: batches are those without `done`, and skipped if all is done."""
        self._refuse_beyond(prompts, params.max_tokens)
        requests = [Request(i, p, s) for i, (p, s) in enumerate(zip(prompts, seeds, strict=True))]
        model, start = self.language_model, self.starts(params)
        most = decode.SHORT // params.max_tokens if model.takes_trees else 0  # requests of a prefix decoded together
        shared = shared_prefixes(requests, self.prefix_cache) if model.full_attention else [alone(requests)]
        for prefixes in shared:
            many = [p for p in prefixes if len(p.requests) > most]
            few = [p for p in prefixes if len(p.requests) <= most]
            yield from decode.sample_separately(model, many, params, start, done)
            yield from decode.sample_together(model, few, params, start, done)

    @torch.no_grad()
    def logprobs(
        self, prompts: Prompts, continuations: Continuations, *, ends: tuple[str, ...], temperature: float = 1.0
    ) -> list[list[float]]:
        """The log-probability of each continuation of each prompt; -inf where no token can end it.

        With sliding windows, state spaces or attention without 4-D masks, each is computed with its whole prompt.
        """
        if temperature <= 0:
            raise ValueError(f"a likelihood needs a temperature above 0, got {temperature}")
        self._refuse_beyond(prompts, max((len(c.token_ids) for some in continuations for c in some), default=0))
        sets: dict[tuple[int, ...], int] = {}  # of tokens that end a continuation, by number
        asked = [
            [
                likelihood.Ended(k, c.token_ids, sets.setdefault(closing, len(sets)))
                for k, c in enumerate(some)
                if (closing := self.vocabulary.closing(c.rest, ends))
            ]
            for some in continuations
        ]
        options: Any = dict(closers=[torch.tensor(s, device=self.model.device) for s in sets], temperature=temperature)
        out = [[-math.inf] * len(some) for some in continuations]
        for place, k, logprob in self._logprobs(prompts, asked, options):
            out[place][k] = logprob
        return out

    def _logprobs(
        self, prompts: Prompts, asked: Sequence[Sequence[likelihood.Ended]], options: dict[str, Any]
    ) -> Iterator[tuple[int, int, float]]:
        """The place of each prompt, the index of each continuation and its log-probability."""
        model = self.language_model
        if not model.takes_trees:
            yield from likelihood.score_separately(model, prompts, asked, **options)
            return
        requests = [Request(i, p) for i, (p, some) in enumerate(zip(prompts, asked, strict=True)) if some]
        for prefixes in shared_prefixes(requests, self.prefix_cache):
            yield from likelihood.score(model, prefixes, asked, **options)

    def _refuse_beyond(self, prompts: Prompts, max_tokens: int) -> None:
        if self._hard is not None:
            refuse_beyond(prompts, max_tokens, self._hard, "or use a model with a larger context window")

    def starts(self, params: SamplingParams) -> decode.Start:
        """A function that begins completions, one for each seed."""
        stops = self._stops(params.stop) if params.stop else None
        return lambda seeds: Decoding(seeds, params, self._ends, stops)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The texts of the tokens."""
        return Vocabulary(self.tokenizer, self.model.get_output_embeddings().weight.shape[0], self._ends)


def load(model: str | Path, *, dtype: str = "auto", trust_remote_code: bool = False) -> HFEngine:
    """The engine of a model folder, hub name or `builtin:NAME`; safetensors only. HeadwayError says why it fails."""
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    loaded = load_weights(
        model, AutoModelForCausalLM.from_pretrained, dtype=dtype, trust_remote_code=trust_remote_code
    )
    loaded.requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
    loaded.train(False)
    return HFEngine(loaded, tokenizer)
