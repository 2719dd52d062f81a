"""GPUs, and how much of what they can do is reached."""

from typing import Annotated, NamedTuple

from headway.choices import Option, Options, lookup

GB = 1e9


class Gpu(NamedTuple):
    """Memory in bytes, dense bfloat16 operations a second, bytes a second to and from memory."""

    memory: float
    flops: float
    bandwidth: float


CPU = "cpu"
# NVIDIA's data sheets, SXM where there are several; where these give bfloat16 with sparsity, half of it
GPUS = {
    "b200": Gpu(180e9, 2.25e15, 7.7e12),
    "h200": Gpu(141e9, 989e12, 4.8e12),
    "h100": Gpu(80e9, 989e12, 3.35e12),
    "a100": Gpu(80e9, 312e12, 2.039e12),
    "a100-40gb": Gpu(40e9, 312e12, 1.555e12),
    "l40s": Gpu(48e9, 362e12, 0.864e12),
    "l4": Gpu(24e9, 121e12, 0.3e12),
    "a10": Gpu(24e9, 125e12, 0.6e12),
    "rtx4090": Gpu(24e9, 165e12, 1.008e12),
    CPU: Gpu(16e9, 1e11, 2e10),  # a core or two; give --tflops, --gbps and --gpu-gb
}


class Machine(Options, frozen=True):
    """The GPUs, and what is assumed of them and of the traces."""

    gpu: Annotated[str, Option(f"Kind of GPU: {', '.join(GPUS)}.")] = "h100"
    gpus: Annotated[int, Option("Number of GPUs.", least=1)] = 1
    gpu_gb: Annotated[float | None, Option("Memory of a GPU in GB, if not that of its kind.", above=0)] = None
    tflops: Annotated[float | None, Option("Dense bfloat16 TFLOP/s, if not those of its kind.", above=0)] = None
    gbps: Annotated[float | None, Option("Memory bandwidth in GB/s, if not that of its kind.", above=0)] = None
    mfu: Annotated[
        float, Option("Fraction of the FLOP/s that forwards reach. (Llama 3: 0.38 to 0.43)", above=0, most=1)
    ] = 0.4
    mbu: Annotated[
        float, Option("Fraction of the bandwidth that decoding reaches. (gpt-fast: 0.72)", above=0, most=1)
    ] = 0.7
    step_ms: Annotated[
        float | None, Option("Overhead of a decoding step; default: 2 with vLLM, else 1 a layer. (ours)", least=0)
    ] = None
    mean_tokens: Annotated[
        int | None, Option("Mean tokens of a completion; default: 0.6 of the maximum. (ours)", least=1)
    ] = None
    prompt_tokens: Annotated[int, Option("Tokens of the longest prompt. (ours)", least=1)] = 256
    mean_episodes: Annotated[
        float | None, Option("Mean episodes of a trace; default: max_episodes, else one per 256 tokens.", above=0)
    ] = None  # fmt: skip

    @property
    def each(self) -> Gpu:
        """One of the GPUs."""
        kind = lookup(GPUS, self.gpu, "gpu")
        flops = kind.flops if self.tflops is None else self.tflops * 1e12
        bandwidth = kind.bandwidth if self.gbps is None else self.gbps * GB
        return Gpu(kind.memory if self.gpu_gb is None else self.gpu_gb * GB, flops, bandwidth)
