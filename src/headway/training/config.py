"""The options of MRT beside those of GRPO, and the combinations that would silently undo it."""

from dataclasses import dataclass, field

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from headway.choices import check_options, lookup
from headway.core.segment import Cutting, Segment
from headway.core.tally import ValueKind
from headway.credit import SCHEMES
from headway.text.tags import ThinkFormat
from headway.types import HeadwayError

_CREDIT = [f"{name}: {(scheme.bonuses.__doc__ or '').partition(chr(10))[0]}" for name, scheme in SCHEMES.items()]


@dataclass
class MRTConfig(GRPOConfig):  # type: ignore[misc]
    """GRPO's options and those of MRT; each help text says where its default comes from."""

    progress_weight: float = field(
        default=1.0, metadata={"help": "Alpha: how much progress counts beside the outcome; 0 is plain GRPO. (v0.1)"}
    )
    credit: str = field(
        default="episode",
        metadata={"choices": list(SCHEMES), "help": f"What gets a bonus. {' '.join(_CREDIT)} (docs/concepts.md)"},
    )
    values: ValueKind = field(
        default="branches",
        metadata={
            "help": "How a value is estimated. branches: the mean reward of answers sampled from the policy. "
            "distinct: their probability mass. likelihood: the probability of the known right answers, without "
            "sampling. hybrid: that and the mass of the other right answers among the branches. (docs/measuring.md)"
        },
    )
    segment: Segment = field(
        default="markers", metadata={"help": "Cut thinking at markers (paper), at backtracks, or on a token grid."}
    )
    min_paragraphs: int = field(default=3, metadata={"help": "Paragraphs an episode has at least. (paper's analysis)"})
    episode_tokens: int = field(default=128, metadata={"help": "Tokens of an episode on the grid. (ours)"})
    max_episodes: int = field(default=6, metadata={"help": "Merge neighbouring episodes to at most this many. (v0.1)"})
    branches: int = field(default=4, metadata={"help": "Forced answers at each boundary. (v0.1)"})
    answer_tokens: int = field(default=32, metadata={"help": "Most tokens of a forced answer. (ours)"})
    suffix: str | None = field(default=None, metadata={"help": "Text that forces an answer in mid-thought."})
    end_suffix: str | None = field(
        default=None, metadata={"help": "Text that asks for the answer after a thought that ended by itself."}
    )
    think_format: ThinkFormat | None = field(
        default=None, metadata={"help": "Tags of the thinking; by default read from the tokenizer."}
    )
    think_open: str | None = field(default=None, metadata={"help": "What opens the thinking, if not <think>."})
    think_close: str | None = field(default=None, metadata={"help": "What ends the thinking, if not </think>."})
    bf16: bool | None = field(
        default=None,
        metadata={"help": "Mixed precision; by default where the GPU has it. (TRL's True is an error elsewhere)"},
    )
    max_generated_tokens: int | None = field(
        default=None, metadata={"help": "Stop after this many sampled tokens, branches included: equal cost."}
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False
        check_options(self, names=[f for f in MRTConfig.__annotations__ if f != "bf16"])
        self.cutting.check()
        lookup(SCHEMES, self.credit, "credit")
        super().__post_init__()
        if self.progress_weight < 0:
            raise HeadwayError(f"progress_weight must be at least 0, got {self.progress_weight}")
        if self.max_generated_tokens is not None and self.max_generated_tokens < 1:
            raise HeadwayError(f"max_generated_tokens must be at least 1, got {self.max_generated_tokens}")
        for name in ("branches", "answer_tokens"):
            if getattr(self, name) < 1:
                raise HeadwayError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.gives_credit:
            return
        if self.importance_sampling_level != "token":
            raise HeadwayError(
                f"importance_sampling_level is '{self.importance_sampling_level}', which averages the credit of "
                "tokens away; use 'token', or credit: grpo"
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
                "use_vllm is not supported with credit yet: branches are sampled by transformers; leave use_vllm off"
            )
        if self.deepspeed is not None or self.fsdp:
            raise HeadwayError(
                "deepspeed and fsdp are not supported with credit yet: ranks draw different numbers of "
                "branches, and sharded models would wait for each other; use data parallel training"
            )

    @property
    def cutting(self) -> Cutting:
        """How the thinking of a trace is cut into episodes."""
        return Cutting(self.segment, self.min_paragraphs, self.episode_tokens, self.max_episodes)

    @property
    def gives_credit(self) -> bool:
        """Whether a step differs from TRL's own."""
        return self.progress_weight != 0 and SCHEMES[self.credit].pays != "nothing"
