"""The options of MRT beside those of GRPO, and the combinations that would silently undo it; those of STaR's SFT."""

import logging
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig, SFTConfig

from headway.choices import Option, check_options, declared, lookup
from headway.core.segment import Cutting, Segment
from headway.core.tally import ValueKind
from headway.credit import SCHEMES
from headway.text.tags import ThinkFormat
from headway.types import HeadwayError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CREDIT = [f"{name}: {(scheme.bonuses.__doc__ or '').partition(chr(10))[0]}" for name, scheme in SCHEMES.items()]
_VALUES = (
    "How values are estimated. branches: mean reward of answers sampled from the policy. distinct: probability of the "
    "distinct correct ones among them. likelihood: probability of the known correct answers, without sampling. "
    "hybrid: likelihood, and distinct for the other correct answers. (docs/measuring.md)"
)


def with_help(group: type[T]) -> type[T]:
    """A dataclass with the help text of each `Option` where TRL's parser reads it."""
    for name, option in declared(group).items():
        group.__dataclass_fields__[name].metadata = {"help": option.help}  # type: ignore[attr-defined]
    return group


_BF16 = Option("Mixed precision; default: where the GPU supports it. (TRL: True)")


@with_help
@dataclass
class MRTConfig(GRPOConfig):  # type: ignore[misc]
    """GRPO's options and those of MRT; each help text says where its default comes from."""

    progress_weight: Annotated[float, Option("Alpha: weight of progress; 0 is plain GRPO. (v0.1)", least=0)] = 1.0
    credit: str = field(
        default="episode",
        metadata={"choices": list(SCHEMES), "help": f"What gets a bonus. {' '.join(_CREDIT)} (docs/concepts.md)"},
    )
    progress_lambda: Annotated[
        float, Option("Lambda of credit: lambda: 0 is episode, 1 is to_go. (ours)", least=0, most=1)
    ] = 0.5
    regret_budget: Annotated[
        int | None, Option("C0, the budget of regret in tokens; default: max_completion_length and suffix.", least=1)
    ] = None
    values: Annotated[ValueKind, Option(_VALUES)] = "branches"
    segment: Annotated[Segment, Option("Cut at markers (paper), at backtracks, or on a token grid.")] = "markers"
    min_paragraphs: Annotated[int, Option("Minimum paragraphs of an episode. (paper's analysis)")] = 3
    episode_tokens: Annotated[int, Option("Tokens of an episode on the grid. (ours)")] = 128
    max_episodes: Annotated[
        int | None, Option("Episodes of a trace, at most: each but the last has 1/this of its tokens.")
    ] = 6
    branches: Annotated[int, Option("Forced answers per boundary. (v0.1)", least=1)] = 4
    answer_tokens: Annotated[int, Option("Maximum tokens of a forced answer. (ours)", least=1)] = 32
    suffix: Annotated[str | None, Option("Text that forces an answer within the thinking.")] = None
    end_suffix: Annotated[str | None, Option("Text that forces an answer after complete thinking.")] = None
    think_format: Annotated[ThinkFormat | None, Option("Think tags; default: detected from the tokenizer.")] = None
    think_open: Annotated[str | None, Option("Text that opens the thinking, if not <think>.")] = None
    think_close: Annotated[str | None, Option("Text that closes the thinking, if not </think>.")] = None
    bf16: Annotated[bool | None, _BF16] = None
    max_computed_tokens: Annotated[
        int | None, Option("Stop after so many computed tokens in all (docs/training.md).", least=1)
    ] = None
    max_generated_tokens: Annotated[int | None, Option("Stop after so many sampled tokens in all.", least=1)] = None

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False
        check_options(self, names=[f for f in MRTConfig.__annotations__ if f != "bf16"])
        if self.max_steps == 0:
            raise HeadwayError("max_steps is 0, which trains nothing; use at least 1, or leave it out")
        self.cutting.check()
        lookup(SCHEMES, self.credit, "credit")
        super().__post_init__()
        if not self.gives_credit:
            return
        if (self.top_k or 0) > 0 or self.min_p or self.repetition_penalty != 1:
            raise HeadwayError(
                f"top_k {self.top_k}, min_p {self.min_p} and repetition_penalty {self.repetition_penalty} change how "
                "traces are sampled, not how their branches are; leave them out (temperature and top_p apply to both)"
            )
        if SCHEMES[self.credit].starts == "mixed_prefix" and self.num_generations % 2:
            raise HeadwayError(
                f"credit {self.credit} forces half of a group to answer at its prefix; got num_generations "
                f"{self.num_generations}, use an even number"
            )
        if SCHEMES[self.credit].values_of == "policy" and self.values != "branches":
            raise HeadwayError(
                f"credit {self.credit} needs the policy's own values, which are sampled; got values '{self.values}', "
                "use values: branches"
            )
        if (level := self.importance_sampling_level) != "token":
            raise HeadwayError(
                f"importance_sampling_level is '{level}', which averages the credit of tokens away; use 'token', or "
                "credit: grpo"
            )
        if self.loss_type in ("grpo", "sapo"):
            raise HeadwayError(
                f"loss_type is '{self.loss_type}', which divides by a trace's length: the baseline of early tokens "
                "would depend on later ones, which is a wrong gradient; use 'dr_grpo' (exact), 'dapo' or credit: grpo"
            )
        for option, given in (
            ("loss_type: bnpo", self.loss_type == "bnpo"),
            ("mask_truncated_completions", self.mask_truncated_completions),
        ):
            if given:
                logger.warning(
                    f"{option} weighs tokens by how their traces end, so the gradient of the credit is biased; use "
                    "loss_type dr_grpo or dapo without mask_truncated_completions"
                )
        if self.loss_type == "cispo" and self.epsilon_high is None:
            raise HeadwayError(
                "loss_type is 'cispo' without epsilon_high; TRL's default would clamp the ratio at epsilon and shrink "
                "every gradient to a fifth; set epsilon_high (5.0 is usual)"
            )
        if getattr(self, "use_liger_kernel", False):
            raise HeadwayError("use_liger_kernel computes the loss from one advantage a trace; MRT has one a token")
        if self.use_vllm:
            raise HeadwayError("use_vllm does not support credit: transformers samples branches; leave use_vllm off")
        if self.deepspeed is not None or self.fsdp:
            raise HeadwayError(
                "deepspeed and fsdp are not supported with credit: processes sample different numbers of branches, "
                "and sharded models would wait for each other; use data parallel training"
            )

    @property
    def cutting(self) -> Cutting:
        """How the thinking of a trace is cut into episodes."""
        return Cutting(self.segment, self.min_paragraphs, self.episode_tokens, self.max_episodes)

    @property
    def gives_credit(self) -> bool:
        """Whether a step differs from TRL's own."""
        return self.progress_weight != 0 and SCHEMES[self.credit].pays != "nothing"


@with_help
@dataclass
class FineTuneConfig(SFTConfig):  # type: ignore[misc]
    """SFT's options for texts that are token ids already, with the loss on the completion."""

    bf16: Annotated[bool | None, _BF16] = None

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False
        if self.max_steps == 0:
            raise HeadwayError("max_steps is 0, which trains nothing; use at least 1, or leave it out")
        super().__post_init__()
        if self.completion_only_loss is False:
            raise HeadwayError("completion_only_loss is False; STaR learns the sampled completions only: leave it out")
        if self.resume_from_checkpoint is not None:
            raise HeadwayError("resume_from_checkpoint is not for STaR: the same command continues its output_dir")
