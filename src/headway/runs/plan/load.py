"""What a GPU has to do from one sampling of traces to the next, as plain numbers."""

import math
from pathlib import Path

import msgspec

from headway.core.tally import ESTIMATORS
from headway.problems import load_problems
from headway.problems.hub import PRESETS
from headway.runs.plan.machines import Machine
from headway.runs.plan.recipe import Recipe
from headway.runs.plan.shapes import Number
from headway.runs.settings import Settings
from headway.text.prompts import FINAL_ANSWER, TIME_IS_UP
from headway.types import HeadwayError

MEAN, EPISODE = 0.6, 256  # the assumptions behind `mean_tokens` and `mean_episodes`
LETTERS = 3  # of a token, at least: so many tokens has a suffix at most
SUFFIX = f"{TIME_IS_UP}</think>{FINAL_ANSWER}"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Traces of a GPU, their tokens, and how they are proved and learned from."""

    traces: float  # sampled by a GPU together, or in all where it only measures
    prefixes: float = 0  # traces sampled to be stale prefixes
    micro: int = 1  # traces of a forward with gradients
    prompt: int
    longest: int  # tokens of a completion
    mean: float
    boundaries: float  # of a trace, with branches or likelihoods
    branches: int = 0  # at a boundary
    answer: float = 0  # tokens of a branch, at most
    suffix: int = 0
    likelihood: bool = False
    epochs: int = 0  # forwards and backwards of each trace
    steps: float = 0  # optimizer steps
    scored: bool = False  # whether the trainer's model scores the traces before it learns from them

    @property
    def context(self) -> int:
        """The context that holds the prompt, the longest trace, the suffix and an answer."""
        return self.prompt + self.longest + (self.suffix + math.ceil(self.answer) + 1 if self.boundaries else 0)


def _tokens(text: str | None) -> int:
    return math.ceil(len(SUFFIX if text is None else text) / LETTERS)


def _mean(machine: Machine, longest: int) -> Number:
    if machine.mean_tokens is not None and machine.mean_tokens > longest:
        raise HeadwayError(
            f"--mean-tokens is {machine.mean_tokens}, more than the {longest} that a completion may have"
        )
    return machine.mean_tokens or MEAN * longest


def _boundaries(machine: Machine, most: int | None, size: int, mean: Number) -> Number:
    return 1 + (machine.mean_episodes or most or math.ceil(mean / size))


def of_recipe(recipe: Recipe, machine: Machine) -> Load:
    """What a training asks of each GPU from one sampling to the next."""
    micro_batches = recipe.micro_batches(machine.gpus)
    traces, groups = micro_batches * recipe.per_device_train_batch_size, recipe.num_generations
    longest = recipe.max_completion_length
    mean = _mean(machine, longest)
    size = recipe.episode_tokens if recipe.segment == "tokens" else EPISODE
    needs = ESTIMATORS[recipe.values].needs if recipe.scheme.needs_values else frozenset()
    prefixes = 0.0 if recipe.scheme.starts == "prompt" else traces / groups
    boundaries = _boundaries(machine, recipe.max_episodes, size, mean) if needs else 0.0
    every = micro_batches * recipe.num_iterations
    return Load(
        traces=traces, prefixes=prefixes, micro=recipe.per_device_train_batch_size, prompt=machine.prompt_tokens,
        longest=longest, mean=mean,
        boundaries=2 / groups if prefixes and needs else boundaries,  # a stale prefix has two, and serves a group
        branches=recipe.branches if "branches" in needs else 0, suffix=_tokens(recipe.suffix),
        answer=mean / 2 if recipe.scheme.values_of == "policy" else recipe.answer_tokens, likelihood="scores" in needs,
        epochs=recipe.num_iterations, steps=every / recipe.gradient_accumulation_steps,
        scored=recipe.gradient_accumulation_steps % every != 0
        or (recipe.use_vllm and recipe.vllm_importance_sampling_correction),
    )  # fmt: skip


def of_settings(settings: Settings, machine: Machine) -> Load:
    """What a measurement asks of its GPU; a server's GPUs share it."""
    s, p = settings.sampling, settings.proving
    mean = _mean(machine, settings.whole)
    needs = ESTIMATORS[p.values].needs
    c = settings.cutting
    size = c.episode_tokens if c.segment == "tokens" else EPISODE
    replicas = machine.gpus if settings.engine.name == "api" else 1
    return Load(
        traces=problems_in(settings) * s.traces / replicas, prompt=machine.prompt_tokens, longest=settings.whole,
        mean=mean, boundaries=_boundaries(machine, c.max_episodes, size, mean), suffix=_tokens(p.suffix),
        branches=p.branches if "branches" in needs else 0, answer=s.answer_tokens, likelihood="scores" in needs,
    )  # fmt: skip


def problems_in(settings: Settings) -> int:
    """How many problems settings name, without a download: a HeadwayError if only that would tell."""
    named, limit = settings.problems.problems, settings.problems.limit
    sized = PRESETS[named].size if named in PRESETS else None
    if sized is None and limit is None:
        if not (named == "countdown" or Path(named).is_file()):
            raise HeadwayError(f"plan downloads no problems, so it cannot count those of '{named}'; give --limit")
        return len(load_problems(named).problems)
    return min(n for n in (sized, limit) if n is not None)
