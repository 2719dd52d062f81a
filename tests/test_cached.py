"""Samples on disk across runs: what is the same is not asked again, what differs is."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from headway.engines.cached import FILE, CachedEngine, identity
from headway.engines.scripted import ScriptedEngine, ramps
from headway.problems import countdown
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import Completion, HeadwayError, Likelihood, Prompt, SamplingParams

PARAMS = SamplingParams(n=2, max_tokens=8)
SETTINGS = Settings.of(model="scripted", problems="countdown", limit=4, traces=2, budget=128, answer_tokens=40)


def of(*token_ids: int) -> Prompt:
    return Prompt.of(token_ids)


class Echo:
    """An engine that answers with the prompt and the seed, and counts what it was asked."""

    tokenizer = None

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def sample(self, prompts, params, *, seeds):
        self.asked += [p.ids for p in prompts]
        return [
            [Completion((*p.ids, s, k), "stop", -0.1 * k) for k in range(params.n)]
            for p, s in zip(prompts, seeds, strict=True)
        ]


def test_what_was_asked_is_not_asked_again(tmp_path: Path) -> None:
    engine = Echo()
    first = CachedEngine(engine, tmp_path, "m").sample([of(1, 2), of(3)], PARAMS, seeds=[5, 6])
    assert first == Echo().sample([of(1, 2), of(3)], PARAMS, seeds=[5, 6])
    again = CachedEngine(engine, tmp_path, "m")
    assert again.sample([of(3), of(4), of(1, 2)], PARAMS, seeds=[6, 7, 5]) == [
        first[1], *Echo().sample([of(4)], PARAMS, seeds=[7]), first[0],
    ]  # fmt: skip
    assert engine.asked == [(1, 2), (3,), (4,)]
    again.close()


@pytest.mark.parametrize("other", ["model", "prompt", "seed", "n", "temperature", "stop"])
def test_what_differs_in_anything_is_asked(tmp_path: Path, other: str) -> None:
    engine = Echo()
    CachedEngine(engine, tmp_path, "m").sample([of(1, 2)], PARAMS, seeds=[5])
    params = {
        "n": msgspec.structs.replace(PARAMS, n=3),
        "temperature": msgspec.structs.replace(PARAMS, temperature=0.5),
        "stop": msgspec.structs.replace(PARAMS, stop=("}",)),
    }.get(other, PARAMS)
    model, prompt, seed = (
        "other" if other == "model" else "m",
        of(1) if other == "prompt" else of(1, 2),
        5 + (other == "seed"),
    )
    CachedEngine(engine, tmp_path, model).sample([prompt], params, seeds=[seed])
    assert len(engine.asked) == 2


def measured(folder: Path, settings: Settings) -> tuple[bytes, int]:
    """A run's report, and how many samples its engine was asked for."""
    asked = 0
    sample = ScriptedEngine.sample

    def counting(self, prompts, params, *, seeds):
        nonlocal asked
        asked += len(prompts)
        return sample(self, prompts, params, seeds=seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedEngine, "sample", counting)
        with Measurement.create(folder, settings) as measurement:
            measurement.all()
    return (folder / "report.json").read_bytes(), asked


def test_another_run_takes_what_both_have(tmp_path: Path) -> None:
    cached = SETTINGS.changed(cache=str(tmp_path / "cache"))
    plain, all_of = measured(tmp_path / "plain", SETTINGS)
    assert measured(tmp_path / "first", cached) == (plain, all_of)
    assert measured(tmp_path / "second", cached) == (plain, 0)
    # the same thoughts cut in another way: the traces are there, and their ends
    cut = dict(segment="tokens", episode_tokens=40)
    other, needed = measured(tmp_path / "other", SETTINGS.changed(**cut))
    assert other != plain
    again, asked = measured(tmp_path / "again", cached.changed(**cut))
    assert again == other and asked == needed - 4 - 2 * 8  # the traces of 4 problems, both ends of 8 traces


def test_scores_pass_through_where_there_are_any(tmp_path: Path) -> None:
    [problem] = countdown.problems(1, split="train")
    engine = ScriptedEngine([problem], ramps([problem], episodes=3))
    cached = CachedEngine(engine, tmp_path, "m")
    assert isinstance(cached, Likelihood) and cached.logprobs == engine.logprobs
    assert not isinstance(CachedEngine(Echo(), tmp_path, "m"), Likelihood)


def test_a_file_of_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("something else, longer than a header of a database would be" * 9)
    with pytest.raises(HeadwayError, match="not a database; expected a file of samples that --cache made; remove it"):
        CachedEngine(Echo(), tmp_path, "m")
    assert (tmp_path / FILE).read_text().startswith("something else")


def test_an_engine_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    class Fails(Echo):
        def sample(self, prompts, params, *, seeds):
            raise HeadwayError("gone")

    with pytest.raises(HeadwayError, match="gone"):
        CachedEngine(Fails(), tmp_path, "m").sample([of(1)], PARAMS, seeds=[1])
    assert sqlite3.connect(tmp_path / FILE).execute("SELECT count(*) FROM samples").fetchall() == [(0,)]


def test_weights_that_change_are_another_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = identity(str(tmp_path))
    assert before == identity(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert identity(str(tmp_path)) != before
