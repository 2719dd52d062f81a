"""The options of MRT beside those of GRPO, and the combinations that would silently undo it."""

from dataclasses import dataclass, field
from typing import Literal

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from headway.types import HeadwayError


@dataclass
class MRTConfig(GRPOConfig):  # type: ignore[misc]
    """GRPO's options and those of MRT; each help text says where its default comes from."""

    progress_weight: float = field(
        default=1.0, metadata={"help": "Alpha: how much progress counts beside the outcome; 0 is plain GRPO. (v0.1)"}
    )
    credit: Literal["trace", "episode", "to_go"] = field(
        default="episode",
        metadata={
            "help": "episode: each episode gets its own progress. to_go: the progress from it to the end. trace: one "
            "bonus for a completion that starts at a stale prefix, the paper's form. (ours: docs/deviations.md)"
        },
    )
    values: Literal["branches"] = field(
        default="branches", metadata={"help": "How a value is estimated: by branches sampled from the policy."}
    )
    progress_baseline: Literal["group", "none"] = field(
        default="group",
        metadata={
            "help": "Center bonuses by the group's other traces at the same boundary; the stop pays too. (ours)"
        },
    )
    progress_scale: Literal["none", "group"] = field(
        default="none", metadata={"help": "Divide the bonuses by their standard deviation in the group. (ours)"}
    )
    segment: Literal["markers", "tokens"] = field(
        default="markers", metadata={"help": "Cut thinking at markers (paper) or on a grid of tokens."}
    )
    min_paragraphs: int = field(default=3, metadata={"help": "Paragraphs an episode has at least. (paper's analysis)"})
    episode_tokens: int = field(default=128, metadata={"help": "Tokens of an episode on the grid. (ours)"})
    max_episodes: int = field(default=6, metadata={"help": "Neighbours are merged down to so many. (v0.1)"})
    branches: int = field(default=4, metadata={"help": "Forced answers at each boundary. (v0.1)"})
    branch_max_tokens: int = field(default=32, metadata={"help": "Tokens a forced answer may take. (ours)"})
    meta_prover_suffix: str | None = field(default=None, metadata={"help": "What forces an answer in mid-thought."})
    meta_prover_end: str | None = field(
        default=None, metadata={"help": "What asks for it after a thought that ended."}
    )
    think_open: str | None = field(default=None, metadata={"help": "What opens the thinking, if not <think>."})
    think_close: str | None = field(default=None, metadata={"help": "What ends the thinking, if not </think>."})
    bf16: bool | None = field(
        default=None,
        metadata={"help": "Mixed precision; by default where the GPU has it. (TRL's True is an error elsewhere)"},
    )
    max_generated_tokens: int | None = field(
        default=None, metadata={"help": "Stop when so many tokens were sampled, branches counted: equal cost."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False
        super().__post_init__()
        for name in ("min_paragraphs", "episode_tokens", "max_episodes", "branches", "branch_max_tokens"):
            if getattr(self, name) < 1:
                raise HeadwayError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.progress_weight == 0:
            return
        if self.importance_sampling_level != "token":
            raise HeadwayError(
                f"importance_sampling_level is '{self.importance_sampling_level}', which averages the credit of "
                "tokens away; use 'token', or progress_weight: 0"
            )
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise HeadwayError(
                "loss_type is 'cispo' without epsilon_high; TRL's default would clamp the ratio at epsilon and shrink "
                "every gradient to a fifth; set epsilon_high (5.0 is usual)"
            )
        if getattr(self, "use_liger_kernel", False):
            raise HeadwayError("use_liger_kernel computes the loss from one advantage a trace; MRT has one a token")
        if self.use_vllm:
            raise HeadwayError(
                "use_vllm is not supported with a progress weight yet: branches are sampled by transformers; leave "
                "use_vllm off"
            )
        if self.deepspeed is not None or self.fsdp:
            raise HeadwayError(
                "deepspeed and fsdp are not supported with a progress weight yet: ranks draw different numbers of "
                "branches, and sharded models would wait for each other; use data parallel training"
            )
