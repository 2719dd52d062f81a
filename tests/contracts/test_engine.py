"""What every engine promises; one suite for all."""

import numpy as np
import pytest
import torch

import tiny
from headway.engines import hf
from headway.engines.hf import HFEngine
from headway.engines.scripted import ScriptedEngine, ramps
from headway.engines.trunks import Request, find_trunks
from headway.tasks import countdown
from headway.types import Completion, Engine, SamplingParams


@pytest.fixture(scope="module", params=["scripted", "hf-llama", "hf-qwen2"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "scripted":
        problems = list(countdown.problems(3, split="train"))
        return ScriptedEngine(problems, ramps(problems))
    return HFEngine(tiny.model(request.param.removeprefix("hf-")), tiny.tokenizer())


def prompts_of(engine: Engine) -> list[tuple[int, ...]]:
    texts = [f"<user>{p.prompt}<assistant><think>" for p in countdown.problems(3, split="train")]
    return [tuple(engine.tokenizer.encode(text, add_special_tokens=False)) for text in texts]


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
    assert engine.sample(prompts, params, seeds=[1, 2, 3]) == first
    if isinstance(engine, HFEngine):
        assert engine.sample(prompts, params, seeds=[4, 5, 6]) != first


def test_results_do_not_depend_on_batching_or_order(engine: Engine) -> None:
    params = SamplingParams(max_tokens=12, n=2)
    prompts = prompts_of(engine)
    prompts = [*prompts, prompts[0] + prompts[0][-5:], prompts[0][:-3]]
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


def test_no_prompts_no_completions(engine: Engine) -> None:
    assert engine.sample([], SamplingParams(max_tokens=3), seeds=[]) == []


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_sampling_follows_the_models_own_distribution(kind: str) -> None:
    model, tokenizer = tiny.model(kind, seed=1), tiny.tokenizer()
    prompt = tuple(tokenizer.encode("<user>2+2", add_special_tokens=False))
    params = SamplingParams(max_tokens=1, n=4000, temperature=0.7)
    out = HFEngine(model, tokenizer).sample([prompt], params, seeds=[0])[0]
    drawn = [c.token_ids[0] if c.token_ids else 1 for c in out]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double() / 0.7, -1).numpy()
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


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_logprob_is_the_sum_over_the_completion_and_its_end(kind: str) -> None:
    model, tokenizer = tiny.model(kind, seed=1), tiny.tokenizer()
    prompt = tuple(tokenizer.encode("<user>2+2", add_special_tokens=False))
    out = HFEngine(model, tokenizer).sample([prompt], SamplingParams(max_tokens=30, n=8, temperature=0.8), seeds=[3])
    assert {c.stop for c in out[0]} == {"stop", "length"}
    for completion in out[0]:
        ids = [*completion.token_ids, *([tokenizer.eos_token_id] if completion.stop == "stop" else [])]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].double() / 0.8
        expected = torch.log_softmax(logits, -1)[range(len(ids)), ids].sum().item()
        assert completion.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_greedy_from_a_shared_trunk_is_transformers_own_greedy(kind: str) -> None:
    """Boundaries of one trace, as prove asks them: what the trunk's cache gives must be what a plain prefill gives."""
    model, tokenizer = tiny.model(kind, seed=2), tiny.tokenizer()
    trace = tuple(np.random.default_rng(0).integers(6, 100, size=60).tolist())
    prompts = [(*trace[:e], 5, 9, 8) for e in (20, 33, 47)] + [trace]
    trunks = find_trunks([Request(i, p, i) for i, p in enumerate(prompts)])
    assert len(trunks) == 1 and sorted(r.shared for r in trunks[0].requests) == [20, 33, 47, 59]
    out = HFEngine(model, tokenizer).sample(prompts, SamplingParams(max_tokens=8, temperature=0), seeds=[0] * 4)
    for prompt, [completion] in zip(prompts, out, strict=True):
        with torch.no_grad():
            ids = torch.tensor([prompt])
            expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        ids = expected[0, len(prompt) :].tolist()
        assert list(completion.token_ids) == (ids[: ids.index(1)] if 1 in ids else ids)


def test_small_batches_change_nothing() -> None:
    tokenizer, trace = tiny.tokenizer(), tuple(np.random.default_rng(1).integers(6, 100, size=40).tolist())
    prompts = [(*trace[:e], 5, 9) for e in (10, 20, 30)] + [trace]
    params = SamplingParams(max_tokens=6, n=3)
    small = HFEngine(tiny.model(), tokenizer, cache_bytes=1).sample(prompts, params, seeds=range(4))
    assert said(small) == said(HFEngine(tiny.model(), tokenizer).sample(prompts, params, seeds=range(4)))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_branches_beside_each_other_are_those_of_rows_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some end early and leave, some boundaries share a trunk and one prompt shares nothing."""
    trace = tuple(np.random.default_rng(2).integers(6, 100, size=50).tolist())
    prompts = [(*trace[:e], 5, 9) for e in (12, 25, 40)] + [trace, (3, 4, 60)]
    params = SamplingParams(max_tokens=15, n=5, stop=("a", "e", "1"))
    engine = HFEngine(tiny.model(kind, seed=5), tiny.tokenizer())
    beside = engine.sample(prompts, params, seeds=range(5))
    assert len({len(c.token_ids) for samples in beside for c in samples}) > 5
    monkeypatch.setattr(hf, "SHORT", 0)
    apart = engine.sample(prompts, params, seeds=range(5))
    assert said(beside) == said(apart)
    for a, b in zip((c for s in beside for c in s), (c for s in apart for c in s), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_the_end_of_a_text_is_any_of_the_models_end_tokens() -> None:
    model, tokenizer = tiny.model(seed=1), tiny.tokenizer()
    model.generation_config.eos_token_id = [1, *range(20, 60)]
    prompt = tuple(tokenizer.encode("<user>2+2", add_special_tokens=False))
    out = HFEngine(model, tokenizer).sample([prompt], SamplingParams(max_tokens=1, n=400), seeds=[0])[0]
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double(), -1)
    ended = {c.logprob for c in out if c.stop == "stop"}
    assert len({round(e, 5) for e in ended}) == 1  # whichever of them was drawn
    assert np.exp(ended.pop()) == pytest.approx(p[[1, *range(20, 60)]].sum().item(), rel=1e-4)


def test_a_stop_string_ends_a_completion_and_stays_in_it() -> None:
    engine = HFEngine(tiny.model(seed=3), tiny.tokenizer())
    prompt = prompts_of(engine)[0]
    params = SamplingParams(max_tokens=200, n=8, stop=("q", "Z"))
    texts = [
        engine.tokenizer.decode(c.token_ids, skip_special_tokens=False)
        for c in engine.sample([prompt], params, seeds=[0])[0]
    ]
    stopped = [t for t in texts if t.endswith(("q", "Z"))]
    assert stopped and all("q" not in t[:-1] and "Z" not in t[:-1] for t in texts)


def test_top_p_keeps_only_the_likeliest() -> None:
    model, tokenizer = tiny.model(seed=4), tiny.tokenizer()
    prompt = tuple(tokenizer.encode("<user>x", add_special_tokens=False))
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt])).logits[0, -1].double(), -1).numpy()
    order = np.argsort(-p)
    kept = set(order[: int(np.searchsorted(np.cumsum(p[order]), 0.3) + 1)].tolist())
    params = SamplingParams(max_tokens=1, n=500, top_p=0.3)
    out = HFEngine(model, tokenizer).sample([prompt], params, seeds=[0])[0]
    assert {c.token_ids[0] if c.token_ids else 1 for c in out} <= kept
