"""A cache of keys and values that grows in place."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


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
        """Appends in place where there is room, else moves to an eighth more."""
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
            room = new.new_empty(*new.shape[:-2], end + end // 8 + 64, new.shape[-1])
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
