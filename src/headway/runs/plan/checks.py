"""What of a recipe cannot be used, or should not, as far as it can be known before anything is loaded."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from headway.runs.plan.load import Load
from headway.runs.plan.recipe import Recipe
from headway.runs.plan.shapes import Shape

LONG = 2048  # tokens from which the sum of a trace's log-ratios is mostly noise


class Finding(NamedTuple):
    """A reason not to start, or to think again: the option, what is wrong, what to do."""

    kind: Literal["refused", "warning"]
    option: str
    text: str


def of_shape(shape: Shape, load: Load, *, vllm: bool) -> Iterator[Finding]:
    """What the model says: its context, which vLLM keeps to, and windows of attention."""
    if shape.context is not None and load.context > shape.context:
        yield Finding(
            "refused" if vllm else "warning", "context",
            f"prompt, trace, suffix and answer take {load.context} tokens, and the model's context is "
            f"{shape.context}; allow shorter completions",
        )  # fmt: skip
    if shape.windowed:
        yield Finding(
            "warning", "sliding_window",
            "some layers attend to a window: keys and values take less than said here, and transformers proves each "
            "boundary by itself, which takes longer",
        )  # fmt: skip


def of_recipe(recipe: Recipe, load: Load, gpus: int) -> Iterator[Finding]:
    """What the options of a training say."""
    r = recipe
    batch = r.per_device_train_batch_size * gpus * r.micro_batches(gpus)
    if batch % r.num_generations:
        yield Finding(
            "refused", "num_generations",
            f"{batch} traces are sampled together ({r.per_device_train_batch_size} x {gpus} GPUs x "
            f"{r.micro_batches(gpus)} batches), which is no whole number of groups of {r.num_generations}; change one",
        )  # fmt: skip
    if r.zero_stage == 3 and r.gives_credit:
        yield Finding("refused", "deepspeed", "ZeRO-3 with credit has not been run; use ZeRO-2 or FSDP2")
    if r.fsdp and r.fsdp_version != 2:
        yield Finding("refused", "fsdp_config", f"FSDP {r.fsdp_version} is not supported; set version: 2")
    if r.use_peft and r.layout == "fsdp2":
        yield Finding(
            "refused", "use_peft",
            "LoRA with divided weights has not been shown to work in TRL; an adapter needs no gradients of the "
            "model: leave fsdp and ZeRO-3 out",
        )  # fmt: skip
    if load.likelihood and "flash" in r.attention:
        yield Finding(
            "warning", "attn_implementation",
            f"'{r.attention}' takes no mask of a tree, so likelihoods are computed one by one: about "
            f"{load.boundaries / 2:.0f} forwards of each trace instead of one; use sdpa",
        )  # fmt: skip
    if r.optim not in ("adamw_torch", "adamw_torch_fused"):
        yield Finding("warning", "optim", f"'{r.optim}' is counted as AdamW, with two states of the weights' type")
    if r.beta:
        yield Finding(
            "warning", "beta", "the reference model is not counted: its weights, and a forward of each trace"
        )
    if r.use_vllm:
        yield from _of_vllm(r, load)


def _of_vllm(r: Recipe, load: Load) -> Iterator[Finding]:
    colocated = r.vllm_mode == "colocate"
    if r.gives_credit and r.vllm_enable_sleep_mode and colocated:
        yield Finding(
            "refused", "vllm_enable_sleep_mode",
            "vLLM sleeps after it has sampled, and its weights and cache are gone when branches need them; leave it "
            "out and lower vllm_gpu_memory_utilization",
        )  # fmt: skip
    if r.gives_credit and r.vllm_tensor_parallel_size > 1 and colocated:
        yield Finding(
            "refused", "vllm_tensor_parallel_size",
            f"ranks of one tensor parallel group would ask it for different branches; got "
            f"{r.vllm_tensor_parallel_size}, use 1, or vllm_mode: server",
        )  # fmt: skip
    if r.gives_credit and r.vllm_structured_outputs_regex:
        yield Finding(
            "refused", "vllm_structured_outputs_regex", "it shapes the traces, not their branches; leave it out"
        )  # fmt: skip
    given = r.vllm_max_model_length
    if given is not None and given < load.context:
        yield Finding(
            "refused", "vllm_max_model_length",
            f"prompt, trace, suffix and answer take {load.context} tokens, got {given}: the last boundary of a full "
            f"trace would fail; set at least {load.context}",
        )  # fmt: skip
    mode = r.vllm_importance_sampling_mode
    if r.vllm_importance_sampling_correction and mode.startswith("sequence") and r.max_completion_length > LONG:
        yield Finding(
            "warning", "vllm_importance_sampling_mode",
            f"'{mode}' weighs a trace by the sum of its tokens' log-ratios, which over {r.max_completion_length} "
            "tokens is mostly rounding: many traces would count for nothing; use token_truncate",
        )  # fmt: skip
