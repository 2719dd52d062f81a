"""The policy in training, as an engine."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from headway.engines.hf import HFEngine
from headway.engines.hf.compat import Recorder, recording
from headway.engines.hf.prefix_cache import PrefixCache
from headway.types import Completion


class Policy:
    """The trainer's current policy as an engine: unwrapped, in evaluation mode, in the precision of the training."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._engine: HFEngine | None = None
        self.cache: PrefixCache | None = None  # of sequences that the policy has computed since its last update

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""
        return self._trainer.processing_class

    def sample(self, *request: Any, **options: Any) -> list[list[Completion]]:
        """`HFEngine.sample` of the policy."""
        with self._evaluating() as engine:
            return engine.sample(*request, **options)

    def logprobs(self, *request: Any, **options: Any) -> list[list[float]]:
        """`HFEngine.logprobs` of the policy."""
        with self._evaluating() as engine:
            return engine.logprobs(*request, **options)

    def recording(self) -> AbstractContextManager[Recorder]:
        """Records the KV cache of what the policy generates within the context."""
        return recording(self._model)

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
        self._engine.prefix_cache = self.cache
        try:
            with self._trainer.accelerator.autocast():
                yield self._engine
        finally:
            self._engine.prefix_cache = None
            model.train(training)
