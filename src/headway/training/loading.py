"""The model and the tokenizer of a training, as its recipe names them."""

import os
from typing import Any

from transformers import AutoModelForCausalLM
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from trl import ModelConfig

from headway.engines.loading import load_tokenizer, load_weights
from headway.types import HeadwayError


def load_policy(name: str, args: Any, model: ModelConfig) -> tuple[Any, Any]:
    """The model that a recipe names and its tokenizer, with all weights from its files.

    Raises:
        HeadwayError: it cannot be loaded, or an option of it is not supported.
    """
    for option in ("load_in_8bit", "load_in_4bit"):
        if getattr(model, option):
            raise HeadwayError(f"{option} is not supported; leave it out (use_peft and bfloat16 need little memory)")
    tokenizer = load_tokenizer(name, trust_remote_code=args.trust_remote_code)
    options = {"revision": model.model_revision, "attn_implementation": model.attn_implementation}
    options = {"dtype": model.dtype, **{k: v for k, v in options.items() if v}, **(args.model_init_kwargs or {})}
    loaded = load_weights(
        name, AutoModelForCausalLM.from_pretrained, trust_remote_code=args.trust_remote_code, **options
    )
    used = {k: v for k, v in options.items() if k not in ("dtype", "attn_implementation")}
    args.model_init_kwargs = used if getattr(args, "beta", 0) else None  # TRL loads the reference model by them
    return loaded, tokenizer


def check_surroundings(args: Any) -> None:
    """Refuses what would fail, or train something else, only after the model is loaded; see the messages."""
    if not args.output_dir or args.output_dir == "trainer_output":  # transformers' default
        raise HeadwayError("no output_dir for the model; give 'output_dir' in the recipe or --output_dir")
    started = int(os.environ.get("WORLD_SIZE") or 1)
    if started > args.world_size:
        raise HeadwayError(
            f"{started} processes were started, but each believes it is alone, and would train the same: on CPUs give "
            "--use_cpu true to each, or start one"
        )
    names = [args.report_to] if isinstance(args.report_to, str) else args.report_to or []
    known, there = list(INTEGRATION_TO_CALLBACK), get_available_reporting_integrations()
    for name in names:
        if name not in (*known, "none", "all"):
            raise HeadwayError(f"report_to must be none, all or of {', '.join(known)}; got {name!r}")
        if name in known and name not in there:
            raise HeadwayError(f"report_to is {name}, which is not installed; install it, or use report_to: none")
