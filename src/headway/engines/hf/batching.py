"""What prompts share: trunks of tokens that are computed once, and the requests that begin with some of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from headway.types import TokenIds


class Request(NamedTuple):
    """One prompt: its place in the call, its seed, and how many of its first tokens its trunk has computed."""

    place: int
    prompt: TokenIds
    seed: int
    shared: int = 0


class Trunk(NamedTuple):
    """Tokens that are computed once, and the requests that begin with some of them; its row where they are kept."""

    token_ids: TokenIds
    requests: list[Request]
    row: int | None = None


def find_trunks(requests: Sequence[Request]) -> list[Trunk]:
    """Groups neighbouring requests by what their prompts share.

    Read from the end, since the prompts of a trace come shortest first. A prompt joins a trunk if at least half of it
    is there and little is left to compute: 32 tokens or a quarter of it. Its last token is always left, for logits.
    """
    trunks: list[Trunk] = []
    for request in reversed(requests):
        prompt = request.prompt
        if trunks:
            shared = min(common(prompt, trunks[-1].token_ids), len(prompt) - 1)
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


def common(a: TokenIds, b: TokenIds) -> int:
    """The length of the common prefix."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def split(trunk: Trunk, most: int) -> Iterator[Trunk]:
    """The trunk with at most `most` requests at a time."""
    for start in range(0, len(trunk.requests), most):
        yield trunk._replace(requests=trunk.requests[start : start + most])


def padded(sequences: Sequence[TokenIds], *, side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, (rows, longest)."""
    width = max(map(len, sequences))
    ids, mask = np.zeros((2, len(sequences), width), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        where = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        ids[row, where], mask[row, where] = sequence, 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token among those its row has."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
