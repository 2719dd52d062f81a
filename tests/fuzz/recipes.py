"""Recipes of `headway train`: YAML of any sort, values of every type for every kind of option, flags; one tiny step."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.mutate import damaged, encodings
from fuzz.runner import Case

RECIPE: dict[str, Any] = {
    "model_name_or_path": "builtin:countdown", "problems": "countdown-train", "limit": 4, "progress_weight": 1.0, "credit": "episode",
    "values": "branches", "branches": 1, "answer_tokens": 4, "num_generations": 2, "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1, "max_completion_length": 24, "learning_rate": 0.0001, "max_steps": 1, "save_strategy": "no",
    "activation_checkpointing": False, "report_to": "none", "dataloader_pin_memory": False, "output_dir": "out",
}  # fmt: skip
TEXT = "".join(f"{key}: {json.dumps(value)}\n" for key, value in RECIPE.items())
VALUES = {
    "empty": "", "null": "null", "list": "[1, x]", "map": "{a: 1}", "text": "x", "nan": ".nan", "inf": ".inf", "huge": "1e30", "digits": "9" * 400,
    "minus": "-1", "zero": "0", "half": "1.5", "date": "2020-01-01", "true": "yes", "quoted": "'1'", "tag": "!!python/object/apply:os.getcwd []",
    "binary": "!!binary aGk=", "set": "!!set {a, b}", "nul": '"a\\0b"', "surrogate": '"\\ud800"', "long": "x" * 30_000, "block": "|\n  a\n  b",
}  # fmt: skip
OURS = (
    "problems", "limit", "grader", "progress_weight", "credit", "progress_lambda", "regret_budget", "values", "segment", "min_paragraphs",
    "episode_tokens", "max_episodes", "branches", "answer_tokens", "suffix", "think_format", "think_close", "max_computed_tokens",
)  # fmt: skip
THEIRS = (
    "model_name_or_path", "dtype", "temperature", "top_p", "num_generations", "per_device_train_batch_size", "gradient_accumulation_steps",
    "max_completion_length", "learning_rate", "lr_scheduler_type", "optim", "warmup_steps", "max_steps", "save_strategy", "save_steps",
    "logging_steps", "report_to", "loss_type", "seed", "beta", "epsilon", "use_peft", "lora_r", "resume_from_checkpoint", "eval_strategy",
    "model_init_kwargs", "lr_scheduler_kwargs", "max_grad_norm", "bf16", "use_cpu", "deepspeed", "fsdp", "use_vllm",
)  # fmt: skip
SOME = ("empty", "list", "map", "text", "nan", "huge", "minus", "half", "date")
PLAUSIBLE: dict[str, tuple[str, ...]] = {  # values that are written by people, right and wrong
    "report_to": ("nonsense", "wandb", "tensorboard", "all", "[none]", "comet_ml"), "loss_type": ("x", "grpo", "dapo", "cispo", "bnpo", "sapo"),
    "credit": ("grpo", "regret", "to_go", "lambda", "stale_prefix", "vineppo", "Episode", "brpo", "dler", "s_grpo", "mig"),
    "values": ("likelihood", "distinct", "hybrid", "Branches"), "optim": ("adamw_8bit", "nonsense", "sgd"),
    "dtype": ("bfloat16", "evil", "float8_e4m3fn", "int8"), "lr_scheduler_type": ("cosine_with_min_lr", "nonsense", "constant"),
    "num_generations": ("3", "1", "1000000"), "per_device_train_batch_size": ("3", "1"), "save_strategy": ("steps", "best", "epoch", "never"),
    "eval_strategy": ("steps", "epoch"), "problems": ("aime24", "nowhere.jsonl", "gym:sudoku", "r.yaml", "."), "attn_implementation": ("flash_attention_2", "x"),
    "grader": ("exact", "vibes", "gym", "math-verify"), "temperature": ("0", "0.0", "-1", "100"), "top_p": ("0", "2", "0.5"), "top_k": ("5", "-3"),
    "use_peft": ("true",), "load_in_4bit": ("true",), "load_in_8bit": ("true",), "use_liger_kernel": ("true",), "torch_compile": ("true",),
    "resume_from_checkpoint": ("true", "nowhere", "out", "false"), "max_completion_length": ("1", "0", "100000"), "gradient_checkpointing": ("true",),
    "importance_sampling_level": ("sequence", "x"), "mask_truncated_completions": ("true",), "beta": ("0.1", "nan"), "max_steps": ("0", "-1", "1"),
    "fp16": ("true",), "bf16": ("true", "maybe"), "tf32": ("true",), "push_to_hub": ("true",), "logging_dir": ("out/logs",), "env": ("{1: 2}", "x", "{A: b}"),
    "model_init_kwargs": ("{x: 1}", "{dtype: 3}", "'{\"a\": 1}'"), "chat_template_path": ("nowhere", "r.yaml"), "deepspeed": ("ds.json", "{}"),
    "fsdp": ("full_shard", "x"), "accelerator_config": ("{x: 1}", "nowhere.json"), "think_format": ("harmony", "xml"), "suffix": ("''", "'</think>'"),
    "reward_weights": ("[1, 2]", "x"), "eval_steps": ("5",), "save_only_model": ("true",), "dataset_name": ("x",), "ddp_backend": ("x",),
    "max_computed_tokens": ("1",), "max_generated_tokens": ("1",), "num_train_epochs": ("nan", "0", "0.001"), "seed": ("-1", "4294967296"),
    "generation_batch_size": ("3",), "steps_per_generation": ("0", "2"), "num_iterations": ("0", "2"), "logging_steps": ("0", "0.5"), "sync_ref_model": ("true",),
    "lora_target_modules": ("[nothing]",), "dataloader_num_workers": ("1", "-1"), "remove_unused_columns": ("true",), "metric_for_best_model": ("x",),
    "load_best_model_at_end": ("true",), "neftune_noise_alpha": ("5",), "local_rank": ("3",), "scale_rewards": ("x", "batch"), "cache_implementation": ("x", "static"),
}  # fmt: skip


def case(name: str, data: bytes | str, *flags: str, must: Any = "either") -> Case:
    """Trains by a recipe."""
    text = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    return Case(
        name,
        ("train", "--config", "r.yaml", *flags),
        lambda folder: (folder / "r.yaml").write_bytes(text) and None,
        must,
    )


def changed(key: str, value: str, recipe: str = TEXT) -> str:
    """The recipe with a value, as YAML text, of a key."""
    lines = [line for line in recipe.splitlines() if not line.startswith(f"{key}:")]
    return "\n".join([*lines, f"{key}: {value}"]) + "\n"


def cases() -> Iterator[Case]:
    """All cases, in a fixed order."""
    yield case("good", TEXT, must="work")
    for key in OURS:
        for kind, value in VALUES.items():
            if kind in SOME or (len(key) + len(kind)) % 3 == 0:
                yield case(f"{key}-{kind}", changed(key, value))
    for i, key in enumerate(THEIRS):
        for j, (kind, value) in enumerate(VALUES.items()):
            if (i + j) % 4 == 0:
                yield case(f"{key}-{kind}", changed(key, value))
    for key, values in PLAUSIBLE.items():
        for i, value in enumerate(values):
            yield case(f"{key}-likely-{i}", changed(key, value))
    yield from _texts()
    yield from _flags()
    yield from _pairs()


def _texts() -> Iterator[Case]:
    for name, text in {
        "empty": "", "blank": "\n\n", "comment": "# nothing\n", "list": "- a\n- b\n", "text": "hello", "number": "3", "null": "null", "open-list": "a: [1, 2",
        "open-map": "a: {b: 1", "open-quote": 'a: "b', "tab": "a:\n\t- b\n", "two-documents": TEXT + "---\na: 1\n", "nul": TEXT + "a: \0\n", "colon": "a: b: c\n",
        "python-object": "!!python/object/apply:os.system ['touch PWN']", "python-name": "a: !!python/name:os.system", "unknown-tag": "a: !foo 1",
        "number-key": TEXT + "1: 2\n", "list-key": TEXT + "? [1, 2]\n: 3\n", "map-key": TEXT + "? {a: 1}\n: 3\n", "null-key": TEXT + "~: 1\n", "bool-key": TEXT + "yes: 1\n",
        "keys-twice": TEXT + TEXT, "merge": "a: &a {limit: 4}\n<<: *a\n" + TEXT, "merge-bad": "<<: 3\n" + TEXT, "anchor-missing": "a: *b\n", "anchor-self": "a: &a [*a]\n",
        "deep": "a: " + "[" * 3000 + "]" * 3000, "deep-maps": "".join(" " * i + "a:\n" for i in range(1500)), "json": json.dumps(RECIPE), "tabs": TEXT.replace(": ", ":\t"),
        "unknown-key": TEXT + "progres_weight: 1\n", "dashes": TEXT.replace("_", "-"), "nested": "train:\n" + "".join(f"  {line}\n" for line in TEXT.splitlines()),
        "octal": changed("limit", "010"), "sexagesimal": changed("limit", "1:30"), "underscores": changed("limit", "1_000"), "env-map": TEXT + "env: {A: 1}\n",
        "env-list": TEXT + "env: [a]\n", "bomb": "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]),
        "bomb-of-option": TEXT + "env: {A: &a0 [x, x, x, x, x, x, x, x, x]" + "".join(f", B{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)) + "}\n",
        "long-key": TEXT + "k" * 100_000 + ": 1\n", "many-keys": TEXT + "".join(f"k{i}: 1\n" for i in range(5000)), "directive": "%YAML 9.9\n---\n" + TEXT,
        "percent": changed("grader", '"exact%s"'), "escape": TEXT + '"\\e[31m": 1\n', "crlf-mixed": TEXT.replace("\n", "\r\n", 3), "value-only": ": 1\n",
    }.items():  # fmt: skip
        yield case(f"yaml-{name}", text)
    for name, data in encodings(TEXT):
        yield case(f"encoding-{name}", data)
    for i in range(40):
        yield case(f"damaged-{i}", damaged(TEXT.encode(), f"recipes {i}"))


def _flags() -> Iterator[Case]:
    base = ("train", "--config", "r.yaml")
    for i, flags in enumerate((
        ("train", "--config"), ("train", "--config", "nowhere.yaml"), ("train", "--config", "."), ("train", "--config", ""), ("train",), ("train", "x"),
        ("train", "--config", "/dev/null"), (*base, "--config", "nowhere"), (*base, "--limit"), (*base, "--limit", "abc"), (*base, "--limit", "1", "2"),
        (*base, "--nothing", "1"), (*base, "--progress_weight", "nan"), (*base, "--progress_weight", "inf"), (*base, "--branches", "1e9"), (*base, "--branches", "1.5"),
        (*base, "--credit", "Regret"), (*base, "--report_to", "x"), (*base, "--bf16", "maybe"), (*base, "--resume_from_checkpoint", "true"),
        (*base, "--resume_from_checkpoint", "/nonexistent"), (*base, "--output_dir", "r.yaml"), (*base, "--output_dir", "/proc/x"), (*base, "--output_dir", ""),
        (*base, "--model_name_or_path", ""), (*base, "--model_name_or_path", "a/b/c"), (*base, "--model_name_or_path", "builtin:x"), (*base, "--dtype", "evil"),
        (*base, "--max_steps", "0"), (*base, "--lr_scheduler_kwargs", "{"), (*base, "--model_init_kwargs", "[]"), (*base, "--deepspeed", "{"), (*base, "extra"),
        (*base, "--limit=2"), (*base, "--limi", "2"), (*base, "--problems", ""), (*base, "--seed", "x"), (*base, "\x1b[31m"), (*base, "--"),
    )):  # fmt: skip
        yield Case(f"flags-{i}", flags, _writes_recipe)


def _writes_recipe(folder: Path) -> None:
    (folder / "r.yaml").write_text(TEXT)


def _pairs() -> Iterator[Case]:
    """Two accidents at once: keys and values drawn at random."""
    rng = random.Random("recipes")
    keys, values = (*OURS, *THEIRS), list(VALUES.values())
    for i in range(60):
        text = TEXT
        for key in rng.sample(keys, 2):
            text = changed(key, rng.choice(values), text)
        yield case(f"pair-{i}", text)
