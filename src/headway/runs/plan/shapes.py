"""The sizes of a decoder, from its config.json alone: parameters, bytes of keys and values, operations."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headway.choices import lookup
from headway.engines.loading import model_path
from headway.engines.window import window_in
from headway.types import HeadwayError

Number = int | float
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Family(NamedTuple):
    """What a kind of model has beside its matrices and norms, and what its config.json may leave out."""

    biases: tuple[str, ...] = ()  # the settings of biases that it heeds
    qkv_bias: bool = False
    head_norms: bool = False
    head_width: int | None = None
    tied: bool = False


# decoders of transformers with full attention and a gated MLP; a test counts each against transformers
FAMILIES = {
    "llama": Family(("attention_bias", "mlp_bias")),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(("attention_bias",), head_norms=True, head_width=128),
    "smollm3": Family(("attention_bias", "mlp_bias"), tied=True),
}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder; `per_layer` are the parameters of a layer that are in no matrix."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    mlp: int
    vocabulary: int
    per_layer: int
    tied: bool
    context: int | None = None
    dtype: str = "float32"
    windowed: bool = False  # whether some layers attend to a window

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each matrix of a layer."""
        d, q, kv, f = self.width, self.heads * self.head_width, self.kv_heads * self.head_width, self.mlp
        attention = {"q_proj": (d, q), "k_proj": (d, kv), "v_proj": (d, kv), "o_proj": (q, d)}
        return attention | {"gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}

    @property
    def matrices(self) -> int:
        """The entries of a layer's matrices."""
        return sum(n * m for n, m in self.linears.values())

    @property
    def embedding(self) -> int:
        """The entries of the embedding, and of the output head, which may be the same matrix."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.layers * (self.matrices + self.per_layer) + self.width + self.embedding * (2 - self.tied)

    @property
    def read(self) -> int:
        """The parameters that a decoding step reads: all but an embedding that is no head."""
        return self.parameters - (0 if self.tied else self.embedding)

    def kv_bytes(self, size: int) -> int:
        """Bytes of keys and values of a token, `size` bytes a number."""
        return 2 * self.layers * self.kv_heads * self.head_width * size

    def forward(self, length: Number, *, past: Number = 0) -> Number:
        """Operations of a forward over `length` tokens after `past` ones, with causal attention."""
        seen = length * past + length**2 / 2
        attention = 4 * self.layers * self.heads * self.head_width * seen
        return 2 * (self.layers * self.matrices + self.embedding) * length + attention

    def adapter(self, rank: int, targets: Any) -> int:
        """The parameters of a LoRA adapter; without targets, as in peft, of the query and value projections."""
        names = list(self.linears) if targets == "all-linear" or targets == ["all-linear"] else targets
        names = [names] if isinstance(names, str) else names or ["q_proj", "v_proj"]
        return self.layers * rank * sum(sum(lookup(self.linears, name, "lora_target_modules")) for name in names)


def shape_of(config: dict[str, Any], model: str) -> Shape:
    """The sizes that a config.json gives; a HeadwayError for a kind of model that is not in `FAMILIES`."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise HeadwayError(
            f"the config.json of '{model}' has model_type {kind!r}; plan counts decoders with full attention and a "
            f"gated MLP: {', '.join(FAMILIES)}. Plan with such a model of the same size"
        )
    family = FAMILIES[kind]
    try:
        d, heads, layers = (int(config[n]) for n in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
        mlp, vocabulary = int(config["intermediate_size"]), int(config["vocab_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise HeadwayError(f"the config.json of '{model}' gives no size for {error}; expected a decoder's") from error
    kv_heads, head_width = (
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or family.head_width or d // heads,
    )
    q, kv = heads * head_width, kv_heads * head_width
    bias, mlp_bias = (name in family.biases and bool(config.get(name)) for name in ("attention_bias", "mlp_bias"))
    per_layer = 2 * d + (2 * head_width if family.head_norms else 0)
    per_layer += (q + 2 * kv if family.qkv_bias or bias else 0) + (d if bias else 0)
    per_layer += 2 * mlp + d if mlp_bias else 0
    kinds = config.get("layer_types") or []
    windowed = bool(config.get("sliding_window")) and config.get("use_sliding_window", True)
    return Shape(
        layers=layers, width=d, heads=heads, kv_heads=kv_heads, head_width=head_width, mlp=mlp, vocabulary=vocabulary,
        per_layer=per_layer, tied=config.get("tie_word_embeddings", family.tied),
        context=window_in(config),
        dtype=config.get("dtype") or config.get("torch_dtype") or "float32",
        windowed="sliding_attention" in kinds or (windowed and not kinds),
    )  # fmt: skip


def read_config(model: str) -> dict[str, Any]:
    """The config.json of a folder, of `builtin:NAME` or of a model on the hub, of which nothing else is downloaded."""
    folder = Path(model_path(model))
    file = folder / "config.json"
    try:
        if not folder.is_dir():
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(model, "config.json"))
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:  # of the network, the hub's answers, its names and JSON
        reason = str(error).split("\n")[0]
        raise HeadwayError(
            f"cannot read the config.json of '{model}': {reason}; give a folder that has one, or a model on the hub"
        ) from error
    if not isinstance(found, dict):
        raise HeadwayError(f"the config.json of '{model}' is no JSON object")
    return found
