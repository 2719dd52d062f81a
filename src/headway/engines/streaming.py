"""Engines that give completions as they finish, so that what is finished can be kept before the rest is."""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

from headway.types import Completion, Engine, Prompts, SamplingParams

Parts = Iterator[dict[int, list[Completion]]]  # the completions of some prompts, by the prompt's place


@runtime_checkable
class Streaming(Protocol):
    """An engine that can give `sample`'s completions in parts."""

    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """What `sample` returns, in parts. Places that are `done` may be left out; the others do not change by it."""


def in_parts(
    engine: Engine, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
) -> Parts:
    """The completions as the engine gives them."""
    stream = engine.stream if isinstance(engine, Streaming) else partial(at_once, engine)
    yield from stream(prompts, params, seeds=seeds, done=done)


def at_once(
    engine: Engine, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
) -> Parts:
    """All completions in one part, in the order of their prompts."""
    yield dict(enumerate(engine.sample(prompts, params, seeds=seeds)))


def together(parts: Parts, n: int) -> list[list[Completion]]:
    """All parts of a stream as `sample` returns them, for `n` prompts."""
    found = {place: completions for part in parts for place, completions in part.items()}
    return [found[place] for place in range(n)]
