"""Batches of work of similar size, as far as memory has room, and rows padded to one length."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from headway.engines.hf.compat import LanguageModel
from headway.types import TokenIds

MAX_ENTRIES = 2**26  # of a mask, or of the logits, that a forward may make: 256 MiB in float32
MAX_PADDED = 1.25  # how much more than the tokens needed a batch may compute

Item = TypeVar("Item")


class Size(NamedTuple):
    """What the forward of a piece of work, or of a batch, computes."""

    rows: int
    prefix: int  # shared tokens of a row
    own: int  # tokens of a row after them
    queries: int  # tokens of a row with logits
    needed: int  # tokens of all rows, without padding

    @classmethod
    def of(cls, prefix: int, own: int, queries: int, *, rows: int = 1) -> "Size":
        """The size of one piece."""
        return cls(rows, prefix, own, queries, rows * (prefix + own))

    def plus(self, other: "Size") -> "Size":
        """The size of both in one batch."""
        prefix, own, queries = map(max, self[1:4], other[1:4])
        return Size(self.rows + other.rows, prefix, own, queries, self.needed + other.needed)

    def has_small_logits(self, model: LanguageModel) -> bool:
        """Whether its masks and its logits stay below `MAX_ENTRIES`."""
        return self.rows * self.queries * max(self.prefix + self.own, model.vocabulary) <= MAX_ENTRIES

    def fits(self, model: LanguageModel, max_padded: float) -> bool:
        """Whether a batch of this size has room in memory and computes little padding."""
        slots = self.rows * (self.prefix + self.own)
        return slots <= min(model.max_tokens, max_padded * self.needed) and self.has_small_logits(model)


def batches(
    items: Iterable[Item], size: Callable[[Item], Size], model: LanguageModel, *, max_padded: float = MAX_PADDED
) -> Iterator[list[Item]]:
    """Neighbouring items together, as many as fit; at least one. Items are ordered by size."""
    batch: list[Item] = []
    total = Size(0, 0, 0, 0, 0)
    for item in items:
        grown = total.plus(size(item))
        if batch and not grown.fits(model, max_padded):
            yield batch
            batch, grown = [], size(item)
        batch.append(item)
        total = grown
    if batch:
        yield batch


def padded(sequences: Sequence[TokenIds], *, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and which of them are not padding, (rows, longest)."""
    ids = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
    masks = [torch.ones(len(sequence), dtype=torch.bool) for sequence in sequences]
    together = partial(pad_sequence, batch_first=True, padding_side=side)
    return together(ids), together(masks)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token among the tokens of its row."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
