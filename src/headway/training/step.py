"""One training step: from TRL's prompts and completions to the advantage of each token."""

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate.utils import gather_object

from headway.core.segment import boundaries, cut
from headway.credit import SCHEMES, Bonuses, Group, token_advantages
from headway.procedures.prove import ValueCurve
from headway.procedures.sample import derive_seed, grade_traces, make_trace
from headway.procedures.score import curve_of, curves_of, known_share
from headway.training.config import MRTConfig
from headway.training.logs import StepResult
from headway.training.outcome import TRACE, problem_of
from headway.types import Branch, Completion, Episode, Problem, SamplingParams, Trace

# The token ranges that the bonuses of a scheme are for, from the episodes and the length of a completion; a stop is
# the token after the last episode.
RANGES: dict[str, Callable[[list[Episode], int], list[Episode]]] = {
    "episodes": lambda episodes, _: episodes,
    "completion": lambda _, length: [Episode(0, length)],
}


class Step:
    """The state of one step, and its arithmetic: `start`, then `read`, then `advantages`.

    Args:
        trainer: Has the options, the policy, the grader and the meta-prover.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._args: MRTConfig = trainer.args
        self._scheme = SCHEMES[self._args.credit]
        self._step: int = trainer.state.global_step
        self._prompts: list[list[int]] = []
        self._prefixes: list[Trace] = []  # of each completion, where the scheme starts at one
        self._problems: dict[str, Problem] = {}
        self._traces: list[Trace] = []
        self._lengths: list[int] = []

    def start(self, prompts: list[list[int]]) -> list[list[int]]:
        """What the completions continue: the prompts, each with a stale prefix if the scheme starts there."""
        if self._scheme.starts == "stale_prefix":
            prefix_of = self._sample_prefixes(list(dict.fromkeys(map(tuple, prompts))))
            self._prefixes = [prefix_of[tuple(p)] for p in prompts]
            prompts = [[*p, *prefix.token_ids] for p, prefix in zip(prompts, self._prefixes, strict=True)]
        self._prompts = prompts
        return prompts

    def read(self, rows: list[dict[str, Any]], completions: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """The rows, each with the graded trace of its completion for the reward functions."""
        first = self._trainer.accelerator.process_index * len(rows)
        ids = [str(row["id"]) for row in rows]
        self._problems = {id: problem_of(row) for id, row in zip(ids, rows, strict=True)}
        self._lengths = [len(completion) for completion in completions]
        traces = [
            self._trace(id, first + i, tuple(prompt), tuple(completion))
            for i, (id, prompt, completion) in enumerate(zip(ids, self._prompts, completions, strict=True))
        ]
        self._traces = grade_traces(traces, self._problems, self._trainer.grader)
        return [{**row, TRACE: trace} for row, trace in zip(rows, self._traces, strict=True)]

    def advantages(self, outcome: torch.Tensor, width: int) -> torch.Tensor:
        """The outcome's advantages (B,) with the bonuses: (B, T), T the `width`."""
        proved = self._proved()
        curves, branches, share = self._values(proved)
        bonuses = self._bonuses(curves, [episodes for _, episodes in proved])
        ranges = RANGES[self._scheme.pays]
        advantages = np.zeros((len(self._traces), width))
        for row, advantage, bonus, (_, episodes), n in zip(
            advantages, outcome.tolist(), bonuses, proved, self._lengths, strict=True
        ):
            row[:n] = token_advantages(advantage, bonus, ranges(episodes, n), n, weight=self._args.progress_weight)
        self._trainer.step_log.write(StepResult(self._traces, curves, bonuses, branches, share))
        return torch.tensor(advantages, dtype=outcome.dtype, device=outcome.device)

    # -- traces -------------------------------------------------------------------------------------------------------

    def _trace(self, problem_id: str, index: int, prompt: tuple[int, ...], ids: tuple[int, ...]) -> Trace:
        """A completion of TRL's as a trace, without its end-of-text token."""
        ended = bool(ids) and ids[-1] in self._trainer.eos_token_ids
        completion = Completion(ids[:-1] if ended else ids, "stop" if ended else "length")
        return make_trace(self._trainer.processing_class, problem_id, index, prompt, completion, self._trainer.tags)

    def _cut(self, trace: Trace) -> list[Episode]:
        a = self._args
        return cut(
            trace,
            segment=a.segment,
            min_paragraphs=a.min_paragraphs,
            episode_tokens=a.episode_tokens,
            max_episodes=a.max_episodes,
        )

    def _sample_prefixes(self, prompts: list[tuple[int, ...]]) -> dict[tuple[int, ...], Trace]:
        """For each prompt a trace of the policy, shortened to a random number of its episodes.

        Seeds come from the prompt, so a group gets the same prefix on all processes.
        """
        names = [hashlib.sha256(repr(list(p)).encode()).hexdigest()[:16] for p in prompts]
        seeds = [derive_seed(self._args.seed, "prefix", self._step, name) for name in names]
        params = SamplingParams(max_tokens=self._args.max_completion_length, temperature=self._args.temperature)
        completions = self._trainer.policy.sample(prompts, params, seeds=seeds)
        prefixes = {}
        for prompt, name, [completion], seed in zip(prompts, names, completions, seeds, strict=True):
            trace = make_trace(self._trainer.processing_class, name, 0, prompt, completion, self._trainer.tags)
            end = Random(seed).choice(boundaries(self._cut(trace))[:-1] or [0])
            prefixes[prompt] = _shortened(trace, end)
        self._trainer.step_log.count_tokens(sum(len(completion.token_ids) for [completion] in completions))
        return prefixes

    # -- values and bonuses -------------------------------------------------------------------------------------------

    def _proved(self) -> list[tuple[Trace, list[Episode]]]:
        """What each completion's values are of: its own trace, cut, or the stale prefix as one episode."""
        if not self._prefixes:
            return [(trace, self._cut(trace)) for trace in self._traces]
        return [
            (
                msgspec.structs.replace(prefix, problem_id=trace.problem_id),
                [Episode(0, prefix.thinking)] if prefix.thinking else [],
            )
            for prefix, trace in zip(self._prefixes, self._traces, strict=True)
        ]

    def _values(self, proved: list[tuple[Trace, list[Episode]]]) -> tuple[list[ValueCurve], list[Branch], float]:
        """The value curve of each completion, the branches, and the share of the value in the known right answers."""
        # a group shares its stale prefix: each trace is proved once
        traces = {(trace.problem_id, trace.index): trace for trace, _ in proved}
        episodes = {(trace.problem_id, trace.index): cuts for trace, cuts in proved}
        if not self._scheme.needs_values:
            return [curve_of("branches", trace, cuts) for trace, cuts in proved], [], np.nan
        t, seed = self._trainer, derive_seed(self._args.seed, "branches", self._step)
        curves, branches, scores = curves_of(
            self._args.values, t.policy, list(traces.values()), self._problems, t.grader, t.known, t.prover,
            lambda trace: episodes[trace.problem_id, trace.index], seed=seed,
        )  # fmt: skip
        t.step_log.count_tokens(sum(b.sampled for b in branches))
        found = dict(zip(traces, curves, strict=True))
        return [found[trace.problem_id, trace.index] for trace, _ in proved], branches, known_share(curves, scores)

    def _bonuses(self, curves: list[ValueCurve], episodes: list[list[Episode]]) -> Bonuses:
        """The bonuses of each trace of this process, from its group on all processes."""
        mine = [
            (
                np.nan if trace.reward is None else trace.reward,
                curve.values.values,
                cuts,
                trace.closed or trace.stop == "stop",
                curve.tokens,
                length,
            )
            for trace, curve, cuts, length in zip(self._traces, curves, episodes, self._lengths, strict=True)
        ]
        everyone = gather_object(mine)
        result: Bonuses = []
        for start in range(0, len(everyone), self._args.num_generations):
            rewards, *rest = zip(*everyone[start : start + self._args.num_generations], strict=True)
            result += self._scheme.bonuses(Group(np.array(rewards, dtype=float), *rest))
        first = self._trainer.accelerator.process_index * len(mine)
        return result[first : first + len(mine)]


def _shortened(trace: Trace, end: int) -> Trace:
    """A trace cut at a boundary, as if its budget ended there."""
    text = trace.text if end == len(trace.token_ids) else trace.text[: trace.offsets[end]]
    return msgspec.structs.replace(
        trace, token_ids=trace.token_ids[:end], text=text, offsets=trace.offsets[:end], thinking=end, closed=False
    )
