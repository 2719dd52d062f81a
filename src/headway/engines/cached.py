"""A disk cache of samples."""

import sqlite3
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec.msgpack import decode, encode

from headway.engines.streaming import Parts, in_parts, together
from headway.types import Completion, Engine, HeadwayError, Likelihood, Prompts, SamplingParams

FILE = "samples.sqlite"
WAIT = 60.0  # seconds for another process to finish writing


class CachedEngine:
    """A disk cache in front of an engine, keyed by model, prompt tokens, sampling parameters and seed.

    `model` identifies the model, its weights and how it is run. Processes may share `folder`. Likelihoods, if the
    engine has them, are not cached. HeadwayError if the file is not a cache of samples.
    """

    def __init__(self, engine: Engine, folder: Path, model: str) -> None:
        self.tokenizer, self.window = engine.tokenizer, getattr(engine, "window", None)
        self._engine, self._model, self._path = engine, model, folder / FILE
        if isinstance(engine, Likelihood):
            self.logprobs = engine.logprobs
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None)
        self._do("CREATE TABLE IF NOT EXISTS samples (key BLOB PRIMARY KEY, completions BLOB) WITHOUT ROWID")

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """The samples in the cache, and the engine's for the rest, which are then in the cache."""
        return together(self.stream(prompts, params, seeds=seeds), len(prompts))

    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """The samples in the cache, then the engine's as it gives them; these are in the cache when all are there.

        So what a stopped call left undone is asked again in the same batches.
        """
        asked = [(self._model, prompt.ids, params, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        keys = [sha256(encode(request)).digest() for request in asked]
        rows = ((key, row) for key in keys for [row] in self._do("SELECT completions FROM samples WHERE key = ?", key))
        found = {key: decode(row, type=list[Completion]) for key, row in rows}
        yield {place: found[key] for place, key in enumerate(keys) if key in found}
        new = [i for i, key in enumerate(keys) if key not in found]
        if not set(new) - set(done):
            return
        inner = {k for k, i in enumerate(new) if i in done}
        for part in in_parts(
            self._engine, [prompts[i] for i in new], params, seeds=[seeds[i] for i in new], done=inner
        ):
            sampled = {new[k]: completions for k, completions in part.items()}
            found |= {keys[i]: completions for i, completions in sampled.items()}
            yield sampled
        self._do("BEGIN IMMEDIATE")
        for key in {keys[i] for i in new} & found.keys():
            self._do("INSERT OR IGNORE INTO samples VALUES (?, ?)", key, encode(found[key]))
        self._do("COMMIT")

    def close(self) -> None:
        """Closes the file, and the engine."""
        self._file.close()
        if hasattr(self._engine, "close"):
            self._engine.close()

    def _do(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            expected = "expected a file of samples that --cache made; remove it, name another folder, or omit --cache"
            raise HeadwayError(f"{self._path}: {error}; {expected}") from error


def identity(model: str) -> str:
    """What identifies a model's weights: a folder's files, their sizes and times; a hub name's revision."""
    folder = Path(model)
    if folder.is_dir():
        files = sorted(p for p in folder.iterdir() if p.is_file())
        return repr([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json") if model.count("/") <= 1 else None
    return repr((model, Path(found).parent.name if isinstance(found, str) else None))
