"""The context window: prompts that leave no room are refused, and what goes beyond it is counted and said."""

import json
import logging
from pathlib import Path

import pytest

import tiny
from headway.engines.window import Beyond, context_window, counting, refuse_beyond
from headway.problems import ProblemSet
from headway.runs.importers.rows import ImportOptions
from headway.runs.importers.run import import_traces
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.types import HeadwayError, Problem, Prompt

EXTRAS = pytest.mark.extras
WINDOW = 512  # of the tiny model


class Config:
    def __init__(self, **settings: object) -> None:
        self.__dict__.update(settings)

    def get_text_config(self) -> "Config":
        return self.__dict__.get("text_config", self)


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (Config(max_position_embeddings=1024), 1024),
        (Config(), None),
        (Config(max_position_embeddings=None), None),
        (Config(max_position_embeddings=-1), None),
        (Config(max_position_embeddings=4096, rope_parameters={"rope_type": "default", "rope_theta": 1e4}), 4096),
        (
            Config(
                max_position_embeddings=32768,
                rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            ),
            131072,
        ),
        (  # the limit is given as scaled already
            Config(
                max_position_embeddings=131072,
                rope_parameters={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
            ),
            131072,
        ),
        (
            Config(
                max_position_embeddings=131072,
                rope_parameters={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
            ),
            131072,
        ),
        (Config(max_position_embeddings=4096, rope_scaling={"type": "linear", "factor": 2.0}), 8192),
        (
            Config(
                max_position_embeddings=4096,
                rope_parameters={
                    "full_attention": {"rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_type": "default"},
                },
            ),
            32768,
        ),
        (Config(text_config=Config(max_position_embeddings=64)), 64),
    ],
)
def test_the_window_of_a_configuration(config: Config, window: int | None) -> None:
    assert context_window(config) == window


def test_what_just_fits_is_not_beyond(caplog: pytest.LogCaptureFixture) -> None:
    refuse_beyond([Prompt.of((1,) * 6)], 4, 10, "or not")
    with pytest.raises(HeadwayError, match=r"1 of 2 prompts are too long: a prompt of 7 tokens with room for 4"):
        refuse_beyond([Prompt.of((1,) * 6), Prompt.of((1,) * 7)], 4, 10, "or not")
    with counting(10, "texts are longer", "shorten them") as fits, counting(None, "texts", "") as unlimited:
        fits.see([9, 10])
        unlimited.see([10**9])
    assert not caplog.records and (fits.seen, unlimited.seen) == (2, 0)
    with counting(10, "texts are longer", "shorten them") as counter:
        counter.see([9, 11, 10, 14])
    assert "2 of 4 texts are longer than the 10 tokens" in caplog.text and "up to 14" in caplog.text
    assert isinstance(counter, Beyond)


def settings(folder: Path, **options: object) -> Settings:
    sizes = dict(traces=2, budget=16, answer_tokens=4, branches=1, segment="tokens", episode_tokens=8, grader="exact")
    return Settings.of(model=str(folder), **({"problems": "own"} | sizes | options))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("m"))


def problem_set(*lengths: int) -> ProblemSet:
    """Problems whose prompts have so many tokens: one for each character, and some for the template."""
    tokenizer = tiny.tokenizer()
    bare = len(tokenizer.encode(tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], add_generation_prompt=True, tokenize=False), add_special_tokens=False
    ))  # fmt: skip
    return ProblemSet("own", [Problem(str(i), "1" * (n - bare + 1), "4") for i, n in enumerate(lengths)], "exact")


@EXTRAS
def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_sampled(model: Path, tmp_path: Path) -> None:
    asked = problem_set(30, 900, 700)
    with Measurement.create(tmp_path / "r", settings(model), problems=asked) as run:
        with pytest.raises(HeadwayError, match=r"2 of 3 prompts are too long: .* 512 tokens.*longest prompt has 900"):
            run.sample()
        assert len(run.run.traces()) == 0


@EXTRAS
def test_traces_and_branches_beyond_the_window_are_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = problem_set(30, 505)
    with Measurement.create(tmp_path / "r", settings(model), problems=asked) as run:
        run.sample()
        long = sum(len(t.prompt_ids) + len(t.token_ids) > WINDOW for t in run.run.traces())
        assert long and f"{long} of 4 traces are longer than the 512 tokens" in caplog.text
        run.prove()
    assert "boundaries, with the forced text and an answer, are longer than the 512 tokens" in caplog.text
    caplog.clear()
    with Measurement.create(tmp_path / "s", settings(model), problems=problem_set(30, 100)) as run:
        run.all()
    assert not caplog.records


@EXTRAS
def test_a_budget_beyond_the_window_is_said(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for budget, said in ((WINDOW + 1, True), (WINDOW, False)):
        caplog.clear()
        with Measurement.create(
            tmp_path / str(budget), settings(model, budget=budget, traces=1), problems=problem_set(30)
        ) as run:
            run.sample()
        assert (f"--budget {budget} is more than the 512 tokens" in caplog.text) == said


@EXTRAS
def test_imported_traces_beyond_the_window_are_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"id": str(n), "prompt": "1+1", "completion": "<think>" + "1" * n + "</think>\\boxed{2}", "answer": "2"}
        for n in (40, 400, 600, 800)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    caplog.set_level(logging.WARNING)
    import_traces(file, tmp_path / "r", settings(model, problems="countdown"), ImportOptions(author="x"))
    assert "2 of 4 traces, with a forced answer, are longer than the 512 tokens" in caplog.text
    caplog.clear()
    import_traces(file, tmp_path / "s", settings(model, problems="countdown"), ImportOptions(author="x", budget=300))
    assert not caplog.records


@EXTRAS
def test_a_model_with_an_embedding_for_each_position_refuses_what_it_cannot_compute() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from headway.engines.hf import HFEngine
    from headway.types import Continuation, SamplingParams

    tokenizer = tiny.tokenizer()
    sizes = dict(n_positions=24, n_embd=16, n_layer=1, n_head=2, eos_token_id=1, bos_token_id=0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    engine, prompt = HFEngine(model, tokenizer), Prompt.of((9,) * 20)
    assert engine.window == 24 and len(engine.sample([prompt], SamplingParams(4, n=2), seeds=[0])[0]) == 2
    with pytest.raises(HeadwayError, match="a prompt of 20 tokens with room for 5 more is over the 24"):
        engine.sample([prompt], SamplingParams(5), seeds=[0])
    with pytest.raises(HeadwayError, match="is over the 24"):
        engine.logprobs([prompt], [[Continuation((9,) * 5)]], ends=("1",))
