"""What the engine relies on inside transformers; another version that breaks one of these fails here by name."""

import copy
import inspect
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DynamicCache, MistralConfig
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

import tiny
from headway.engines.hf import HFEngine, compat
from headway.engines.hf.compat import GrowingLayer, LanguageModel, Recorder, additive, attends_to_all, stop_strings
from headway.types import Continuation, HeadwayError, Prompt, SamplingParams

IDS = torch.tensor([[5, 9, 8, 30, 31, 40]])
SEES = torch.ones(1, 6, dtype=torch.bool)
POSITIONS = torch.arange(6)[None]


@pytest.fixture(autouse=True)
def _warned_anew() -> Iterator[None]:
    compat.warn_once.cache_clear()
    yield
    compat.warn_once.cache_clear()


def model(kind: str = "llama") -> LanguageModel:
    return LanguageModel(tiny.model(kind, seed=1), 2**20)


# -- the forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@torch.no_grad()
def test_logits_to_keep_takes_a_number_and_indices(kind: str) -> None:
    made = model(kind)
    whole = made.forward(IDS, SEES, POSITIONS)
    assert whole.shape[:2] == (1, 6)
    assert torch.allclose(made.forward(IDS, SEES, POSITIONS, keep=2), whole[:, -2:], atol=1e-5)
    kept = made.forward(IDS, SEES, POSITIONS, keep=torch.tensor([0, 3]))
    assert torch.allclose(kept, whole[:, [0, 3]], atol=1e-5)


def test_a_forward_that_ignores_logits_to_keep_is_refused() -> None:
    """Logits of other tokens are silent otherwise: log-probabilities are wrong by tenths."""
    engine = HFEngine(tiny.model(seed=1), tiny.tokenizer())
    forward = engine.model.forward
    engine.model.forward = lambda logits_to_keep, **options: forward(**options)
    prompts = [Prompt((*range(10, 40),), stop, (5, 9, 8)) for stop in (10, 20, 30)]
    with pytest.raises(HeadwayError, match=r"LlamaForCausalLM ignores logits_to_keep: got .* expected"):
        engine.logprobs(prompts, [(Continuation((30, 31)),)] * 3, ends=())
    with pytest.raises(HeadwayError, match="ignores logits_to_keep"):
        engine.sample(prompts, SamplingParams(max_tokens=2), seeds=[0, 1, 2])


@pytest.mark.parametrize("attention", compat.TREE_ATTENTION)
@torch.no_grad()
def test_a_4d_mask_is_added_as_it_is(attention: str) -> None:
    """The second half attends to the first token and itself: it is a sequence of its own, with its own positions."""
    made = model()
    made.model.set_attn_implementation(attention)
    sees = torch.ones(6, 6, dtype=torch.bool).tril()
    sees[3:, 1:3] = False
    got = made.forward(IDS, sees[None], torch.tensor([[0, 1, 2, 1, 2, 3]]))
    alone = made.forward(IDS[:, [0, 3, 4, 5]], SEES[:, :4], POSITIONS[:, :4])
    assert torch.allclose(got[:, 3:], alone[:, 1:], atol=1e-5)
    assert not torch.allclose(got[:, 3:], made.forward(IDS, SEES, POSITIONS)[:, 3:], atol=1e-2)
    mask = additive(sees[None], torch.float32)
    assert mask.shape == (1, 1, 6, 6) and (mask == 0).sum() == sees.sum()


def test_the_name_of_the_attention_is_read_and_an_unknown_one_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made = model()
    assert made.model.config._attn_implementation == "sdpa" and made.takes_trees
    made.model.config._attn_implementation_internal = "flash_attention_2"
    with caplog.at_level(logging.WARNING):
        assert not made.takes_trees and not made.takes_trees
    [record] = caplog.records
    assert "'flash_attention_2' takes no 4-D mask" in record.message and "sdpa" in record.message


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_configurations_have_the_names_that_sizes_come_from(kind: str) -> None:
    made = model(kind)
    config = made.model.config.get_text_config()
    expected = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert made.max_tokens == 2**20 // expected == 2**20 // (2 * 2 * 2 * 8 * 4)
    assert made.vocabulary == made.model.get_output_embeddings().weight.shape[0]
    assert config.attention_dropout == 0
    unknown = SimpleNamespace(num_hidden_layers=2, num_attention_heads=4, hidden_size=32)
    config = SimpleNamespace(get_text_config=lambda: unknown)
    with pytest.raises(HeadwayError, match="SimpleNamespace has no vocab_size; expected a decoder"):
        LanguageModel(SimpleNamespace(config=config, dtype=torch.float32), 2**20)


def test_stop_strings_need_token_ids_alone() -> None:
    tokenizer = tiny.tokenizer()
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False) for text in ("1234", "1294")])
    assert stop_strings(tokenizer, ("34", "x"))(ids).tolist() == [True, False]


# -- the cache --------------------------------------------------------------------------------------------------------


def test_full_attention_is_what_all_layers_say_and_no_layers_say_nothing() -> None:
    assert not attends_to_all(DynamicCache())  # no layers yet: nothing is known
    assert attends_to_all(DynamicCache(config=tiny.model().config))
    assert not attends_to_all(DynamicCache(config=MistralConfig(sliding_window=16)))
    cache = DynamicCache(config=tiny.model().config)
    cache.update(torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8), 0)
    assert not attends_to_all(cache, 3)  # the second layer is empty


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "reorder_cache": lambda layer: layer.reorder_cache(torch.tensor([1, 0])),
    "batch_select_indices": lambda layer: layer.batch_select_indices(torch.tensor([1])),
    "batch_repeat_interleave": lambda layer: layer.batch_repeat_interleave(3),
    "crop": lambda layer: layer.crop(-2),
    "crop to nothing": lambda layer: layer.crop(-5),
    "reset": lambda layer: layer.reset(),
    "offload and prefetch": lambda layer: (layer.offload(), layer.prefetch()),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_growing_layer_is_a_dynamic_layer_after_any_operation(operation: str) -> None:
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()

    def append(n: int) -> None:
        rows = theirs.keys.shape[0] if theirs.is_initialized else 2
        keys, values = torch.randn(2, rows, 3, n, 4)
        for a, b in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(a, b)

    append(4)
    append(1)
    OPERATIONS[operation](ours)
    OPERATIONS[operation](theirs)
    assert ours.get_seq_length() == theirs.get_seq_length()
    for n in (1, 1, 200, 1):  # in place, and past the room
        append(n)
    twin = copy.deepcopy(ours)
    append(1)
    assert torch.equal(twin.keys, theirs.keys[..., :-1, :])


def test_a_growing_layer_appends_in_place() -> None:
    layer = GrowingLayer()
    first, _ = layer.update(*torch.randn(2, 2, 3, 40, 4))
    second, _ = layer.update(*torch.randn(2, 2, 3, 1, 4))
    assert first.data_ptr() == second.data_ptr()


def test_layers_of_a_cache_have_no_operation_that_is_not_tried_here() -> None:
    known = {
        "lazy_initialization", "update", "get_mask_sizes", "get_seq_length", "get_max_length", "offload", "prefetch",
        "reset", "reorder_cache", "crop", "batch_repeat_interleave", "batch_select_indices",
    }  # fmt: skip
    methods = {name for kind in (CacheLayerMixin, DynamicLayer) for name in vars(kind) if not name.startswith("_")}
    assert {name for name in methods if inspect.isfunction(getattr(DynamicLayer, name))} == known


# -- the recording ----------------------------------------------------------------------------------------------------


def recorded(**options: Any) -> Recorder:
    made = tiny.model(seed=1)
    with compat.recording(made) as recorder:
        made.generate(input_ids=IDS, attention_mask=SEES.long(), do_sample=False, max_new_tokens=5, **options)
    return recorder


def test_generate_gives_a_forward_its_cache_ids_and_mask_by_name(caplog: pytest.LogCaptureFixture) -> None:
    computed = recorded(min_new_tokens=5).computed()
    assert computed is not None and not caplog.records
    cache, ids, mask = computed
    assert ids.shape == mask.shape == (1, 10) and all(type(layer) is GrowingLayer for layer in cache.layers)


def test_a_recording_that_cannot_be_reused_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert recorded(use_cache=False).computed() is None
        assert recorded(cache_implementation="static").computed() is None
        made = tiny.model(seed=1).train()
        made.config.attention_dropout = 0.1
        with compat.recording(made) as recorder:
            made.generate(input_ids=IDS, attention_mask=SEES.long(), max_new_tokens=2)
        assert recorder.computed() is None
    said = [record.message for record in caplog.records if record.name == compat.__name__]
    assert len(said) == 3 and all("so values compute each trace again" in text for text in said)
    assert "no forward was given" in said[0] and "full attention" in said[1] and "dropout is active" in said[2]
