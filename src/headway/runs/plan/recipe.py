"""The options of a training recipe that decide what it takes, read without TRL, with its names and defaults."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from headway.choices import lookup
from headway.core.tally import ValueKind
from headway.credit import SCHEMES, Scheme
from headway.runs.recipe_file import content_of
from headway.types import HeadwayError

Count = Annotated[int, msgspec.Meta(ge=1)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `headway train`; what they mean is said there. A test compares the defaults."""

    model_name_or_path: str
    # Headway's
    credit: str = "episode"
    progress_weight: float = 1.0
    values: ValueKind = "branches"
    segment: str = "markers"
    episode_tokens: Count = 128
    max_episodes: Count | None = 6
    branches: Count = 4
    answer_tokens: Count = 32
    suffix: str | None = None
    # TRL's
    num_generations: Count = 8
    per_device_train_batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    steps_per_generation: Count | None = None
    generation_batch_size: Count | None = None
    num_iterations: Count = 1
    max_completion_length: Count = 512
    max_steps: int = -1
    beta: float = 0.0
    bf16: bool | None = None
    optim: str = "adamw_torch_fused"
    gradient_checkpointing: bool = True
    activation_checkpointing: bool | None = None
    fsdp: bool | str | list[str] | None = None
    fsdp_config: dict[str, Any] | str | None = None
    deepspeed: dict[str, Any] | str | None = None
    use_vllm: bool = False
    vllm_mode: Literal["colocate", "server"] = "colocate"
    vllm_enable_sleep_mode: bool = False
    vllm_tensor_parallel_size: Count = 1
    vllm_gpu_memory_utilization: float = 0.3
    vllm_max_model_length: int | None = None
    vllm_structured_outputs_regex: str | None = None
    vllm_importance_sampling_correction: bool = True
    vllm_importance_sampling_mode: str = "sequence_mask"
    model_init_kwargs: dict[str, Any] | None = None
    dtype: str | None = "float32"
    attn_implementation: str | None = None
    use_peft: bool = False
    lora_r: Count = 16
    lora_target_modules: list[str] | str | None = None

    @property
    def scheme(self) -> Scheme:
        """How credit is given; that of `grpo` where progress has no weight."""
        return SCHEMES[self.credit if self.progress_weight else "grpo"]

    @property
    def gives_credit(self) -> bool:
        """Whether a step differs from TRL's own."""
        return self.scheme.pays != "nothing"

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again in the backward."""
        return self.gradient_checkpointing if self.activation_checkpointing is None else self.activation_checkpointing

    @property
    def attention(self) -> str:
        """The implementation of attention; transformers takes sdpa by itself."""
        return (self.model_init_kwargs or {}).get("attn_implementation") or self.attn_implementation or "sdpa"

    def micro_batches(self, gpus: int) -> int:
        """Forwards of `per_device_train_batch_size` traces on a GPU from one sampling to the next."""
        if self.generation_batch_size is not None:
            return max(1, self.generation_batch_size // (self.per_device_train_batch_size * gpus))
        return self.steps_per_generation or self.gradient_accumulation_steps

    @property
    def zero_stage(self) -> int:
        """DeepSpeed's stage, 0 without."""
        config = _config(self.deepspeed, "deepspeed")
        return int((config.get("zero_optimization") or {}).get("stage", 0))

    @property
    def fsdp_version(self) -> int:
        """Version of FSDP, 0 without."""
        config = _config(self.fsdp_config, "fsdp_config")
        return int(config.get("version", config.get("fsdp_version", 1))) if self.fsdp else 0

    @property
    def layout(self) -> str:
        """How the trainer divides the model over GPUs: a key of `memory.LAYOUTS`."""
        return "fsdp2" if self.fsdp else {2: "zero2", 3: "fsdp2"}.get(self.zero_stage, "data parallel")


def _config(given: dict[str, Any] | str | None, option: str) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(Path(given).read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise HeadwayError(f"cannot read {option} '{given}': {error}; expected a JSON file") from error
    return given or {}


def read_recipe(path: Path) -> tuple[Recipe, list[str]]:
    """A recipe, and a warning for each name in it that nearly is one of these options.

    Raises:
        HeadwayError: the file cannot be read, or an option has another type.
    """
    given = content_of(path)
    if not isinstance(given, dict) or not given.get("model_name_or_path"):
        raise HeadwayError(f"the recipe {path} names no model; expected model_name_or_path and other options of train")
    try:
        recipe = msgspec.convert(given, Recipe, strict=False)
    except msgspec.ValidationError as error:
        raise HeadwayError(f"the recipe {path}: {str(error)[:1].lower()}{str(error)[1:]}") from error
    lookup(SCHEMES, recipe.credit, "credit")
    return recipe, list(_misspelled(given))


def _misspelled(given: dict[str, Any]) -> Iterator[str]:
    known = Recipe.__struct_fields__
    for name in given:
        if name not in known and (near := get_close_matches(str(name), known, n=1, cutoff=0.9)):
            yield f"'{name}' is not read by plan; did you mean '{near[0]}'?"
