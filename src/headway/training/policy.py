"""The policy in training, as an engine."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from headway.engines.hf import HFEngine
from headway.engines.prefill import Kept, Recorder, recording
from headway.types import Completion, SamplingParams, TokenIds


class Policy:
    """The current policy as an engine: unwrapped, in evaluation mode, in the precision of the training.

    Args:
        trainer: Has the model, its tokenizer and the accelerator.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._engine: HFEngine | None = None
        self._cache: Kept | None = None

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""
        return self._trainer.processing_class

    def sample(
        self, prompts: Sequence[TokenIds], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Samples of each prompt, as `HFEngine.sample`."""
        with self._evaluating() as engine:
            return engine.sample(prompts, params, seeds=seeds)

    def logprobs(
        self,
        prompts: Sequence[TokenIds],
        continuations: Sequence[Sequence[TokenIds]],
        *,
        ends: tuple[str, ...],
        temperature: float = 1.0,
    ) -> list[list[float]]:
        """The log-probability of each continuation of each prompt, as `HFEngine.logprobs`."""
        with self._evaluating() as engine:
            return engine.logprobs(prompts, continuations, ends=ends, temperature=temperature)

    def recording(self) -> AbstractContextManager[Recorder]:
        """Records the KV cache of what the model generates within the context."""
        return recording(self._model)

    @contextmanager
    def starting_from(self, cache: Kept | None) -> Iterator[None]:
        """Within the context, prompts that begin with a cached sequence start from its KV cache."""
        self._cache = cache
        try:
            yield
        finally:
            self._cache = None

    @property
    def _model(self) -> Any:
        return self._trainer.accelerator.unwrap_model(self._trainer.model)

    @contextmanager
    def _evaluating(self) -> Iterator[HFEngine]:
        model = self._model
        if self._engine is None or self._engine.model is not model:
            self._engine = HFEngine(model, self.tokenizer)
        training = model.training
        model.eval()
        self._engine.kept = self._cache
        try:
            with self._trainer.accelerator.autocast():
                yield self._engine
        finally:
            self._engine.kept = None
            model.train(training)
