"""The options of MRT beside those of GRPO, and the combinations that would silently undo it."""

from dataclasses import dataclass, field
from typing import Literal

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from headway.choices import check_options
from headway.core.segment import Segment
from headway.text.tags import ThinkFormat
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
    values: Literal["branches", "distinct", "likelihood", "hybrid"] = field(
        default="branches",
        metadata={
            "help": "How a value is estimated. branches: the mean reward of answers sampled from the policy. "
            "distinct: their probability mass. likelihood: the probability of the known right answers, without "
            "sampling. hybrid: that and the mass of the other right answers among the branches. (docs/measuring.md)"
        },
    )
    value_shrinkage: Literal["none", "group"] = field(
        default="none",
        metadata={"help": "Move values towards their group's mean by what of the spread is noise. (ours)"},
    )
    progress_space: Literal["prob", "log", "logit"] = field(
        default="prob", metadata={"help": "Pay progress in probability (paper), its logarithm or log-odds."}
    )
    progress_floor: float = field(
        default=0.01, metadata={"help": "Values are kept this far from 0 (and from 1 for log-odds) in log and logit."}
    )
    progress_clip: float | None = field(default=None, metadata={"help": "Keep each bonus within plus and minus this."})
    progress_watermark: bool = field(
        default=False, metadata={"help": "Pay only new maxima of the value along the trace. (MIG, arXiv:2602.01034)"}
    )
    progress_baseline: Literal["group", "trace", "none"] = field(
        default="group",
        metadata={
            "help": "Center bonuses by the group's other traces at the same boundary (ours), or more and more by the "
            "trace's own earlier progress (after BRPO); the stop pays too."
        },
    )
    progress_scale: Literal["none", "group"] = field(
        default="none", metadata={"help": "Divide the bonuses by their standard deviation in the group. (ours)"}
    )
    segment: Segment = field(
        default="markers", metadata={"help": "Cut thinking at markers (paper), at backtracks, or on a token grid."}
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
    think_format: ThinkFormat | None = field(
        default=None, metadata={"help": "Tags of the thinking; by default the tokenizer tells."}
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
        check_options(self, names=[f for f in MRTConfig.__annotations__ if f != "bf16"])
        super().__post_init__()
        if self.progress_weight < 0:
            raise HeadwayError(f"progress_weight must be at least 0, got {self.progress_weight}")
        if self.max_generated_tokens is not None and self.max_generated_tokens < 1:
            raise HeadwayError(f"max_generated_tokens must be at least 1, got {self.max_generated_tokens}")
        for name in ("min_paragraphs", "episode_tokens", "max_episodes", "branches", "branch_max_tokens"):
            if getattr(self, name) < 1:
                raise HeadwayError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.progress_floor < 0.5:
            raise HeadwayError(f"progress_floor must be above 0 and below 0.5, got {self.progress_floor}")
        if self.progress_clip is not None and self.progress_clip <= 0:
            raise HeadwayError(f"progress_clip must be above 0, got {self.progress_clip}")
        if self.progress_weight == 0:
            return
        if self.progress_baseline == "trace" and self.credit == "to_go":
            raise HeadwayError(
                "progress_baseline 'trace' takes a trace's earlier bonuses, which with credit 'to_go' tell of its end "
                "and would bias the gradient; use credit 'episode', or progress_baseline 'group'"
            )
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
