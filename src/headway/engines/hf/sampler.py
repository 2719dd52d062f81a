"""The sampler: one uniform number for each seed and step, independent of the rest of the batch."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from headway.types import Completion, SamplingParams

_GAMMA = np.uint64(0x9E3779B97F4A7C15)

Stops = Callable[[torch.Tensor], torch.Tensor]


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al., 2014): counters to 64 random bits each; it overflows by design."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: np.ndarray, step: int) -> np.ndarray:
    """One uniform number in [0, 1) for each seed at a step."""
    bits = _mix(seeds + np.array([step + 1], dtype=np.uint64) * _GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) / 2**53


def distribution(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The probability of each token after temperature (above 0) and top-p, (rows, vocabulary)."""
    probabilities = torch.softmax(logits.double() / params.temperature, dim=-1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= params.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def choose(logits: torch.Tensor, u: np.ndarray, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """The token of each row, where its cumulative probability passes the uniform number, and its log-probability."""
    if params.temperature == 0:
        return logits.argmax(dim=-1), torch.zeros(len(logits), dtype=torch.double, device=logits.device)
    probabilities = distribution(logits, params)
    sums = probabilities.cumsum(dim=-1)
    aim = torch.from_numpy(u).to(sums.device)[:, None] * sums[:, -1:]
    chosen = torch.searchsorted(sums, aim, right=True).clamp(max=logits.shape[-1] - 1)
    return chosen.squeeze(1), (probabilities.gather(-1, chosen) / sums[:, -1:]).log().squeeze(1)


def sample_seeds(seeds: Sequence[int], n: int) -> np.ndarray:
    """The seed of each of n samples of each request, (requests, n)."""
    return _mix(np.array(seeds, dtype=np.uint64)[:, None] + np.arange(n, dtype=np.uint64) * _GAMMA)


class Decoding:
    """Completions while they are sampled, one for each seed: their tokens, log-probabilities, and which have ended.

    `ends` are the tokens that end the text; `stops` says which rows of token ids end with a stop string.
    """

    def __init__(self, seeds: np.ndarray, params: SamplingParams, ends: Sequence[int], stops: Stops | None) -> None:
        self._seeds, self._params, self._ends, self._stops = seeds, params, torch.tensor(ends), stops
        self.max_tokens = params.max_tokens
        self.ended = torch.zeros(len(seeds), dtype=torch.bool)
        self._tokens = torch.zeros(len(seeds), params.max_tokens, dtype=torch.long)
        self._lengths = torch.full((len(seeds),), params.max_tokens)
        self._logprobs = torch.zeros(len(seeds), dtype=torch.double)

    def step(self, rows: torch.Tensor, logits: torch.Tensor, t: int) -> torch.Tensor:
        """Token t, (rows,), of completions, sampled from logits, (rows, vocabulary); some may have ended before."""
        device, alive = logits.device, ~self.ended[rows]
        ends = self._ends.to(device)
        chosen, logprob = choose(logits, uniforms(self._seeds[rows.numpy()], t), self._params)
        tokens = chosen.cpu()
        self._tokens[rows, t] = tokens
        self._logprobs[rows[alive]] += logprob.cpu()[alive]
        over = torch.isin(tokens, self._ends) & alive
        # the completion's probability is that of any end
        if over.any() and len(ends) > 1 and self._params.temperature > 0:
            which = over.to(device)
            any_end = distribution(logits[which], self._params)[:, ends].sum(dim=-1).log() - logprob[which]
            self._logprobs[rows[over]] += any_end.cpu()
        self._lengths[rows[over]] = t
        if self._stops is not None:
            hit = self._stops(self._tokens[rows, : t + 1].to(device)).cpu() & alive & ~over
            self._lengths[rows[hit]] = t + 1
            over |= hit
        self.ended[rows[over]] = True
        return tokens

    def completions(self) -> list[Completion]:
        """All completions."""
        columns = self._tokens, self._lengths.tolist(), self.ended.tolist(), self._logprobs.tolist()
        return [
            Completion(tuple(tokens[:length].tolist()), "stop" if ended else "length", logprob)
            for tokens, length, ended, logprob in zip(*columns, strict=True)
        ]
