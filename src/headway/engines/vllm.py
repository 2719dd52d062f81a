"""The vLLM engine, in this process: continuous batching and prefix caching.

vLLM derives the seed of sample s of a request from the request's own, so samples depend on neither batch nor order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import vllm
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.platforms import current_platform

from headway.types import Completion, HeadwayError, Prompt, SamplingParams


class VLLMEngine:
    """Samples from a model that vLLM holds.

    Args:
        llm: vLLM's own, with prefix caching and `logprobs_mode="processed_logprobs"`, as `load` makes it.
    """

    def __init__(self, llm: Any) -> None:
        self.tokenizer: Any = llm.get_tokenizer()
        self._llm = llm

    def sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, *, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """`params.n` samples of each prompt; all go to vLLM's scheduler at once, in this order.

        Raises:
            HeadwayError: a prompt is too long for the model, or vLLM refuses it or fails.
        """
        if any(not prompt for prompt in prompts):
            raise ValueError("a prompt needs at least one token")
        if not prompts:
            return []
        longest, room = max(map(len, prompts)), self._llm.model_config.max_model_len
        if longest + params.max_tokens > room:  # vLLM would end the completion early instead
            raise HeadwayError(
                f"a prompt of {longest} tokens with room for {params.max_tokens} more is over the {room} that vLLM "
                "holds; lower --budget, or raise max_model_len in --vllm-args as far as the model goes"
            )
        greedy = params.temperature == 0  # vLLM has one greedy sample a prompt: the others are its copies
        each = [
            vllm.SamplingParams(
                n=1 if greedy else params.n,
                max_tokens=params.max_tokens,
                temperature=params.temperature,
                top_p=params.top_p,
                stop=list(params.stop),
                seed=seed,
                logprobs=0,  # of the sampled token alone
                skip_special_tokens=False,
                include_stop_str_in_output=True,
                detokenize=bool(params.stop),
            )
            for seed in seeds
        ]
        try:
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(prompt.ids)} for prompt in prompts], each, use_tqdm=False
            )
        except (ValueError, VLLMClientError) as error:
            raise HeadwayError(
                f"vLLM refuses a prompt (the longest has {longest} tokens): {str(error).strip()}"
            ) from error
        except VLLMError as error:
            raise HeadwayError(
                f"vLLM failed ({str(error).strip()}), and says more above. What was measured is kept"
            ) from error
        copies = params.n if greedy else 1
        return [[_completion(c, greedy=greedy) for c in output.outputs] * copies for output in outputs]


def _completion(output: Any, *, greedy: bool) -> Completion:
    """Without the token that ended the text: vLLM lists it, and names what stopped a completion if it was a string."""
    ids = tuple(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        raise HeadwayError(f"vLLM ended a completion with {output.finish_reason!r}, expected 'stop' or 'length'")
    if output.finish_reason == "stop" and not isinstance(output.stop_reason, str):
        ids = ids[:-1]
    return Completion(ids, output.finish_reason, 0.0 if greedy else min(0.0, output.cumulative_logprob))


def load(
    model: str, *, dtype: str = "auto", trust_remote_code: bool = False, arguments: Mapping[str, Any] | None = None
) -> VLLMEngine:
    """The engine of a model folder or hub name; `arguments` are vLLM's own (`tensor_parallel_size` and the like).

    Raises:
        HeadwayError: vLLM cannot load it; says why.
    """
    ours: dict[str, Any] = dict(
        dtype=dtype, trust_remote_code=trust_remote_code, load_format="safetensors", enable_prefix_caching=True
    )
    if current_platform.is_cpu():
        # a prompt in pieces, of a request with a seed, ends vLLM there: it takes back what torch's CPU generator drew
        ours["enable_chunked_prefill"] = False
    try:
        return VLLMEngine(vllm.LLM(model, **(ours | dict(arguments or {}) | {"logprobs_mode": "processed_logprobs"})))
    except (OSError, ValueError, TypeError, RuntimeError, VLLMError) as error:
        raise HeadwayError(
            f"vLLM cannot load the model '{model}': {str(error).strip()}; expected a folder or hub name with "
            "*.safetensors, and in --vllm-args what vLLM itself takes"
        ) from error
