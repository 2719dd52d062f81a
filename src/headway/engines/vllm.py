"""The vLLM engine, in this process. vLLM derives the seed of each sample of a request from the request's seed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import vllm
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.platforms import current_platform

from headway.engines.streaming import Parts, together
from headway.engines.window import refuse_beyond
from headway.types import Completion, HeadwayError, Prompts, SamplingParams


class VLLMEngine:
    """Samples from a `vllm.LLM` with prefix caching and `logprobs_mode="processed_logprobs"`, as `load` makes it."""

    def __init__(self, llm: Any) -> None:
        self.tokenizer: Any = llm.get_tokenizer()
        self._llm, self.window = llm, llm.model_config.max_model_len

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """`params.n` samples of each prompt; all go to vLLM's scheduler at once, in this order.

        Raises:
            HeadwayError: a prompt is too long for the model, or vLLM refuses it or fails.
        """
        return together(self.stream(prompts, params, seeds=seeds), len(prompts))

    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """The samples of `sample`, as vLLM finishes a prompt's."""
        # vLLM would end the completion early instead
        advice = "or raise max_model_len in --vllm-args as far as the model goes"
        refuse_beyond(prompts, params.max_tokens, self.window, advice)
        greedy = params.temperature == 0  # vLLM has one greedy sample a prompt: the others are its copies
        options: dict[str, Any] = msgspec.structs.asdict(params) | dict(
            n=1 if greedy else params.n, stop=list(params.stop), detokenize=bool(params.stop),
            logprobs=0, skip_special_tokens=False, include_stop_str_in_output=True,  # 0: of the sampled token alone
        )  # fmt: skip
        places, copies = [i for i in range(len(prompts)) if i not in done], params.n // options["n"]
        asked = [{"prompt_token_ids": list(prompts[i].ids)} for i in places]
        sampling = [vllm.SamplingParams(seed=seeds[i], **options) for i in places]
        engine, waiting = self._llm.llm_engine, dict[str, int]()
        try:
            names = self._llm.enqueue(asked, sampling, use_tqdm=False) if asked else []
            # an output has the number that a name begins with
            waiting |= {name.partition("-")[0]: i for name, i in zip(names, places, strict=True)}
            while waiting:
                if ended := [output for output in engine.step() if output.finished]:
                    yield {
                        waiting.pop(o.request_id): [_completion(c, greedy=greedy) for c in o.outputs] * copies
                        for o in ended
                    }
        except HeadwayError:
            raise
        except (ValueError, VLLMClientError) as error:
            longest = max(map(len, prompts))
            said = f"vLLM refuses a prompt (the longest has {longest} tokens): {str(error).strip()}"
            raise HeadwayError(said) from error
        except VLLMError as error:
            said = f"vLLM failed ({str(error).strip()}); its log above has details. What was measured is kept"
            raise HeadwayError(said) from error
        finally:
            if waiting:  # stopped
                engine.abort_request(list(waiting))


def _completion(output: Any, *, greedy: bool) -> Completion:
    """A completion without the token that ended the text, which vLLM lists unless a stop string ended it."""
    ids = tuple(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        raise HeadwayError(f"vLLM ended a completion with {output.finish_reason!r}, expected 'stop' or 'length'")
    if output.finish_reason == "stop" and not isinstance(output.stop_reason, str):
        ids = ids[:-1]
    return Completion(ids, output.finish_reason, 0.0 if greedy else min(0.0, output.cumulative_logprob))


def load(
    model: str, *, dtype: str = "auto", trust_remote_code: bool = False, arguments: Mapping[str, Any] | None = None
) -> VLLMEngine:
    """The engine of a model folder or hub name; `arguments` are vLLM's own. HeadwayError says why it fails."""
    ours: dict[str, Any] = dict(
        dtype=dtype, trust_remote_code=trust_remote_code, load_format="safetensors", enable_prefix_caching=True
    )
    if current_platform.is_cpu():
        # a prompt in pieces, of a request with a seed, ends vLLM there: it takes back what torch's CPU generator drew
        ours["enable_chunked_prefill"] = False
    try:
        return VLLMEngine(vllm.LLM(model, **(ours | dict(arguments or {}) | {"logprobs_mode": "processed_logprobs"})))
    except (OSError, ValueError, TypeError, RuntimeError, VLLMError) as error:
        expected = "expected a folder or hub name with *.safetensors, and in --vllm-args options of vLLM"
        raise HeadwayError(f"vLLM cannot load the model '{model}': {str(error).strip()}; {expected}") from error
