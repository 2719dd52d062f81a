"""The context window: the tokens that a model was made to read, prompt included. Beyond it nothing is reliable."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from headway.types import HeadwayError, Prompts

SCALED = ("linear", "dynamic", "yarn")  # rotary positions whose limit may be given before they are scaled

logger = logging.getLogger(__name__)


def context_window(config: Any) -> int | None:
    """That of a model by its transformers configuration; None where it has no limit, or none that it says."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "rope_parameters", "rope_scaling")  # which some kinds of model spell otherwise
    return window_in({name: getattr(text, name, None) for name in names})


def window_in(config: Mapping[str, Any]) -> int | None:
    """That of a model by the entries of its config.json, as `context_window`."""
    most = config.get("max_position_embeddings")
    if not isinstance(most, int) or most <= 0:
        return None
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for scaling in (rotary, *rotary.values()):  # one for all layers, or one for each type of layer
        if isinstance(scaling, Mapping) and scaling.get("rope_type", scaling.get("type")) in SCALED:
            factor, original = scaling.get("factor") or 1, scaling.get("original_max_position_embeddings") or most
            most = max(most, int(factor * original))
    return most


def refuse_beyond(prompts: Prompts, max_tokens: int, most: int, advice: str) -> None:
    """Raises HeadwayError if prompts with room for `max_tokens` more are longer than what a model can compute."""
    long = [len(p) for p in prompts if len(p) + max_tokens > most]
    if long:
        raise HeadwayError(
            f"{len(long)} of {len(prompts)} prompts are too long: a prompt of {max(long)} tokens with room for "
            f"{max_tokens} more is over the {most} that the model holds; lower --budget, {advice}"
        )


class Beyond:
    """Counts texts that are longer than an engine's context window."""

    def __init__(self, window: int | None) -> None:
        self.window, self.seen, self.beyond, self.longest = window, 0, 0, 0

    def see(self, lengths: Iterable[int]) -> None:
        """Counts texts of these lengths, in tokens, prompts included."""
        if self.window is None:
            return
        for length in lengths:
            self.seen += 1
            self.beyond += length > self.window
            self.longest = max(self.longest, length)


@contextmanager
def counting(window: int | None, what: str, advice: str) -> Iterator[Beyond]:
    """A counter that at the end warns, with counts, if some texts went beyond the window."""
    counter = Beyond(window)
    try:
        yield counter
    finally:
        if counter.beyond:
            logger.warning(
                f"{counter.beyond} of {counter.seen} {what} than the {window} tokens that the model was made for "
                f"(up to {counter.longest}, prompt included): what is beyond them is not reliable; {advice}"
            )
