"""Samples kept on disk across runs: what a model was asked before is not asked again."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headway.types import Completion, Engine, HeadwayError, Likelihood, SamplingParams, TokenIds, Tokenizer

FILE = "samples.sqlite"
WAIT = 60.0  # seconds for another process to finish writing


class Remembering:
    """An engine in front of which stands a file of samples, found by model, prompt tokens, sampling and seed.

    A run with another seed finds nothing, since its samples are to be others. One that cuts the same traces in another
    way finds the branches of the prefixes that both have.

    Args:
        engine: Is asked what is not there.
        folder: Where the file is, or will be; processes may share it.
        model: Names the model, its weights and how it is run; another name finds nothing.

    Raises:
        HeadwayError: the file is none of ours.
    """

    def __init__(self, engine: Engine, folder: Path, model: str) -> None:
        self._engine, self._model, self._path = engine, model, folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)
        self._do("CREATE TABLE IF NOT EXISTS samples (key BLOB PRIMARY KEY, completions BLOB) WITHOUT ROWID")

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's."""
        return self._engine.tokenizer

    def sample(
        self, prompts: Sequence[TokenIds], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """The samples that are there, and the engine's for the rest, which are there from then on."""
        keys = [
            hashlib.sha256(msgspec.msgpack.encode((self._model, prompt, params, seed))).digest()
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        found = {key: row for key in keys for row in self._do("SELECT completions FROM samples WHERE key = ?", key)}
        out = {key: msgspec.msgpack.decode(row, type=list[Completion]) for key, (row,) in found.items()}
        new = [i for i, key in enumerate(keys) if key not in out]
        if new:
            drawn = self._engine.sample([prompts[i] for i in new], params, seeds=[seeds[i] for i in new])
            self._do("BEGIN IMMEDIATE")
            for i, completions in zip(new, drawn, strict=True):
                out[keys[i]] = completions
                self._do("INSERT OR IGNORE INTO samples VALUES (?, ?)", keys[i], msgspec.msgpack.encode(completions))
            self._do("COMMIT")
        return [out[key] for key in keys]

    def close(self) -> None:
        """Closes the file, and the engine."""
        self._file.close()
        if hasattr(self._engine, "close"):
            self._engine.close()

    def _do(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise HeadwayError(
                f"{self._path}: {error}; expected a file of samples that --cache made; remove it, name another "
                "folder, or leave --cache out"
            ) from error


class RememberingLikelihood(Remembering):
    """The same for an engine that evaluates given text; that is not kept."""

    _engine: Any

    @property
    def logprobs(self) -> Callable[..., list[list[float]]]:
        """The engine's own."""
        found: Callable[..., list[list[float]]] = self._engine.logprobs
        return found


def remembering(engine: Engine, folder: Path, model: str) -> Remembering:
    """The engine, with samples kept in a folder; it evaluates given text if the engine does."""
    kind = RememberingLikelihood if isinstance(engine, Likelihood) else Remembering
    return kind(engine, folder, model)


def identity(model: str) -> str:
    """What tells a model's weights from others: a folder's files, their sizes and times; a hub name's revision."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.is_file())
        return repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json") if model.count("/") <= 1 else None
    return repr((model, Path(found).parent.name if isinstance(found, str) else None))
