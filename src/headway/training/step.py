"""One training step: from TRL's prompts and completions to the advantage of each token."""

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from msgspec import structs

from headway.core.segment import boundaries, cut
from headway.core.tally import ValueCurve, known_share, lay_out, value_curve
from headway.credit import SCHEMES, Bonuses, Group, token_advantages
from headway.credit.mixed_prefix import is_direct
from headway.procedures.continued import continued_curves, through_openers
from headway.procedures.prove import Prover
from headway.procedures.sample import derive_seed, grade_traces, make_trace, shortened
from headway.text.answers import answer_after
from headway.training.config import MRTConfig
from headway.training.logs import StepResult
from headway.training.outcome import TRACE, problem_of
from headway.types import Branch, Completion, Episode, Problem, Prompt, SamplingParams, Score, TokenIds, Trace


def _with_answer(episodes: list[Episode], length: int) -> list[Episode]:
    return [*episodes[:-1], Episode(episodes[-1].start if episodes else 0, length)] if length else []


# The token ranges that the bonuses of a scheme are for, from the episodes and the length of a completion
RANGES: dict[str, Callable[[list[Episode], int], list[Episode]]] = {
    "episodes": lambda episodes, _: episodes,
    "episodes+answer": _with_answer,
    "completion": lambda _, length: [Episode(0, length)],
}


class Step:
    """The state of one step, and its arithmetic: `start`, then `read`, then `advantages`."""

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
        if self._scheme.starts != "prompt":
            prefixes = self._sample_prefixes(list(dict.fromkeys(map(tuple, prompts))))
            self._prefixes = [prefixes[tuple(p)] for p in prompts]
            forced = [self._trainer.suffix_ids if self._is_direct(i) else [] for i in range(len(prompts))]
            starts = zip(prompts, self._prefixes, forced, strict=True)
            prompts = [[*p, *prefix.token_ids, *suffix] for p, prefix, suffix in starts]
        self._prompts = prompts
        return prompts

    def read(self, rows: list[dict[str, Any]], completions: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
        """The rows, each with the graded trace of its completion for the reward functions."""
        problems = [problem_of(row) for row in rows]
        self._problems = {p.id: p for p in problems}
        self._lengths = [len(completion) for completion in completions]
        traces = [
            self._trace(problem.id, i, tuple(prompt), tuple(ids))
            for i, (problem, prompt, ids) in enumerate(zip(problems, self._prompts, completions, strict=True))
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

    def _is_direct(self, i: int) -> bool:
        """Whether completion i of this process is forced to answer at its stale prefix."""
        return self._scheme.starts == "mixed_prefix" and is_direct(self._first + i, self._args.num_generations)

    @property
    def _first(self) -> int:
        """The number, among those of all processes, of this process's first completion."""
        return int(self._trainer.accelerator.process_index * len(self._prefixes or self._prompts))

    def _trace(self, problem_id: str, i: int, prompt: TokenIds, ids: TokenIds) -> Trace:
        """A completion of TRL's as a trace, without its end-of-text token; a forced answer has no thinking."""
        t = self._trainer
        ended = bool(ids) and ids[-1] in t.eos_token_ids
        completion = Completion(ids[:-1] if ended else ids, "stop" if ended else "length")
        trace = make_trace(t.processing_class, problem_id, self._first + i, prompt, completion, t.tags)
        if not self._is_direct(i):
            return trace
        return structs.replace(trace, thinking=0, closed=True, answer=answer_after(t.prover.suffix, trace.text))

    def _sample_prefixes(self, prompts: list[TokenIds]) -> dict[TokenIds, Trace]:
        """For each prompt a trace of the policy, shortened to a random number of its episodes.

        Seeds come from the prompt, so a group gets the same prefix on all processes.
        """
        t = self._trainer
        names = [hashlib.sha256(repr(list(p)).encode()).hexdigest()[:16] for p in prompts]
        seeds = [derive_seed(self._args.seed, "prefix", self._step, name) for name in names]
        a = self._args
        params = SamplingParams(a.max_completion_length, temperature=a.temperature, top_p=a.top_p)
        completions = t.policy.sample([Prompt.of(p) for p in prompts], params, seeds=seeds)
        prefixes = {}
        for prompt, name, [completion], seed in zip(prompts, names, completions, seeds, strict=True):
            trace = make_trace(t.processing_class, name, 0, prompt, completion, t.tags)
            end = Random(seed).choice(boundaries(self._cut(trace))[:-1] or [0])
            prefixes[prompt] = shortened(trace, end)
        t.cost.sampled(sum(len(completion.token_ids) for [completion] in completions))
        return prefixes

    def _cut(self, trace: Trace) -> list[Episode]:
        return cut(trace, self._args.cutting, self._args.max_completion_length)

    def _proved(self) -> list[tuple[Trace, list[Episode]]]:
        """What each completion's values are of: its own trace, cut, or the stale prefix as one episode."""
        if self._scheme.values_of == "policy":
            each = zip(self._traces, self._lengths, strict=True)
            return [(trace, through_openers(self._cut(trace), length)) for trace, length in each]
        if not self._prefixes:
            return [(trace, self._cut(trace)) for trace in self._traces]
        return [
            (structs.replace(p, problem_id=t.problem_id), [Episode(0, p.thinking)] if p.thinking else [])
            for p, t in zip(self._prefixes, self._traces, strict=True)
        ]

    def _values(self, proved: list[tuple[Trace, list[Episode]]]) -> tuple[list[ValueCurve], list[Branch], float]:
        """The value curve of each completion, the branches, and the known correct answers' share of the value."""
        if not self._scheme.needs_values:
            return [value_curve(lay_out(t.key, boundaries(episodes), [])) for t, episodes in proved], [], np.nan
        t, of_key = self._trainer, {trace.key: (trace, episodes) for trace, episodes in proved}
        prover = Prover(
            t.policy, t.prover, self._problems, grader=t.grader, segmenter=lambda trace: of_key[trace.key][1],
            known=t.known,
        )  # fmt: skip
        # a group shares its stale prefix: each trace is proved once
        traces, seed = [trace for trace, _ in of_key.values()], derive_seed(self._args.seed, "branches", self._step)
        if self._scheme.values_of == "policy":
            a = self._args
            params = SamplingParams(a.max_completion_length, a.branches, a.temperature, a.top_p)
            curves, branches = continued_curves(prover, traces, t.tags, params, seed=seed)
            scores: list[Score] = []
        else:
            curves, branches, scores = prover.curves(self._args.values, traces, seed=seed)
        t.cost.sampled(sum(b.sampled for b in branches))
        t.step_log.check_scores(prover, traces, seed)
        found = dict(zip(of_key, curves, strict=True))
        return [found[trace.key] for trace, _ in proved], branches, known_share(curves, scores)

    def _bonuses(self, curves: list[ValueCurve], episodes: list[list[Episode]]) -> Bonuses:
        """The bonuses of each trace of this process, from its group on all processes."""
        rewards = [np.nan if trace.reward is None else trace.reward for trace in self._traces]
        values, costs = [c.values.values for c in curves], [c.tokens for c in curves]
        stopped = [trace.closed or trace.stop == "stop" for trace in self._traces]
        everyone = gather_object([*zip(rewards, values, episodes, stopped, costs, self._lengths, strict=True)])
        result: Bonuses = []
        size, rewards_G = self._args.num_generations, np.array([reward for reward, *_ in everyone], dtype=float)
        for start in range(0, len(everyone), size):
            _, *rest = zip(*everyone[start : start + size], strict=True)
            parts = [rewards_G[start : start + size], *rest, self._trainer.budget, self._args.progress_lambda]
            result += self._scheme.bonuses(Group._make(parts))
        self._trainer.step_log.signals(rewards_G.reshape(-1, size), result)
        first = self._trainer.accelerator.process_index * len(curves)
        return result[first : first + len(curves)]
