"""Bytes of a GPU while it trains or measures, by how the model is divided over GPUs."""

from typing import NamedTuple

import msgspec

from headway.runs.plan.load import Load
from headway.runs.plan.shapes import Number, Shape

LAYOUTS = ("data parallel", "zero2", "fsdp2")
TILE_TOKENS, TILE_COLUMNS = 4096, 32768  # of TRL's fused output head
GROWTH = 9 / 8  # of a KV cache that grows in place
CACHE = 2**30  # of keys and values in a batch of the transformers engine


class Numbers(NamedTuple):
    """Bytes of a number: of weights, of what is computed with."""

    weights: int
    computed: int


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a GPU by what has them, and the most at once while it samples and while it learns."""

    weights: float
    gradients: float = 0
    optimizer: float = 0
    buckets: float = 0  # of data parallel training, for its gradients
    copies: float = 0  # of the weights as they are computed with, whole or of the layers at work
    activations: float = 0
    logits: float = 0
    cache: float = 0  # keys and values while the trainer's model samples, or vLLM's share
    sampling: float
    learning: float = 0

    @property
    def peak(self) -> Number:
        """The most at once."""
        return max(self.sampling, self.learning)


def activations(shape: Shape, load: Load, n: Numbers, *, checkpointing: bool, flash: bool = False) -> Number:
    """Bytes that a forward with gradients keeps for the backward.

    A layer keeps, for each token: of its two norms the input in float32, the normed input, and the output; the
    queries, keys, values (repeated for each query head where a mask is given) and output of attention; four vectors
    of the MLP. With checkpointing only the input of each layer is kept, and one layer is computed again at a time.
    """
    length = load.prompt + load.longest
    tokens = load.micro * length
    q = shape.heads * shape.head_width
    kv = shape.kv_heads * shape.head_width if flash else q
    layer = 2 * shape.width * (4 + n.weights + n.computed) + (2 * q + 2 * kv + 4 * shape.mlp) * n.computed
    mask = 0 if flash else load.micro * length**2 * (1 + n.computed)
    kept = shape.layers * shape.width * n.weights + layer if checkpointing else shape.layers * layer
    return tokens * kept + mask


def logits(shape: Shape, load: Load, n: Numbers, *, triton: bool = True) -> Number:
    """Bytes of the backward of TRL's fused output head: a tile of logits, and two gradients in float32.

    The gradients are those of the hidden states and of the head. Triton writes the gradient over the tile; without it,
    as on a CPU, torch makes seven more tensors of its size in float32, and one of booleans.
    """
    tokens = load.micro * (load.prompt + load.longest)
    tile = min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_COLUMNS)
    entry = n.computed if triton else n.computed + 7 * 4 + 1
    return tile * entry + 4 * (tokens * shape.width + shape.embedding)


class Held(NamedTuple):
    """Bytes beside the model, keys and values those of sampling or vLLM's; and whether gradients accumulate."""

    activations: float
    logits: float
    sampling: float
    vllm: float
    accumulates: bool


def training(shape: Shape, n: Numbers, *, layout: str, gpus: int, trained: int, held: Held) -> Memory:
    """The memory of a training step. `trained` parameters have gradients and two states of AdamW of the same size."""
    divided = gpus if layout == "fsdp2" else 1
    states = gpus if layout != "data parallel" else 1
    weights = shape.parameters * n.weights
    layer = (shape.matrices + shape.per_layer) * n.computed
    whole = (shape.parameters - shape.layers * shape.matrices) * n.computed
    if layout == "fsdp2" and gpus > 1:
        copies = whole + 2 * layer
    else:
        copies = shape.parameters * n.computed if n.computed < n.weights else 0
    gradients = trained * n.weights / states
    optimizer = 2 * trained * n.weights / states
    buckets = trained * n.weights if layout == "data parallel" and gpus > 1 else 0
    always = weights / divided + optimizer + buckets + copies + held.vllm
    backward = max(held.activations + held.logits + (gradients if held.accumulates else 0), gradients)
    return Memory(
        weights=weights / divided, gradients=gradients, optimizer=optimizer, buckets=buckets, copies=copies,
        activations=held.activations, logits=held.logits, cache=held.sampling + held.vllm,
        sampling=always + held.sampling,
        learning=always + backward,
    )  # fmt: skip
