"""The engine of a server that speaks OpenAI's `/v1/completions`, such as vLLM, SGLang or llama.cpp.

Prompts are sent as token ids. A server that refuses these gets text, and a completion without ids is encoded with the
model's own tokenizer; either may give other tokens than the model saw. The `openai` client retries with pauses.
"""

import logging
import os
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Annotated, Any, Literal

import msgspec
import openai

from headway.engines import Connection
from headway.engines.bounded import ERROR_BYTES, client
from headway.engines.loading import load_tokenizer
from headway.engines.streaming import Parts, together
from headway.types import Completion, HeadwayError, Prompts, SamplingParams, TokenIds, Tokenizer

logger = logging.getLogger(__name__)

KEPT = "What was measured is kept, and the same command resumes"
# the model's own distribution, whatever the server's defaults are, and all tokens, as vLLM and SGLang spell them
PLAIN = {
    "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True, "skip_special_tokens": False,
    "add_special_tokens": False, "include_stop_str_in_output": True, "no_stop_trim": True,
}  # fmt: skip
PADDING = 4096  # ids without a token that a model may have beyond its tokenizer's
REFUSALS = (openai.BadRequestError, openai.UnprocessableEntityError)  # of the request itself


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct):
    text: str
    finish_reason: Literal["stop", "length"]
    index: int = 0
    token_ids: list[Annotated[int, msgspec.Meta(ge=0, lt=2**31)]] | None = None
    logprobs: _Logprobs | None = None
    stop_reason: str | int | None = None  # vLLM: the stop string, or the token of a stop that is not the end of text
    matched_stop: str | int | None = None  # SGLang: the stop string, or the token


class _Answer(msgspec.Struct):
    choices: list[_Choice]


class APIEngine:
    """Samples from a model behind a server, which knows it by the name `model`; `tokenizer` is the model's own."""

    def __init__(self, model: str, tokenizer: Tokenizer, connection: Connection) -> None:
        self.model, self.connection = model, connection
        self.tokenizer: Any = tokenizer
        self._end = getattr(tokenizer, "eos_token_id", None)
        vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
        self._last_id = max(vocabulary.values(), default=2**31)
        self._longest = 1 + max(map(len, vocabulary), default=256)  # characters of a token, and a space
        self._server = f"the server at {connection.base_url}"
        self._key = os.environ.get(connection.api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise HeadwayError(f"{connection.api_key_env} holds no key: expected printable ASCII, got other letters")
        self._takes_ids: bool | None = None  # not known yet
        self._client = openai.OpenAI(
            base_url=connection.base_url,
            api_key=self._key or "none",
            timeout=connection.timeout,
            max_retries=connection.retries,
            default_headers={"Accept-Encoding": "identity"},
            http_client=client(),
        )

    def sample(self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int]) -> list[list[Completion]]:
        """`params.n` samples of each prompt, one request for each prompt.

        Raises:
            HeadwayError: the server is down, slow, refuses a prompt or answers with other than `params.n` completions.
        """
        return together(self.stream(prompts, params, seeds=seeds), len(prompts))

    def stream(
        self, prompts: Prompts, params: SamplingParams, *, seeds: Sequence[int], done: Collection[int] = ()
    ) -> Parts:
        """The samples of `sample` as they arrive; after an error, first those that were in flight."""
        # all greedy samples of a prompt are equal: one is asked for
        each = msgspec.structs.replace(params, n=1) if params.temperature == 0 else params
        pool, failed = ThreadPoolExecutor(self.connection.concurrency), []
        asked = {
            pool.submit(self._complete, p.ids, each, s): place
            for place, (p, s) in enumerate(zip(prompts, seeds, strict=True))
            if place not in done
        }
        try:
            while asked:
                arrived = {f: asked.pop(f) for f in wait(asked, return_when=FIRST_COMPLETED).done}
                if errors := [error for f in arrived if (error := f.exception())]:
                    failed += errors
                    asked = {f: place for f, place in asked.items() if not f.cancel()}
                yield {place: f.result() * (params.n // each.n) for f, place in arrived.items() if not f.exception()}
            if failed:
                raise failed[0]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C, requests in flight end by themselves

    def check(self) -> None:
        """Asks for the list of models, once; raises HeadwayError if the server does not answer."""
        try:
            self._client.with_options(max_retries=0, timeout=min(10.0, self.connection.timeout)).models.list()
        except openai.APIConnectionError as error:
            raise self._failure(error) from None
        except (openai.APIError, ValueError, RecursionError):
            pass  # it answers; it need not have such a list

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _complete(self, prompt: TokenIds, params: SamplingParams, seed: int) -> list[Completion]:
        """The completions of one prompt, sent as ids, or as text where a server refuses ids from the start."""
        refused: Any = None
        options: dict[str, Any] = msgspec.structs.asdict(params) | {"stop": list(params.stop) or openai.omit}
        for ids in (True, False):
            if self._takes_ids is (not ids):
                continue
            form = list(prompt) if ids else self.tokenizer.decode(prompt, skip_special_tokens=False)
            try:
                answer = self._client.completions.with_raw_response.create(
                    model=self.model, prompt=form, seed=seed, logprobs=0, extra_body=PLAIN, **options
                ).content
            except REFUSALS as refusal:
                refused = refused or refusal
                continue
            except openai.APIError as error:
                raise self._failure(error) from None
            self._takes_ids = ids
            if refused:
                text = "%s takes no token ids (%s): prompts are sent as text, and may be encoded to other tokens"
                logger.warning(text, self._server, self._said(refused))
            return self._read(answer, prompt, params)
        raise HeadwayError(
            f"{self._server} refuses a prompt of {len(prompt)} tokens with room for {params.max_tokens} more: "
            f"{self._said(refused)}. {KEPT}"
        )

    def _read(self, body: bytes, prompt: TokenIds, params: SamplingParams) -> list[Completion]:
        try:
            choices = msgspec.json.decode(body, type=_Answer).choices
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HeadwayError(
                f"{self._server} answers with something other than completions ({self._said(error)}); expected the "
                f"JSON of OpenAI's /v1/completions. {KEPT}"
            ) from None
        most = max((len(choice.token_ids or ()) for choice in choices), default=0)
        if len(choices) != params.n or most > params.max_tokens:
            raise HeadwayError(
                f"{self._server} gives {len(choices)} completions of at most {most} tokens, asked for {params.n} of "
                f"at most {params.max_tokens}; use a server that honours 'n' and 'max_tokens'. {KEPT}"
            )
        if (last := max((i for c in choices for i in c.token_ids or ()), default=0)) > self._last_id + PADDING:
            raise HeadwayError(
                f"{self._server} gives token {last}, the vocabulary ends at {self._last_id}; give --tokenizer the "
                f"folder or hub name of the served model. {KEPT}"
            )
        longest = max((len(c.text) for c in choices if c.token_ids is None), default=0)
        if longest > (room := params.max_tokens * self._longest):
            raise HeadwayError(
                f"{self._server} gives a text of {longest} characters, where {params.max_tokens} tokens have at most "
                f"{room}; use a server that honours 'max_tokens'. {KEPT}"
            )
        lengths = [len(c.token_ids) for c in choices if c.token_ids is not None and c.finish_reason == "length"]
        if lengths and min(lengths) < params.max_tokens:  # some servers shorten a completion and do not refuse it
            raise HeadwayError(
                f"{self._server} cut a prompt of {len(prompt)} tokens with room for {params.max_tokens} more at "
                f"{len(prompt) + min(lengths)} in all; lower --budget, or raise the server's context length. {KEPT}"
            )
        return [self._completion(c, params) for c in sorted(choices, key=lambda c: c.index)]

    def _completion(self, choice: _Choice, params: SamplingParams) -> Completion:
        """A completion without the token that ended the text; its text is encoded if the server sends no ids."""
        ids, logprob = choice.token_ids, None
        if ids is None:
            ids = self.tokenizer.encode(choice.text, add_special_tokens=False)[: params.max_tokens]
            by_itself = ids[-1:] == [self._end]
        else:
            # servers send the log-probabilities of the model, before temperature and top-p
            sent = choice.logprobs.token_logprobs if choice.logprobs else None
            if sent is not None and len(sent) == len(ids) and (params.temperature, params.top_p) == (1, 1):
                known = [p for p in sent if p is not None]
                logprob = min(0.0, sum(known)) if len(known) == len(ids) else None
            stopped_by = choice.stop_reason if choice.matched_stop is None else choice.matched_stop
            by_itself = choice.finish_reason == "stop" and not isinstance(stopped_by, str)
        return Completion(tuple(ids[:-1] if by_itself else ids), choice.finish_reason, logprob)

    def _said(self, error: BaseException) -> str:
        """What an error says, in the server's own words if it answered; short, safe to print, and without the key."""
        body = error.body if isinstance(error, openai.APIStatusError) else None
        if isinstance(body, dict):
            body = body.get("message") or body.get("detail") or body
        words = " ".join(str(body or error)[:ERROR_BYTES].split())
        text = "".join(c for c in words if c.isprintable())
        return (text.replace(self._key, "***") if self._key else text)[:300]

    def _failure(self, error: openai.APIError) -> HeadwayError:
        """An error that remains after all retries, as one message."""
        tries = int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
        times, to_do = f"{tries} tries" if tries > 1 else "one try", ""
        match error:
            case openai.APITimeoutError():
                text = f"{self._server} did not answer within {self.connection.timeout:g} seconds, in {times}"
                to_do = "; lower --concurrency or raise --timeout"
            case openai.APIConnectionError():
                text = f"cannot reach {self._server} in {times}: {self._said(error.__cause__ or error)}"
                to_do = "; is it running?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                text = f"{self._server} refuses the key ({self._said(error)})"
                to_do = f"; set the environment variable {self.connection.api_key_env}, or name one by --api-key-env"
            case openai.NotFoundError():
                text = f"{self._server} has no model '{self.model}' ({self._said(error)})"
                to_do = "; give --model the name the server knows, and --base-url up to and including /v1"
            case openai.APIStatusError() if 300 <= error.status_code < 400:
                text = f"{self._server} answers {error.status_code}, a redirect that is not followed"
                to_do = "; give --base-url the address itself"
            case openai.APIStatusError():
                text = f"{self._server} answers {error.status_code} in {times}: {self._said(error)}"
            case _:
                text = f"{self._server}: {self._said(error)}"
        return HeadwayError(f"{text}{to_do}. {KEPT}")


def load(
    model: str, connection: Connection, *, tokenizer: str | None = None, trust_remote_code: bool = False
) -> APIEngine:
    """The engine of a model behind a server; `tokenizer` is a folder or hub name, by default the model's name.

    HeadwayError if the tokenizer cannot be loaded, or nobody answers at the address.
    """
    try:
        loaded = load_tokenizer(tokenizer or model, trust_remote_code=trust_remote_code)
    except HeadwayError as error:
        raise HeadwayError(f"{error}; give --tokenizer a folder or hub name") from error
    engine = APIEngine(model, loaded, connection)
    engine.check()
    return engine
