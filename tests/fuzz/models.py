"""Model folders: the built-in model with one thing damaged, missing, hostile or of an impossible size."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz.mutate import damaged
from fuzz.runner import Case
from headway.engines.loading import model_path

SOURCE = Path(model_path("builtin:countdown"))
ASKED = (
    "--model",
    "model",
    "--problems",
    "countdown",
    "--limit",
    "1",
    "--traces",
    "1",
    "--budget",
    "16",
    "--out",
    "out",
)
MEASURED = (*ASKED, "--branches", "1", "--answer-tokens", "8")
CONFIGS: dict[str, Any] = {
    "hidden_size": (0, -160, 161, 160.5, "160", None, 10**9), "num_hidden_layers": (0, -1, 5, 10**7, "x"),
    "num_attention_heads": (0, 3, 7), "num_key_value_heads": (0, 3), "head_dim": (0, -40, 41), "vocab_size": (0, 10, 300, 2**40),
    "intermediate_size": (0, 447), "max_position_embeddings": (0, -1, 4, "x"), "model_type": ("bert", "nonsense", None, "mamba"),
    "architectures": ([], ["X"], "LlamaForCausalLM", None), "dtype": ("float8", "nonsense", 3, "int8", "complex64"),
    "hidden_act": ("x", None), "rope_parameters": ({}, None, {"rope_type": "x"}, {"rope_type": "yarn", "factor": 0}),
    "rms_norm_eps": ("x", float("nan"), -1.0), "eos_token_id": (-1, 10**6, "x", [], [2, 3]), "pad_token_id": (-1, 10**6, "x"),
    "quantization_config": ({}, {"quant_method": "x"}, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "auto_map": ({"AutoConfig": "evil.C"}, {"AutoModelForCausalLM": "evil.M"}), "tie_word_embeddings": (False,),
    "attn_implementation": ("flash_attention_2", "x"), "use_cache": (False,),
}  # fmt: skip
UNLIKE = (("num_hidden_layers", 5), ("vocab_size", 300), ("model_type", "bert"), ("head_dim", 41))  # other weights
TEMPLATES = {
    "empty": "", "no-thought": "{{ messages[0]['content'] }}", "syntax": "{% for", "undefined": "{{ nothing.at.all }}",
    "zero": "{{ 1 // 0 }}", "raises": "{{ raise_exception('no') }}", "type": "{{ 'a' + 1 }}", "none": "{{ None.x }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}", "import": "{% import 'os' as os %}", "include": "{% include '/etc/passwd' %}",
    "filter": "{{ messages | nothing }}", "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "range": "{% for i in range(10**9) %}{% endfor %}x<think>", "power": "{{ 9 ** 9 ** 9 }}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}<think>",
    "long": "{{ 'x' * 10**10 }}", "long-lines": "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}<think>",
    "number": 3, "list": [{"name": "default", "template": "{{ messages[0].content }}<think>"}], "list-bad": [{"x": 1}],
    "last-word": "{% for m in messages %}{{ m.content }}{% endfor %}{{ now }}<think>", "think-only": "<think>",
}  # fmt: skip


def case(
    name: str, change: Callable[[Path], None], command: str = "sample", *options: str, must: Any = "either"
) -> Case:
    """Samples from a changed copy of the built-in model; or measures, imports, trains with it."""

    def make(folder: Path) -> None:
        model = folder / "model"
        model.mkdir()
        for file in SOURCE.iterdir():
            shutil.copy(file, model)
        change(model)

    arguments = {
        "sample": ("sample", *ASKED), "measure": ("measure", *MEASURED),
        "train": ("train", "--model_name_or_path", "model", "--output_dir", "out", *TRAINED),
    }[command]  # fmt: skip
    return Case(name, (*arguments, *options), make, must)


TRAINED = (
    "--problems", "countdown-train", "--limit", "4", "--max_steps", "1", "--num_generations", "2", "--per_device_train_batch_size", "2",
    "--max_completion_length", "24", "--answer_tokens", "4", "--branches", "1", "--report_to", "none", "--save_strategy", "no",
    "--activation_checkpointing", "false",
)  # fmt: skip


def _json(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        content = json.loads((model / file).read_text())
        (model / file).write_text(json.dumps(content | changes))

    return change


def _bytes(file: str, made: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda model: (model / file).write_bytes(made((model / file).read_bytes())) and None


def _weights(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Edits the tensors' header of the safetensors file."""

    def made(data: bytes) -> bytes:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        text = json.dumps(edit(header) or header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    return _bytes("model.safetensors", made)


def _renamed(header: dict[str, Any]) -> None:
    header["model.layers.1.mlp.other.weight"] = header.pop("model.layers.1.mlp.down_proj.weight")


def _reshaped(header: dict[str, Any]) -> None:
    tensor = header["model.layers.1.mlp.down_proj.weight"]
    tensor["shape"] = tensor["shape"][::-1]


def cases() -> Iterator[Case]:
    """All cases, in a fixed order."""
    yield case("good", lambda model: None, must="work")
    yield case("good-measure", lambda model: None, "measure", must="work")
    yield case("good-train", lambda model: None, "train", must="work")
    for command in ("sample", "train"):
        yield case(f"weight-renamed-{command}", _weights(_renamed), command, must="stop")
        yield case(f"weight-reshaped-{command}", _weights(_reshaped), command, must="stop")
        for file in sorted(f.name for f in SOURCE.iterdir()):
            if command == "sample" or file in ("model.safetensors", "config.json"):
                yield case(f"without-{file}-{command}", lambda model, name=file: (model / name).unlink(), command)
                yield case(f"empty-{file}-{command}", _bytes(file, lambda data: b""), command)
                must = "either" if file == "generation_config.json" else "stop"  # its defaults are not used
                yield case(f"half-{file}-{command}", _bytes(file, lambda d: d[: len(d) // 2]), command, must=must)
    for name, made in {
        "header-huge": lambda data: struct.pack("<Q", 2**63) + data[8:], "header-zero": lambda data: struct.pack("<Q", 0) + data[8:],
        "header-long": lambda data: struct.pack("<Q", 10**8) + data[8:], "text": lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        "nan": lambda data: data[:-4000] + b"\xff" * 4000, "tail": lambda data: data + b"x",
    }.items():  # fmt: skip
        yield case(f"weights-{name}", _bytes("model.safetensors", made), must="either" if name == "nan" else "stop")
    for name, edit in {
        "dtype": lambda h: {k: v | {"dtype": "X9"} if k != "__metadata__" else v for k, v in h.items()},
        "offsets": lambda h: {k: v | {"data_offsets": [0, 2**40]} if k != "__metadata__" else v for k, v in h.items()},
        "list": lambda h: [1], "none": lambda h: {"__metadata__": {}},
    }.items():  # fmt: skip
        yield case(f"weights-{name}", _weights(edit), must="stop")
    for field, values in CONFIGS.items():
        for i, value in enumerate(values):
            must = "stop" if (field, value) in UNLIKE else "either"
            yield case(f"config-{field}-{i}", _json("config.json", **{field: value}), "sample", must=must)
    for name, template in TEMPLATES.items():
        text = template if isinstance(template, str) else json.dumps(template)
        yield case(f"template-{name}", _bytes("chat_template.jinja", lambda data, text=text: text.encode()), "sample")
    for name in ("syntax", "zero", "loops"):
        template = TEMPLATES[name]
        yield case(
            f"template-{name}-train",
            _bytes("chat_template.jinja", lambda data, t=template: t.encode()),
            "train",
            must="stop",
        )
    for field, value in (("tokenizer_class", "Evil"), ("tokenizer_class", 3), ("eos_token", None), ("eos_token", 5), ("pad_token", None),
                         ("model_max_length", -1), ("extra_special_tokens", {"a": 1}), ("auto_map", {"AutoTokenizer": ["evil.T", None]}),
                         ("chat_template", {"a": 1}), ("backend", "x")):  # fmt: skip
        yield case(
            f"tokenizer-{field}-{value!r:.6}".replace("/", ""), _json("tokenizer_config.json", **{field: value})
        )
    for field, value in (
        ("eos_token_id", "x"),
        ("eos_token_id", [[1]]),
        ("temperature", -1),
        ("do_sample", "x"),
        ("max_length", -5),
    ):
        yield case(f"generation-{field}-{value!r:.4}", _json("generation_config.json", **{field: value}))
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        for i in range(6):
            yield case(
                f"damaged-{i}-{file}", _bytes(file, lambda data, seed=f"models {file} {i}": damaged(data, seed))
            )
    for dtype in ("evil", "float8_e4m3fn", "bfloat16", "int8", "Tensor", "nn", "", "auto"):
        yield case(f"dtype-{dtype}", lambda model: None, "sample", "--dtype", dtype)
    yield case("no-folder", shutil.rmtree, must="stop")
    yield case("file-instead", lambda model: (shutil.rmtree(model), model.write_text("x")), must="stop")
    yield case("shards-missing", _sharded, must="stop")
    yield case("pickle", _pickled, must="stop")
    yield case(
        "template-missing-thoughts", _bytes("chat_template.jinja", lambda d: d.replace(b"<think>", b"")), "measure"
    )
    yield case(
        "loop-link",
        lambda model: ((model / "config.json").unlink(), (model / "config.json").symlink_to("config.json")),
        must="stop",
    )
    yield case("pipe", lambda model: ((model / "config.json").unlink(), os.mkfifo(model / "config.json")), must="stop")


def _sharded(model: Path) -> None:
    (model / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch PWN'\ntR.")
