"""What every engine promises; one suite for all."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import server
import tiny
from headway.core.segment import by_tokens
from headway.engines import Connection
from headway.engines.api import APIEngine
from headway.engines.hf import HFEngine, decode
from headway.engines.hf.prefix_cache import Request, shared_prefixes
from headway.engines.scripted import ScriptedEngine, ramps
from headway.engines.streaming import Streaming, in_parts, together
from headway.problems import countdown
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.text.prompts import meta_prover, prompt_ids
from headway.text.tags import find_think_tags
from headway.types import Completion, Engine, HeadwayError, Prompt, SamplingParams, TokenIds

VLLM_HEAD = 32  # the smallest that vLLM computes on a CPU


@pytest.fixture(scope="module")
def vllm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("vllm") / "m", head_dim=VLLM_HEAD)


@pytest.fixture(scope="module")
def vllm_server(vllm_folder: Path) -> Iterator[Engine]:
    """vLLM's own server on loopback, behind the api engine."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port, log = s.getsockname()[1], vllm_folder / "log"
    # not `vllm serve`, which the package for CPUs has broken
    command = f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {vllm_folder} --served-model-name m"
    command += f" --host 127.0.0.1 --port {port} --dtype float32 --kv-cache-memory-bytes {2**27} --enforce-eager"
    command += " --no-enable-chunked-prefill"  # as headway.engines.vllm has it on a CPU
    with log.open("wb") as out, subprocess.Popen(command.split(), stdout=out, stderr=out) as process:
        engine = APIEngine("m", tiny.tokenizer(), Connection(f"http://127.0.0.1:{port}/v1", retries=0))
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()[-3000:]
                try:
                    engine.check()
                    break
                except HeadwayError:
                    time.sleep(1)
            yield engine
        finally:
            engine.close()
            process.terminate()


def vllm_marked(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.vllm) for name in names]


@pytest.fixture(scope="module", params=["scripted", "hf-llama", "hf-qwen2", "api", *vllm_marked("vllm", "vllm-serve")])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    match request.param:
        case "scripted":
            problems = list(countdown.problems(3, split="train"))
            yield ScriptedEngine(problems, ramps(problems))
        case "api":
            with server.serving(HFEngine(tiny.model(), tiny.tokenizer())) as there:
                client = APIEngine("m", tiny.tokenizer(), Connection(there.url, retries=0))
                yield client
                client.close()
        case "vllm":
            from headway.engines import vllm

            arguments = {"kv_cache_memory_bytes": 2**27, "enforce_eager": True}
            folder = str(request.getfixturevalue("vllm_folder"))
            yield vllm.load(folder, dtype="float32", arguments=arguments)
        case "vllm-serve":
            yield request.getfixturevalue("vllm_server")
        case kind:
            yield HFEngine(tiny.model(kind.removeprefix("hf-")), tiny.tokenizer())


def model_behind(engine: Engine, request: pytest.FixtureRequest) -> Any:
    """The weights, to compute by hand what the engine should have done."""
    if isinstance(engine, ScriptedEngine):
        pytest.skip("no model")
    if isinstance(engine, HFEngine):
        return engine.model
    return tiny.model(head_dim=8 if request.node.callspec.params["engine"] == "api" else VLLM_HEAD)


def prompts_of(engine: Engine) -> list[Prompt]:
    tags = find_think_tags(engine.tokenizer, think_open=None, think_close=None)
    return [Prompt.of(prompt_ids(engine.tokenizer, p.prompt, tags)) for p in countdown.problems(3, split="train")]


def said(out: list[list[Completion]]) -> list[list[tuple[tuple[int, ...], str]]]:
    """What was sampled, without the probabilities: their last digits depend on the batch."""
    return [[(c.token_ids, c.stop) for c in samples] for samples in out]


def test_shapes_and_budget(engine: Engine) -> None:
    out = engine.sample(prompts_of(engine), SamplingParams(max_tokens=7, n=3), seeds=[1, 2, 3])
    assert [len(samples) for samples in out] == [3, 3, 3]
    for completion in (c for samples in out for c in samples):
        assert len(completion.token_ids) <= 7
        assert completion.stop == "stop" or len(completion.token_ids) == 7


def test_same_seed_same_samples_and_other_seed_others(engine: Engine) -> None:
    params = SamplingParams(max_tokens=12, n=4)
    prompts = prompts_of(engine)
    first = engine.sample(prompts, params, seeds=[1, 2, 3])
    assert said(engine.sample(prompts, params, seeds=[1, 2, 3])) == said(first)
    if not isinstance(engine, ScriptedEngine):
        assert engine.sample(prompts, params, seeds=[4, 5, 6]) != first


def test_results_do_not_depend_on_batching_or_order(engine: Engine) -> None:
    params = SamplingParams(max_tokens=12, n=2)
    prompts = prompts_of(engine)
    first = prompts[0].ids
    prompts = [*prompts, Prompt(first, len(first), first[-5:]), Prompt(first, len(first) - 3)]
    seeds = list(range(len(prompts)))
    if isinstance(engine, ScriptedEngine):
        prompts, seeds = prompts[:3], seeds[:3]
    together = engine.sample(prompts, params, seeds=seeds)
    alone = [engine.sample([p], params, seeds=[s])[0] for p, s in zip(prompts, seeds, strict=True)]
    backwards = engine.sample(prompts[::-1], params, seeds=seeds[::-1])[::-1]
    assert said(together) == said(alone) == said(backwards)


def test_more_samples_keep_the_first_ones(engine: Engine) -> None:
    few = engine.sample(prompts_of(engine), SamplingParams(max_tokens=9, n=2), seeds=[1, 2, 3])
    many = engine.sample(prompts_of(engine), SamplingParams(max_tokens=9, n=5), seeds=[1, 2, 3])
    assert said([m[:2] for m in many]) == said(few)


@pytest.mark.vllm
@pytest.mark.parametrize("engine", ["vllm", "vllm-serve"], indirect=True)
def test_a_prompt_that_the_model_cannot_hold_is_refused_and_the_next_is_not(engine: Engine) -> None:
    with pytest.raises(HeadwayError, match=r"prompt of 500 tokens with room for 100 more.*512"):
        engine.sample([Prompt.of((9,) * 500)], SamplingParams(max_tokens=100), seeds=[0])
    assert engine.sample([Prompt.of((9,) * 400)], SamplingParams(max_tokens=2), seeds=[0])


def test_a_stream_gives_each_prompts_samples_once_without_those_that_are_done(engine: Engine) -> None:
    params, prompts = SamplingParams(max_tokens=12, n=2), prompts_of(engine)
    whole = said(engine.sample(prompts, params, seeds=[1, 2, 3]))
    parts = list(in_parts(engine, prompts, params, seeds=[1, 2, 3]))
    assert sorted(i for part in parts for i in part) == [0, 1, 2]
    assert said(together(iter(parts), 3)) == whole
    if isinstance(engine, Streaming):
        rest = {i: c for part in engine.stream(prompts, params, seeds=[1, 2, 3], done={0, 2}) for i, c in part.items()}
        assert said([rest[1]]) == [whole[1]]
        assert list(engine.stream(prompts, params, seeds=[1, 2, 3], done={0, 1, 2})) == []
        next(stopped := engine.stream(prompts, params, seeds=[1, 2, 3]))
        del stopped  # in the middle
        assert said(engine.sample(prompts, params, seeds=[1, 2, 3])) == whole


def test_no_prompts_no_completions(engine: Engine) -> None:
    assert engine.sample([], SamplingParams(max_tokens=3), seeds=[]) == []


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_sampling_follows_the_models_own_distribution(kind: str) -> None:
    model, tokenizer = tiny.model(kind, seed=1), tiny.tokenizer()
    prompt = Prompt.of(tuple(tokenizer.encode("<user>2+2", add_special_tokens=False)))
    params = SamplingParams(max_tokens=1, n=4000, temperature=0.7)
    out = HFEngine(model, tokenizer).sample([prompt], params, seeds=[0])[0]
    drawn = [c.token_ids[0] if c.token_ids else 1 for c in out]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt.ids])).logits[0, -1].double() / 0.7, -1).numpy()
    share = np.bincount(drawn, minlength=len(p)) / len(drawn)
    assert np.abs(share - p).max() < 4 * np.sqrt(0.25 / len(drawn))


def test_a_logprob_is_the_completions_own(engine: Engine) -> None:
    """Equal completions are equally likely, and the likelier come the more often: frequencies are probabilities."""
    # one token of a real model; the scripted one decides once, for the whole text
    params = SamplingParams(max_tokens=500 if isinstance(engine, ScriptedEngine) else 1, n=3000)
    out = engine.sample(prompts_of(engine)[:1], params, seeds=[0])[0]
    for drawn, logprob in {(c.token_ids, c.stop): c.logprob for c in out}.items():
        assert logprob is not None and logprob <= 0
        share = np.mean([(c.token_ids, c.stop) == drawn for c in out])
        assert abs(share - np.exp(logprob)) < 5 * np.sqrt(0.25 / len(out))


def logprob_by_hand(model: Any, prompt: Prompt, ids: Sequence[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt.ids, *ids]])).logits[0, len(prompt) - 1 : -1].double()
    return float(torch.log_softmax(logits, -1)[range(len(ids)), ids].sum())


def test_a_logprob_is_the_sum_over_the_completion_and_its_end(engine: Engine, request: pytest.FixtureRequest) -> None:
    model, [prompt, *_] = model_behind(engine, request), prompts_of(engine)
    for params in (SamplingParams(max_tokens=150, n=8), SamplingParams(max_tokens=2, n=2)):
        [out] = engine.sample([prompt], params, seeds=[3])
        assert params.max_tokens > 2 or {c.stop for c in out} == {"length"}
        for c in out:
            ids = [*c.token_ids, *([model.config.eos_token_id] if c.stop == "stop" else [])]
            assert c.logprob == pytest.approx(logprob_by_hand(model, prompt, ids), abs=2e-3)


def test_at_temperature_0_each_sample_is_the_likeliest(engine: Engine, request: pytest.FixtureRequest) -> None:
    model, prompts = model_behind(engine, request), prompts_of(engine)[:2]
    for prompt, out in zip(
        prompts, engine.sample(prompts, SamplingParams(max_tokens=6, n=3, temperature=0), seeds=[0, 1]), strict=True
    ):
        with torch.no_grad():
            ids = torch.tensor([prompt.ids])
            best = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        expected = [t for t in best[0, len(prompt) :].tolist() if t != model.config.eos_token_id]
        assert [list(c.token_ids) for c in out] == [expected] * 3


def test_a_stop_string_ends_a_completion_and_stays_in_it(engine: Engine) -> None:
    if isinstance(engine, ScriptedEngine):
        pytest.skip("the script knows no stop strings")
    [prompt, *_] = prompts_of(engine)

    def text(ids: TokenIds) -> str:
        return engine.tokenizer.decode(ids, skip_special_tokens=False)

    [free] = engine.sample([prompt], SamplingParams(max_tokens=40, n=6), seeds=[0])
    stop = text(free[0].token_ids[3:4])
    [held] = engine.sample([prompt], SamplingParams(max_tokens=40, n=6, stop=("never said", stop)), seeds=[0])
    assert len(held[0].token_ids) <= 4 and held[0].stop == "stop"
    for a, b in zip(free, held, strict=True):
        ends = [k for k in range(1, len(a.token_ids) + 1) if stop in text(a.token_ids[:k])]
        assert (b.token_ids, b.stop) == ((a.token_ids[: ends[0]], "stop") if ends else (a.token_ids, a.stop))


class Recorder:
    """The engine, remembering the prompts it is asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer
        self.prompts: list[TokenIds] = []

    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        self.prompts += [p.ids for p in prompts]
        return self.engine.sample(prompts, params, seeds=seeds)


def test_offsets_align_and_a_branchs_prompt_is_the_sampled_tokens(engine: Engine) -> None:
    recorder, problems = Recorder(engine), list(countdown.problems(2, split="train"))
    tags = find_think_tags(engine.tokenizer, think_open=None, think_close=None)
    grader, prover = InPlace(exact), meta_prover(tags, branches=2, max_tokens=5)
    made = sample(recorder, problems, grader, tags, Sampling(2, 60, 8))
    traces = [trace for chunk in made for trace in chunk]
    assert len(traces) == 4
    for trace in traces:
        assert len(trace.token_ids) <= 68
        begins = [*trace.offsets, len(trace.text)]
        for t, token in enumerate(trace.token_ids):
            piece = engine.tokenizer.decode([token], skip_special_tokens=False)
            assert trace.text[begins[t] : begins[t + 1]] == piece
    recorder.prompts.clear()
    by_id = {p.id: p for p in problems}
    cuts = {t.name: by_tokens(t.thinking, size=16) for t in traces}
    proving = Prover(recorder, prover, by_id, grader=grader, segmenter=lambda t: cuts[t.name])
    branches = [b for chunk in proving.draw(traces) for b in chunk]
    asked = iter(recorder.prompts)
    for trace in traces:
        for boundary in (0, *(episode.stop for episode in cuts[trace.name])):
            prompt = next(asked)
            assert prompt[: len(trace.prompt_ids) + boundary] == trace.prompt_ids + trace.token_ids[:boundary]
    assert len(branches) == 2 * len(recorder.prompts) and all(b.sampled <= 5 for b in branches)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_logprob_is_that_of_the_tempered_distribution(kind: str) -> None:
    model, tokenizer = tiny.model(kind, seed=1), tiny.tokenizer()
    prompt = Prompt.of(tuple(tokenizer.encode("<user>2+2", add_special_tokens=False)))
    out = HFEngine(model, tokenizer).sample([prompt], SamplingParams(max_tokens=30, n=8, temperature=0.8), seeds=[3])
    assert {c.stop for c in out[0]} == {"stop", "length"}
    for completion in out[0]:
        ids = [*completion.token_ids, *([tokenizer.eos_token_id] if completion.stop == "stop" else [])]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt.ids, *ids]])).logits[0, len(prompt) - 1 : -1].double() / 0.8
        expected = torch.log_softmax(logits, -1)[range(len(ids)), ids].sum().item()
        assert completion.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_greedy_from_a_shared_prefix_is_transformers_own_greedy(kind: str) -> None:
    """Boundaries of one trace, as prove asks them: a shared prefix must give what a plain prefill gives."""
    model, tokenizer = tiny.model(kind, seed=2), tiny.tokenizer()
    trace = tuple(np.random.default_rng(0).integers(6, 100, size=60).tolist())
    prompts = [*(Prompt(trace, e, (5, 9, 8)) for e in (20, 33, 47)), Prompt.of(trace)]
    held, [prefix] = shared_prefixes([Request(i, p) for i, p in enumerate(prompts)], None)
    assert not held and sorted(r.shared for r in prefix.requests) == [20, 33, 47, 59]
    out = HFEngine(model, tokenizer).sample(prompts, SamplingParams(max_tokens=8, temperature=0), seeds=[0] * 4)
    for prompt, [completion] in zip(prompts, out, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt.ids])
            expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        ids = expected[0, len(prompt) :].tolist()
        assert list(completion.token_ids) == (ids[: ids.index(1)] if 1 in ids else ids)


def test_small_batches_change_nothing() -> None:
    tokenizer, trace = tiny.tokenizer(), tuple(np.random.default_rng(1).integers(6, 100, size=40).tolist())
    prompts = [*(Prompt(trace, e, (5, 9)) for e in (10, 20, 30)), Prompt.of(trace)]
    params = SamplingParams(max_tokens=6, n=3)
    small = HFEngine(tiny.model(), tokenizer, cache_bytes=1).sample(prompts, params, seeds=range(4))
    assert said(small) == said(HFEngine(tiny.model(), tokenizer).sample(prompts, params, seeds=range(4)))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_branches_beside_each_other_are_those_of_rows_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some end early and leave, some boundaries share a prefix and one prompt shares nothing."""
    trace = tuple(np.random.default_rng(2).integers(6, 100, size=50).tolist())
    prompts = [*(Prompt(trace, e, (5, 9)) for e in (12, 25, 40)), Prompt.of(trace), Prompt.of((3, 4, 60))]
    params = SamplingParams(max_tokens=15, n=5, stop=("a", "e", "1"))
    engine = HFEngine(tiny.model(kind, seed=5), tiny.tokenizer())
    beside = engine.sample(prompts, params, seeds=range(5))
    assert len({len(c.token_ids) for samples in beside for c in samples}) > 5
    monkeypatch.setattr(decode, "SHORT", 0)
    apart = engine.sample(prompts, params, seeds=range(5))
    assert said(beside) == said(apart)
    for a, b in zip((c for s in beside for c in s), (c for s in apart for c in s), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_the_end_of_a_text_is_any_of_the_models_end_tokens() -> None:
    model, tokenizer = tiny.model(seed=1), tiny.tokenizer()
    model.generation_config.eos_token_id = [1, *range(20, 60)]
    prompt = Prompt.of(tuple(tokenizer.encode("<user>2+2", add_special_tokens=False)))
    out = HFEngine(model, tokenizer).sample([prompt], SamplingParams(max_tokens=1, n=400), seeds=[0])[0]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt.ids])).logits[0, -1].double(), -1)
    ended = {c.logprob for c in out if c.stop == "stop"}
    assert len({round(e, 5) for e in ended}) == 1  # whichever of them was drawn
    assert np.exp(ended.pop()) == pytest.approx(p[[1, *range(20, 60)]].sum().item(), rel=1e-4)


def test_top_p_keeps_only_the_likeliest() -> None:
    model, tokenizer = tiny.model(seed=4), tiny.tokenizer()
    prompt = Prompt.of(tuple(tokenizer.encode("<user>x", add_special_tokens=False)))
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt.ids])).logits[0, -1].double(), -1).numpy()
    order = np.argsort(-p)
    kept = set(order[: int(np.searchsorted(np.cumsum(p[order]), 0.3) + 1)].tolist())
    params = SamplingParams(max_tokens=1, n=500, top_p=0.3)
    out = HFEngine(model, tokenizer).sample([prompt], params, seeds=[0])[0]
    assert {c.token_ids[0] if c.token_ids else 1 for c in out} <= kept
