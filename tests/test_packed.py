"""Probabilities of given continuations: against hand-made ones, and against each scored by itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

import tiny
from headway.engines.hf import HFEngine, batching, token_tree
from headway.engines.hf.compat import recording
from headway.engines.hf.prefix_cache import PrefixCache, Request, shared_prefixes
from headway.engines.scripted import ScriptedEngine, ramps
from headway.problems import countdown
from headway.types import Continuation, Likelihood, Prompt, SamplingParams

SUFFIX = (5, 9, 8)  # </think>, 9, \boxed{ of the tiny tokenizer
TRACE = tuple(np.random.default_rng(0).integers(6, 100, size=60).tolist())
BOUNDARIES = (20, 33, 47, 60)
ANSWERS = ((30, 31), (30, 31, 40), (30, 52), (77,))
ASKED = tuple(map(Continuation, ANSWERS))


def prompts():
    return [Prompt(TRACE, e, SUFFIX) for e in BOUNDARIES]


def bigrams(seed: int = 0):
    """A model whose next token depends on the last one alone, and its table of probabilities, made by hand."""
    size = len(tiny.tokenizer())
    table = np.random.default_rng(seed).dirichlet(np.full(size, 0.3), size=size) * 0.99 + 0.01 / size
    return tiny.bigrams(table), table


@pytest.mark.parametrize("separately", [False, True])
def test_likelihoods_are_those_made_by_hand(separately):
    model, table = bigrams()
    engine = HFEngine(model, tiny.tokenizer())
    engine.language_model.full_attention = not separately
    brace = engine.tokenizer.encode("}", add_special_tokens=False)[0]
    got = engine.logprobs(prompts(), [ASKED] * 4, ends=("}",))
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
    [got] = engine.logprobs([Prompt.of(SUFFIX)], [[Continuation((t,)) for t in range(size)]], ends=())
    assert np.exp(got).sum() == pytest.approx(table[SUFFIX[-1]] @ table[:, 1], rel=1e-4)


def alone(model, prompt, answer, closers, temperature=1.0):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt.ids, *answer]])).logits[0].double() / temperature
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
    assert engine.vocabulary.closing("", ("}", "\n")) == tuple(sorted(closers))
    # two traces, and a prompt that shares nothing
    other = [Prompt(TRACE[::-1], e, SUFFIX) for e in (25, 50)]
    asked = [*prompts(), *other, Prompt.of((3, 4))]
    answers = [ANSWERS, ANSWERS[:1], (), ANSWERS, ANSWERS[2:], ANSWERS, ANSWERS]
    got = engine.logprobs(asked, [[*map(Continuation, some)] for some in answers], ends=("}", "\n"), temperature=0.8)
    assert [len(g) for g in got] == [len(a) for a in answers]
    for prompt, some, logprobs in zip(asked, answers, got, strict=True):
        for answer, logprob in zip(some, logprobs, strict=True):
            assert logprob == pytest.approx(alone(model, prompt, answer, closers, 0.8), abs=1e-5)


def test_an_unlikely_beginning_is_not_followed():
    """Each wave goes on with what is at most 10,000 times less likely than the likeliest of its prompt."""
    model, table = bigrams(2)
    engine = HFEngine(model, tiny.tokenizer())
    rng = np.random.default_rng(0)
    likely, found = [SUFFIX[-1]], []
    for _ in range(8):
        likely.append(int(table[likely[-1]].argmax()))
    for _ in range(200):  # from one of the likeliest on, at random
        k = int(rng.integers(1, 8))
        found.append((*likely[1 : k + 1], *rng.integers(6, len(table), 8 - k).tolist()))
    asked = list(dict.fromkeys([tuple(likely[1:]), *found]))
    [got] = engine.logprobs([Prompt.of(SUFFIX)], [[*map(Continuation, asked)]], ends=())

    def by_hand(path):
        return sum(math.log(table[a, b]) for a, b in itertools.pairwise((SUFFIX[-1], *path)))

    best = {depth: max(by_hand(path[: depth + 1]) for path in asked) for depth in (3, 6)}
    far = [any(by_hand(path[: d + 1]) < best[d] - math.log(1e4) for d in best) for path in asked]
    assert 20 < sum(far) < len(asked) - 20
    for path, logprob, lost in zip(asked, got, far, strict=True):
        assert logprob == (
            -math.inf if lost else pytest.approx(by_hand(path) + math.log(table[path[-1], 1]), abs=1e-4)
        )
    missing = sum(
        math.exp(by_hand(path) + math.log(table[path[-1], 1])) for path, lost in zip(asked, far, strict=True) if lost
    )
    assert missing <= sum(far) * 1e-4 * math.exp(max(best.values()))


def generated(kind, wrap=lambda model: model, **options):
    """A model that has sampled after two prompts of unlike lengths, what it wrote, and the cache of it."""
    model = wrap(tiny.model(kind, seed=1))
    ids = torch.tensor([[0, 0, 0, *TRACE[:9]], TRACE[10:22]])
    torch.manual_seed(0)
    with recording(model) as recorder:
        rows = model.generate(
            input_ids=ids,
            attention_mask=(ids != 0).long(),
            do_sample=True,
            max_new_tokens=40,
            min_new_tokens=40,
            **options,
        ).tolist()
    return model, (tuple(rows[0][3:]), tuple(rows[1])), PrefixCache.recorded(recorder)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_what_sampling_has_computed_is_not_computed_again(kind):
    model, rows, cache = generated(kind)
    engine = HFEngine(model, tiny.tokenizer())
    prompts = [Prompt(row, e, SUFFIX) for row in rows for e in (9, 20, len(row))]
    prompts += [Prompt.of((*TRACE[::-1], *TRACE, *SUFFIX))]
    params = SamplingParams(n=3, max_tokens=4, stop=("}",))
    held, [rest] = shared_prefixes([Request(i, p) for i, p in enumerate(prompts)], cache)
    assert [(p.row, p.token_ids, [r.place for r in p.requests]) for p in held] == [
        (1, rows[1][:-1], [5, 4, 3]), (0, rows[0][:-1], [2, 1, 0])
    ]  # fmt: skip
    assert rest.cache is None and [r.place for r in rest.requests] == [6]

    def ask():
        computed = []
        hook = model.register_forward_pre_hook(
            lambda _, __, o: computed.append(o["input_ids"].numel()), with_kwargs=True
        )
        scored = engine.logprobs(prompts, [ASKED] * len(prompts), ends=("}",))
        scores, computed[:] = sum(computed), []
        drawn = engine.sample(prompts, params, seeds=list(range(len(prompts))))
        hook.remove()
        return scored, drawn, scores, sum(computed)

    scored, drawn, scores, draws = ask()
    engine.prefix_cache = cache
    again, redrawn, fewer_scores, fewer_draws = ask()
    assert np.allclose(scored, again, atol=1e-5)
    assert [[c.token_ids for c in some] for some in drawn] == [[c.token_ids for c in some] for some in redrawn]
    # all but the last token of the rows was there
    most = sum(map(len, rows)) - 2
    assert scores - fewer_scores >= most and draws - fewer_draws >= most


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # by peft
def test_adapters_are_recorded_and_what_forgets_is_not():
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model, rows, cache = generated("llama", lambda model: get_peft_model(model, lora).eval())
    engine = HFEngine(model, tiny.tokenizer())
    prompts = [Prompt(rows[0], 30, SUFFIX)]
    before = engine.logprobs(prompts, [ASKED], ends=())
    engine.prefix_cache = cache
    assert cache is not None and np.allclose(before, engine.logprobs(prompts, [ASKED], ends=()), atol=1e-5)
    for options in (dict(use_cache=False), dict(cache_implementation="static")):
        assert generated("llama", **options)[2] is None
    dropout = LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5)
    assert generated("llama", lambda model: get_peft_model(model, dropout).train())[2] is None


def test_memory_divides_the_work_and_changes_nothing(monkeypatch):
    engine = HFEngine(tiny.model(seed=1), tiny.tokenizer())
    whole = engine.logprobs(prompts(), [ASKED] * 4, ends=("}",))
    monkeypatch.setattr(batching, "MAX_ENTRIES", 1)
    small = HFEngine(engine.model, engine.tokenizer, cache_bytes=1).logprobs(prompts(), [ASKED] * 4, ends=("}",))
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
    assert not engine.language_model.full_attention
    got = engine.logprobs(prompts(), [ASKED] * 4, ends=())
    for prompt, logprobs in zip(prompts(), got, strict=True):
        for answer, logprob in zip(ANSWERS, logprobs, strict=True):
            assert logprob == pytest.approx(alone(model, prompt, answer, [1]), abs=1e-5)


def test_a_node_sees_its_prefix_and_nothing_beside_it():
    requests = [Request(0, Prompt.of((10, 11, 12, 13)), shared=2), Request(1, Prompt.of((10, 11, 14)), shared=1)]
    tree = token_tree.build(requests, [[(1, 2), (1, 3)], [(1,)]])
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
    assert engine.logprobs([Prompt.of(TRACE)], [()], ends=("}",)) == [[]]
    with pytest.raises(ValueError, match="at least one token"):
        engine.logprobs([Prompt.of(())], [ASKED], ends=("}",))
    with pytest.raises(ValueError, match="temperature above 0"):
        engine.logprobs([Prompt.of(TRACE)], [ASKED], ends=("}",), temperature=0.0)


def test_the_scripted_engine_knows_its_own_probabilities():
    [problem] = countdown.problems(1, split="train")
    engine = ScriptedEngine([problem], ramps([problem], episodes=3))
    assert isinstance(engine, Likelihood)
    prompt = f"<user>{problem.prompt}<assistant><think>Okay\n\nThis is step 1.\n\n</think>\\boxed{{"
    asked = [Continuation(tuple(map(ord, text))) for text in (problem.answer, f"not {problem.answer}", "7")]
    [got] = engine.logprobs([Prompt.of(tuple(map(ord, prompt)))], [asked], ends=("}",))
    p = engine.values[problem.id][1]
    assert np.exp(got) == pytest.approx([p, 1 - p, 0.0])
    [melted] = engine.logprobs([Prompt.of(tuple(map(ord, prompt)))], [[asked[0]._replace(rest="0")]], ends=("}",))
    assert melted == [-math.inf]  # its tokens are single characters
