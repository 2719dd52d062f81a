"""What an engine has finished is kept before the rest is; a stopped and resumed run is an uninterrupted one."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec.json import decode

import tiny
from headway.engines.cached import CachedEngine
from headway.engines.hf import HFEngine
from headway.engines.streaming import Parts, Streaming, at_once, in_parts, together
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import Completion, Engine, Prompt, Prompts, SamplingParams

pytestmark = pytest.mark.extras
SMALL = 2**16  # bytes of a batch's keys and values: a few prompts each
PROMPTS = [Prompt.of(tuple(range(6, 12 + i))) for i in range(9)]
PARAMS = SamplingParams(max_tokens=20, n=3)
SETTINGS = Settings.of(
    model="tiny", problems="countdown", limit=7, traces=2, branches=2, budget=24, answer_tokens=4, grader="exact",
    segment="tokens", episode_tokens=8, values="distinct",
)  # fmt: skip


class Stopping(HFEngine):
    """Stops, as Ctrl-C would, after so many batches; counts what it computes."""

    stops_after: int | None = None
    computed = 0

    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        for part in super().stream(prompts, params, seeds=seeds, done=done):
            if self.stops_after is not None and self.computed >= self.stops_after:
                raise KeyboardInterrupt
            self.computed += 1
            yield part


def engine(stops_after: int | None = None) -> Stopping:
    made = Stopping(tiny.model(), tiny.tokenizer(), cache_bytes=SMALL)
    made.stops_after = stops_after
    return made


def test_a_stream_in_parts_is_the_sample_and_what_is_done_is_left_out() -> None:
    whole, seeds = engine().sample(PROMPTS, PARAMS, seeds=range(9)), range(9)
    parts = list(engine().stream(PROMPTS, PARAMS, seeds=seeds))
    assert len(parts) > 2 and together(iter(parts), 9) == whole
    rest = list(engine().stream(PROMPTS, PARAMS, seeds=seeds, done=parts[0].keys()))
    assert rest == parts[1:]  # to the last bit of the log-probabilities: the batches are the same
    some = set(parts[0]) - {min(parts[0])}
    assert list(engine().stream(PROMPTS, PARAMS, seeds=seeds, done=some)) == parts


def test_an_engine_that_only_samples_gives_one_part() -> None:
    class Plain:
        tokenizer = tiny.tokenizer()

        def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
            return engine().sample(prompts, params, seeds=seeds)

    plain: Engine = Plain()
    assert not isinstance(plain, Streaming) and isinstance(engine(), Streaming)
    [part] = in_parts(plain, PROMPTS, PARAMS, seeds=range(9))
    assert [part] == list(at_once(engine(), PROMPTS, PARAMS, seeds=range(9)))


def measured(path: Path, policy: Engine) -> bytes:
    with Measurement.create(path, SETTINGS) as measurement:
        measurement.engine = policy
        measurement.all()
    return (path / "report.json").read_bytes()


def keys(file: Path) -> Iterator[tuple[object, ...]]:
    for line in file.read_bytes().splitlines() if file.exists() else ():
        record = decode(line)
        yield tuple(record.get(n) for n in ("problem_id", "index", "boundary", "branch"))


@pytest.mark.parametrize("cached", [False, True], ids=["hf", "cached"])
def test_a_measurement_stopped_after_each_batch_equals_one_that_was_not(tmp_path: Path, cached: bool) -> None:
    whole, policy = measured(tmp_path / "whole", uninterrupted := engine()), engine()
    batches, kept, computed = uninterrupted.computed, 0, 0
    assert batches > 6
    for _ in range(batches + 1):
        policy = engine(stops_after=1)
        asked: Engine = CachedEngine(policy, tmp_path / "cache", "tiny") if cached else policy
        try:
            again = measured(tmp_path / "r", asked)
            break
        except KeyboardInterrupt:
            found = [*keys(tmp_path / "r" / "traces.jsonl"), *keys(tmp_path / "r" / "branches.jsonl")]
            assert len(set(found)) == len(found) > kept  # each finished batch is on disk, once
            kept, computed = len(found), computed + policy.computed
        finally:
            if isinstance(asked, CachedEngine):
                asked._file.close()
    assert again == whole and computed + policy.computed == batches  # no batch is computed again
