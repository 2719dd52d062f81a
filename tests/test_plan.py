"""`headway plan`: formulas against numbers worked out by hand, sizes against transformers, and what it refuses."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from headway import cli
from headway.runs.plan.command import plan_command, plan_training
from headway.runs.plan.load import Load
from headway.runs.plan.machines import GPUS, Machine
from headway.runs.plan.memory import Held, Numbers, activations, logits, training
from headway.runs.plan.phases import Rates, Sampler, decode, phases
from headway.runs.plan.recipe import Recipe, read_recipe
from headway.runs.plan.shapes import FAMILIES, Shape, read_config, shape_of
from headway.runs.settings import Settings
from headway.types import HeadwayError

R1 = dict(  # DeepSeek-R1-Distill-Qwen-1.5B
    model_type="qwen2", hidden_size=1536, intermediate_size=8960, num_attention_heads=12, num_hidden_layers=28,
    num_key_value_heads=2, vocab_size=151936, max_position_embeddings=131072, tie_word_embeddings=False,
    sliding_window=4096, use_sliding_window=False, torch_dtype="bfloat16",
)  # fmt: skip
SMALL = dict(
    model_type="llama", hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=3,
    num_key_value_heads=1, vocab_size=10, max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip
LOAD = Load(traces=4, micro=2, prompt=6, longest=10, mean=10, boundaries=3, branches=2, answer=2, suffix=5, epochs=1)
FULL = Numbers(4, 4)
COLOCATE = dict(
    num_generations=8, per_device_train_batch_size=1, gradient_accumulation_steps=64, max_completion_length=16384,
    use_vllm=True, vllm_importance_sampling_mode="token_truncate", max_steps=100,
)  # fmt: skip


def small(**changes: Any) -> Shape:
    return shape_of(SMALL | changes, "small")


def recipe_of(folder: Path, config: dict[str, Any], **options: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({"model_name_or_path": str(folder)} | options))
    return file


def planned(
    folder: Path, machine: Machine | None = None, config: dict[str, Any] = R1, **options: Any
) -> dict[str, Any]:
    return plan_training(recipe_of(folder, config, **options), machine or Machine(gpus=8, mean_tokens=10_000))


def found(plan: dict[str, Any]) -> set[tuple[str, str]]:
    return {(finding["kind"], finding["option"]) for finding in plan["findings"]}


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes_by_hand() -> None:
    shape = small()
    # q 8x8, k and v 8x4, o 8x8, three of the MLP 8x16; two norms of 8; the last norm; a tied embedding
    assert shape.matrices == 64 + 32 + 32 + 64 + 3 * 128 == 576
    assert shape.parameters == 3 * (576 + 16) + 8 + 80 == 1864
    assert shape.kv_bytes(2) == 2 * 3 * 1 * 4 * 2 == 48
    # 2 (3 * 576 + 80) a token; attention 4 * 3 * 8 * 10^2 / 2
    assert shape.forward(10) == 2 * 1808 * 10 + 4800 == 40960
    assert shape.forward(10, past=5) == 40960 + 4 * 3 * 8 * 10 * 5
    assert shape.adapter(2, None) == 3 * 2 * (8 + 8 + 8 + 4)
    assert shape.adapter(1, "all-linear") == 3 * (16 + 12 + 12 + 16 + 3 * 24)


def test_the_published_sizes_of_r1_distill_1_5b() -> None:
    shape = shape_of(R1, "r1")
    assert shape.parameters == 1_777_088_000
    assert shape.kv_bytes(2) == 28_672


@pytest.mark.extras
@pytest.mark.parametrize("kind", FAMILIES)
def test_parameters_equal_those_that_transformers_makes(kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = {k: v for k, v in SMALL.items() if k not in ("model_type", "tie_word_embeddings")}
    biased = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 6}
    for options in ({}, {"tie_word_embeddings": False}, biased):
        config = AutoConfig.for_model(kind, **given, bos_token_id=0, eos_token_id=0, pad_token_id=0, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        file = json.loads(config.to_json_string())
        assert shape_of(file, kind).parameters == model.num_parameters(), (kind, options)


def test_a_model_of_another_kind_is_refused_with_what_is_known() -> None:
    with pytest.raises(HeadwayError, match=r"model_type 'mamba'.*llama, mistral"):
        shape_of({"model_type": "mamba"}, "m")
    with pytest.raises(HeadwayError, match="gives no size for 'hidden_size'"):
        shape_of({"model_type": "llama"}, "m")
    with pytest.raises(HeadwayError, match=r"cannot read the config.json of '.*nowhere'"):
        read_config("/nowhere/at/all/nowhere")


# -- memory -----------------------------------------------------------------------------------------------------------


def test_activations_by_hand() -> None:
    # 2 traces of 16 tokens; a layer: 2 norms of 8 x (4 + 4 + 4), q, k, v and output of 8, four of 16, 4 bytes each
    layer, mask = 2 * 8 * 12 + (4 * 8 + 4 * 16) * 4, 2 * 16**2 * 5
    assert activations(small(), LOAD, FULL, checkpointing=False) == 32 * 3 * layer + mask
    assert activations(small(), LOAD, FULL, checkpointing=True) == 32 * (3 * 8 * 4 + layer) + mask
    # no mask, and keys and values of one head of two
    layer = 2 * 8 * 10 + (2 * 8 + 2 * 4 + 4 * 16) * 2
    assert activations(small(), LOAD, Numbers(4, 2), checkpointing=False, flash=True) == 32 * 3 * layer
    assert logits(small(), LOAD, FULL) == 32 * 10 * 4 + 4 * (32 * 8 + 10 * 8)
    assert logits(small(), LOAD, FULL, triton=False) == 32 * 10 * (8 * 4 + 1) + 4 * (32 * 8 + 10 * 8)


def test_states_by_hand_in_each_layout() -> None:
    held, of = Held(9000.0, 1000.0, 500.0, 0.0, False), dict(gpus=4, trained=1864)
    n = 1864 * 4
    plain = training(small(), FULL, layout="data parallel", held=held, **of)
    assert (plain.weights, plain.gradients, plain.optimizer, plain.buckets) == (n, n, 2 * n, n)
    assert plain.learning == 4 * n + 9000 + 1000
    assert plain.sampling == 4 * n + 500
    zero = training(small(), FULL, layout="zero2", held=held, **of)
    assert (zero.weights, zero.gradients, zero.optimizer, zero.buckets) == (n, n / 4, 2 * n / 4, 0)
    fsdp = training(small(), FULL, layout="fsdp2", held=held, **of)
    # two layers whole, and what is in no layer's matrices
    assert (fsdp.weights, fsdp.copies) == (n / 4, 2 * 592 * 4 + (1864 - 3 * 576) * 4)
    more = training(small(), FULL, layout="zero2", held=held._replace(accumulates=True), **of)
    assert more.learning == zero.learning + zero.gradients


def test_r1_on_eight_gpus_has_the_memory_of_the_published_estimate(tmp_path: Path) -> None:
    memory = planned(tmp_path, **COLOCATE)["memory"]
    states = {layout: sum(m[k] for k in ("weights", "gradients", "optimizer")) for layout, m in memory.items()}
    assert {k: round(v / 1e9, 1) for k, v in states.items()} == {"data parallel": 28.4, "zero2": 9.8, "fsdp2": 3.6}
    assert memory["data parallel"]["cache"] == 0.3 * 80e9


# -- time -------------------------------------------------------------------------------------------------------------


def test_decoding_by_hand() -> None:
    shape, rates = small(), Rates(1e6, 1e6, 0.001)
    alone = Sampler(4, FULL, True, False, 1.0)
    # 10 steps of 1864 x 4 bytes and a millisecond; 4 rows read 96 bytes for 6 x 10 + 10^2 / 2 tokens
    one = 10 * (1864 * 4 / 1e6 + 0.001) + 4 * 110 * 96 / 1e6
    assert decode(shape, rates, alone, 4, 6, (10, 10)) == pytest.approx(one, rel=1e-12)
    # two batches of half the rows: twice the steps, the same keys and values
    assert decode(shape, rates, alone._replace(rows=2), 4, 6, (10, 10)) == pytest.approx(
        one + 10 * (1864 * 4 / 1e6 + 0.001), rel=1e-12
    )
    # lengths uniform from 0 to 10: a mean square of 100 / 3; rows that stay are read to the end
    read = 4 * (6 * 5 + 100 / 6) * 96 / 1e6
    steps = 10 * (1864 * 4 / 1e6 + 0.001)
    assert decode(shape, rates, alone, 4, 6, (5, 10)) == pytest.approx(steps + read, rel=1e-12)
    assert decode(shape, rates, alone._replace(leaves=False), 4, 6, (5, 10)) == pytest.approx(one, rel=1e-12)


def test_phases_by_hand() -> None:
    shape, rates = small(), Rates(1e6, 1e6, 0.001)
    made = phases(shape, LOAD, rates, Sampler(4, FULL, True, False, 1.0), checkpointing=True)
    assert list(made) == ["sampling", "branches", "forward and backward"]
    assert made["branches"].tokens == 4 * 3 * 5 + 4 * 3 * 2 * 2
    assert made["branches"].sampled == 48
    assert made["forward and backward"].seconds == pytest.approx(4 * 4 * shape.forward(16) / 1e6)
    lost = phases(shape, LOAD, rates, Sampler(4, FULL, True, False, 0.5), checkpointing=True)
    assert lost["branches"].seconds - made["branches"].seconds == pytest.approx(2 * shape.forward(16) / 1e6)


def test_r1_at_16k_has_the_seconds_of_the_published_estimate(tmp_path: Path) -> None:
    """On paper: sampling ~100 s, old log-probabilities ~6, forward and backward ~24, branches ~6.6, of ~135."""
    plan = planned(tmp_path, **COLOCATE)
    seconds = {p["phase"]: p["seconds"] for p in plan["phases"]}
    assert seconds == pytest.approx(
        {"sampling": 100, "branches": 6.6, "old log-probabilities": 6, "forward and backward": 24}, rel=0.12
    )
    likely = planned(tmp_path, values="likelihood", **COLOCATE)
    assert {p["phase"]: p["seconds"] for p in likely["phases"]}["likelihood"] == pytest.approx(6.6, rel=0.1)
    assert sum(p["share"] for p in plan["phases"]) == pytest.approx(1)
    assert plan["run"]["gpu_hours"] == pytest.approx(8 * plan["run"]["seconds_per_step"] * 100 / 3600)
    assert 0.9 < plan["cache"]["resident"] < 1 < plan["cache"]["most"] / plan["cache"]["pool"]


# -- what is refused --------------------------------------------------------------------------------------------------

NEEDED = 256 + 16384 + 17 + 32 + 1  # the suffix has 51 letters


@pytest.mark.parametrize(
    ("kind", "option", "changes"),
    [
        ("refused", "vllm_enable_sleep_mode", {"vllm_enable_sleep_mode": True}),
        ("refused", "vllm_tensor_parallel_size", {"vllm_tensor_parallel_size": 2}),
        ("refused", "vllm_structured_outputs_regex", {"vllm_structured_outputs_regex": "a*"}),
        ("refused", "vllm_max_model_length", {"vllm_max_model_length": NEEDED - 1}),
        ("refused", "use_peft", {"use_peft": True, "fsdp": True, "fsdp_config": {"version": 2}}),
        ("refused", "fsdp_config", {"fsdp": "full_shard"}),
        ("refused", "deepspeed", {"deepspeed": {"zero_optimization": {"stage": 3}}}),
        ("refused", "num_generations", {"num_generations": 7}),
        ("refused", "memory", {"vllm_gpu_memory_utilization": 0.6}),
        ("warning", "vllm_importance_sampling_mode", {"vllm_importance_sampling_mode": "sequence_mask"}),
        (
            "warning", "attn_implementation",
            {"values": "hybrid", "model_init_kwargs": {"attn_implementation": "flash_attention_2"}},
        ),
        ("warning", "optim", {"optim": "adafactor"}),
        ("warning", "beta", {"beta": 0.01}),
        ("warning", "recipe", {"max_completion_lenght": 5}),
    ],
)  # fmt: skip
def test_each_finding_alone(tmp_path: Path, kind: str, option: str, changes: dict[str, Any]) -> None:
    assert found(planned(tmp_path, **COLOCATE)) == set()
    assert found(planned(tmp_path, **COLOCATE | changes)) == {(kind, option)}


@pytest.mark.parametrize(
    "changes",
    [
        {"vllm_max_model_length": NEEDED},
        {"vllm_tensor_parallel_size": 2, "vllm_mode": "server"},
        {"credit": "grpo", "vllm_enable_sleep_mode": True},
        {"vllm_importance_sampling_mode": "sequence_mask", "max_completion_length": 2048},
        {"model_init_kwargs": {"attn_implementation": "flash_attention_2"}},  # branches need no mask of a tree
        {"fsdp": True, "fsdp_config": {"version": 2}},
        {"deepspeed": {"zero_optimization": {"stage": 2}}},
        {"use_peft": True},
        {"learning_rate": 1.0e-6, "per_device_eval_batch_size": 4},
    ],
)
def test_what_is_fine_has_no_finding(tmp_path: Path, changes: dict[str, Any]) -> None:
    machine = Machine(gpus=8)
    assert found(planned(tmp_path, machine, **COLOCATE | changes)) == set()


def test_the_context_and_windows_of_the_model(tmp_path: Path) -> None:
    assert ("refused", "context") in found(
        planned(tmp_path, config=R1 | {"max_position_embeddings": 16640}, **COLOCATE)
    )
    by_itself = COLOCATE | {"use_vllm": False}
    assert ("warning", "context") in found(planned(tmp_path, config=R1 | {"max_position_embeddings": 9}, **by_itself))
    windows = R1 | {"use_sliding_window": True}
    assert ("warning", "sliding_window") in found(planned(tmp_path, config=windows, **COLOCATE))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "expected YAML"),
        ("- a", "names no model"),
        ("credit: episode", "names no model"),
        ("model_name_or_path: m\nbranches: many", "branches"),
        ("model_name_or_path: m\ncredit: none", "credit must be one of"),
        ("model_name_or_path: m\nvalues: guess", "values"),
        ("model_name_or_path: m\nnum_generations: 0", "num_generations"),
        ("model_name_or_path: builtin:countdown\ndeepspeed: nowhere.json", "cannot read deepspeed"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_message(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(HeadwayError, match=says):
        plan_training(tmp_path / "r.yaml", Machine())


def test_options_of_the_model_mean_what_they_mean_to_train(tmp_path: Path) -> None:
    """Short names of number formats, attention as an option of its own, a window that rotary scaling makes longer."""
    machine = Machine()
    bytes_of = {
        name: planned(tmp_path, machine, dtype=name)["kv_bytes_per_token"]
        for name in ("fp32", "float32", "bf16", "auto")
    }
    assert bytes_of["fp32"] == bytes_of["float32"] == 2 * bytes_of["bf16"] == 2 * bytes_of["auto"] == 2 * 28_672
    with pytest.raises(HeadwayError, match=r"dtype must be one of auto, float32.*got 'evil'"):
        planned(tmp_path, machine, dtype="evil")
    with pytest.raises(HeadwayError, match=r"dtype in config.json must be one of float32"):
        planned(tmp_path, machine, config=R1 | {"torch_dtype": "float8"}, dtype="auto")
    flash = planned(tmp_path, machine, values="likelihood", attn_implementation="flash_attention_2")
    assert ("warning", "attn_implementation") in found(flash)
    yarn = R1 | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}
    assert shape_of(yarn | {"max_position_embeddings": 32768}, "m").context == 131072


@pytest.mark.extras
def test_options_and_defaults_are_those_of_train() -> None:
    from trl import ModelConfig

    from headway.training import MRTConfig

    theirs = {f.name: f.default for group in (ModelConfig, MRTConfig) for f in dataclasses.fields(group)}
    ours = {f.name: f.default for f in msgspec.structs.fields(Recipe) if f.name != "model_name_or_path"}
    assert {name: theirs[name] for name in ours} == ours


def test_the_recipes_of_the_package_are_read() -> None:
    folder = Path(cli.__file__).parent / "builtin"
    for name in ("grpo", "mrt"):
        recipe, misspelled = read_recipe(folder / f"{name}.yaml")
        assert (misspelled, recipe.checkpointing, recipe.layout) == ([], False, "data parallel")
        assert plan_training(folder / f"{name}.yaml", Machine())["parameters"] == 1_305_280


# -- the command ------------------------------------------------------------------------------------------------------


def test_measuring_counts_problems_traces_and_branches(tmp_path: Path) -> None:
    recipe_of(tmp_path, R1)
    options = dict(problems="aime25", traces=2, budget=1000, answer_tokens=24, branches=3, max_episodes=4)
    made = plan_command(None, {"model": str(tmp_path)}, options | {"engine": "vllm"}, Machine(mean_tokens=800))
    assert made["phases"][0]["sampled"] == 30 * 2 * 800
    assert made["phases"][1]["sampled"] == 30 * 2 * 5 * 3 * 24
    assert made["context"]["needed"] == 256 + 1024 + 17 + 24 + 1
    slow = plan_command(None, {"model": str(tmp_path)}, options | {"budget": 16384}, Machine(gpus=2))
    assert found(slow) == {("warning", "gpus"), ("warning", "engine")}


@pytest.mark.parametrize(
    ("config", "model", "options", "says"),
    [
        (None, None, {}, "needs --config recipe.yaml for a training, or --model"),
        (Path("r.yaml"), {"model": "m"}, {}, "needs --config"),
        (Path("r.yaml"), None, {"branches": 9}, r"--branches are of measure"),
        (None, {"model": "scripted"}, {}, "takes no GPU"),
        (None, {"model": "builtin:countdown"}, {"problems": "hub:a/b"}, "give --limit"),
    ],
)
def test_bad_calls(config: Any, model: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(HeadwayError, match=says):
        plan_command(config, model, options, Machine())
    with pytest.raises(HeadwayError, match="gpu must be one of"):
        plan_command(None, {"model": "builtin:countdown"}, {}, Machine(gpu="h1000"))
    with pytest.raises(HeadwayError, match="--mean-tokens is 9000, more than"):
        plan_command(None, {"model": "builtin:countdown"}, {}, Machine(mean_tokens=9000))


def test_the_command_prints_json_and_a_table_without_torch() -> None:
    recipe = Path(cli.__file__).parent / "builtin/mrt.yaml"
    run = (
        "import sys; from headway.cli import main\n"
        f"sys.argv = ['headway', 'plan', '--config', {str(recipe)!r}, '--gpu', 'a100', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    )
    made, shown = (
        subprocess.run([sys.executable, "-c", run, *more], capture_output=True, text=True, check=True).stdout
        for more in (["--json"], [])
    )
    plan = json.loads(made)
    assert plan["machine"]["memory"] == GPUS["a100"].memory
    assert {"memory", "phases", "context", "findings", "run"} <= set(plan)
    assert "forward and backward" in shown and "1,305,280 parameters" in shown


def test_measure_settings_are_those_of_measure() -> None:
    made = plan_command(None, {"model": "builtin:countdown"}, {"limit": 3}, Machine())
    whole = Settings.of(model="builtin:countdown", limit=3).whole
    assert made["load"]["longest"] == whole
