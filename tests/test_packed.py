"""Probabilities of given continuations: against hand-made ones, and against each scored by itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import tiny
from headway.engines import packed
from headway.engines.hf import HFEngine
from headway.engines.scripted import ScriptedEngine, ramps
from headway.engines.trunks import Request
from headway.tasks import countdown
from headway.types import Likelihood

SUFFIX = (5, 9, 8)  # </think>, 9, \boxed{ of the tiny tokenizer
TRACE = tuple(np.random.default_rng(0).integers(6, 100, size=60).tolist())
BOUNDARIES = (20, 33, 47, 60)
ANSWERS = ((30, 31), (30, 31, 40), (30, 52), (77,))


def prompts():
    return [(*TRACE[:e], *SUFFIX) for e in BOUNDARIES]


def bigrams(engine_seed: int = 0):
    """A Llama whose next token depends on the last one alone, with a table of probabilities made by hand."""
    size = len(tiny.tokenizer())
    table = np.random.default_rng(engine_seed).dirichlet(np.full(size, 0.3), size=size) * 0.99 + 0.01 / size
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            head_dim=8, rms_norm_eps=0.0, bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in model.model.layers[0].parameters():
            p.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        # the norm makes a unit vector of length sqrt(size) of the token; the head reads its row of the table
        model.lm_head.weight.copy_(torch.from_numpy(np.log(table).T / math.sqrt(size)))
    return model, table


@pytest.mark.parametrize("separately", [False, True])
def test_likelihoods_are_those_made_by_hand(separately):
    model, table = bigrams()
    engine = HFEngine(model, tiny.tokenizer())
    engine._shares = not separately
    brace = engine.tokenizer.encode("}", add_special_tokens=False)[0]
    got = engine.logprobs(prompts(), [ANSWERS] * 4, ends=("}",))
    for answer, logprob in zip(ANSWERS * 4, itertools.chain(*got), strict=True):
        path = [SUFFIX[-1], *answer]
        by_hand = math.prod(table[a, b] for a, b in itertools.pairwise(path))
        by_hand *= table[answer[-1], 1] + table[answer[-1], brace]  # the end of the text, or the brace
        assert math.exp(logprob) == pytest.approx(by_hand, rel=1e-4)
    assert max(map(max, got)) < math.log(0.9)  # nothing is certain


def test_probabilities_of_all_answers_of_one_token_add_up():
    """One token, then an end: by enumeration this is the chance that the completion has one token before its end."""
    model, table = bigrams(1)
    engine = HFEngine(model, tiny.tokenizer())
    size = len(table)
    [got] = engine.logprobs([SUFFIX], [[(t,) for t in range(size)]], ends=())
    assert np.exp(got).sum() == pytest.approx(table[SUFFIX[-1]] @ table[:, 1], rel=1e-4)


def alone(model, prompt, answer, closers, temperature=1.0):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)
    steps = sum(logprobs[len(prompt) - 1 + i, t].item() for i, t in enumerate(answer))
    return steps + logprobs[-1, closers].logsumexp(-1).item()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_packed_likelihoods_are_those_of_separate_forwards(kind, attention):
    model, tokenizer = tiny.model(kind, seed=1), tiny.tokenizer()
    model.set_attn_implementation(attention)
    engine = HFEngine(model, tokenizer)
    closers = [1, tokenizer.convert_tokens_to_ids("}"), tokenizer.convert_tokens_to_ids("\n"), 6]
    assert engine._closers(("}", "\n")).tolist() == sorted(closers)
    # two traces, and a prompt that shares nothing
    other = [(*TRACE[::-1][:e], *SUFFIX) for e in (25, 50)]
    asked = [*prompts(), *other, (3, 4)]
    answers = [ANSWERS, ANSWERS[:1], (), ANSWERS, ANSWERS[2:], ANSWERS, ANSWERS]
    got = engine.logprobs(asked, answers, ends=("}", "\n"), temperature=0.8)
    assert [len(g) for g in got] == [len(a) for a in answers]
    for prompt, some, logprobs in zip(asked, answers, got, strict=True):
        for answer, logprob in zip(some, logprobs, strict=True):
            assert logprob == pytest.approx(alone(model, prompt, answer, closers, 0.8), abs=1e-5)


def test_memory_divides_the_work_and_changes_nothing(monkeypatch):
    engine = HFEngine(tiny.model(seed=1), tiny.tokenizer())
    whole = engine.logprobs(prompts(), [ANSWERS] * 4, ends=("}",))
    monkeypatch.setattr(packed, "ENTRIES", 1)
    small = HFEngine(engine.model, engine.tokenizer, cache_bytes=1).logprobs(prompts(), [ANSWERS] * 4, ends=("}",))
    assert np.allclose(whole, small, atol=1e-5)


def test_a_sliding_window_is_scored_with_whole_prompts():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    config = MistralConfig(
        vocab_size=len(tiny.tokenizer()), num_key_value_heads=2, sliding_window=16, initializer_range=0.3,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, **sizes,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    engine = HFEngine(model, tiny.tokenizer())
    assert not engine._shares
    got = engine.logprobs(prompts(), [ANSWERS] * 4, ends=())
    for prompt, logprobs in zip(prompts(), got, strict=True):
        for answer, logprob in zip(ANSWERS, logprobs, strict=True):
            assert logprob == pytest.approx(alone(model, prompt, answer, [1]), abs=1e-5)


def test_a_node_sees_its_prefix_and_nothing_beside_it():
    requests = [Request(0, (10, 11, 12, 13), 0, shared=2), Request(1, (10, 11, 14), 0, shared=1)]
    tree = packed.grow(requests, [[(1, 2), (1, 3)], [(1,)]])
    assert tree.tokens.tolist() == [12, 13, 1, 2, 3, 11, 14, 1]
    assert tree.parent.tolist() == [-1, 0, 1, 2, 2, -1, 5, 6]
    assert tree.position.tolist() == [2, 3, 4, 5, 5, 1, 2, 3]
    assert tree.shared.tolist() == [2] * 5 + [1] * 3
    assert tree.ends == {0: [3, 4], 1: [7]}
    seen = tree.sees
    assert np.flatnonzero(seen[4]).tolist() == [0, 1, 2, 4]
    assert np.flatnonzero(seen[7]).tolist() == [5, 6, 7]


def test_nothing_asked_and_what_cannot_be():
    engine = HFEngine(tiny.model(), tiny.tokenizer())
    assert isinstance(engine, Likelihood)
    assert engine.logprobs([], [], ends=("}",)) == []
    assert engine.logprobs([TRACE], [()], ends=("}",)) == [[]]
    with pytest.raises(ValueError, match="at least one token"):
        engine.logprobs([TRACE], [[()]], ends=("}",))
    with pytest.raises(ValueError, match="temperature above 0"):
        engine.logprobs([TRACE], [[(3,)]], ends=("}",), temperature=0.0)


def test_the_scripted_engine_knows_its_own_probabilities():
    [problem] = countdown.problems(1, split="train")
    engine = ScriptedEngine([problem], ramps([problem], episodes=3))
    assert isinstance(engine, Likelihood)
    prompt = f"<user>{problem.prompt}<assistant><think>Okay\n\nThis is step 1.\n\n</think>\\boxed{{"
    asked = [tuple(map(ord, text)) for text in (problem.answer, f"not {problem.answer}", "7")]
    [got] = engine.logprobs([tuple(map(ord, prompt))], [asked], ends=("}",))
    p = engine.values[problem.id][1]
    assert np.exp(got) == pytest.approx([p, 1 - p, 0.0])
