"""Tokens and seconds of each phase. The formulas are in docs/scaling.md; what they assume are options."""

from typing import NamedTuple

from headway.runs.plan.load import Load
from headway.runs.plan.memory import Numbers
from headway.runs.plan.shapes import Number, Shape


class Rates(NamedTuple):
    """What a GPU reaches: operations and bytes a second, seconds of a decoding step beside reading."""

    flops: float
    bytes: float
    step: float


class Sampler(NamedTuple):
    """How completions are decoded."""

    rows: float  # at a time
    numbers: Numbers
    leaves: bool  # whether a row that has ended is no longer read
    refills: bool  # whether another one takes its place
    shared: float  # of the traces, the fraction whose keys and values are still there when they are proved


class Phase(NamedTuple):
    """Tokens that a GPU computes, of them those that it samples, and seconds."""

    tokens: float
    sampled: float
    seconds: float


def _squares(mean: Number, most: Number) -> tuple[Number, Number]:
    """The mean square and the maximum of lengths that are uniform around a mean and at most so long."""
    low, high = max(0.0, 2 * mean - most), min(most, 2 * mean)
    return (low**2 + low * high + high**2) / 3, high


def decode(
    shape: Shape, rates: Rates, sampler: Sampler, n: Number, past: Number, lengths: tuple[Number, Number]
) -> Number:
    """Seconds to decode `n` completions of a mean and a maximum length after `past` tokens each.

    A step reads the weights once, and the keys and values of each row.
    """
    square, longest = _squares(*lengths)
    mean = lengths[0] if sampler.leaves else longest
    square = square if sampler.leaves else longest**2
    weights, computed = sampler.numbers
    weight_bytes = shape.read * (weights + (2 * computed if computed < weights else 0))
    steps = max(longest, n / sampler.rows * (mean if sampler.refills else longest))
    read = n * (past * mean + square / 2) * shape.kv_bytes(weights)
    return steps * (weight_bytes / rates.bytes + rates.step) + read / rates.bytes


def phases(shape: Shape, load: Load, rates: Rates, sampler: Sampler, *, checkpointing: bool) -> dict[str, Phase]:
    """The phases of the work of a GPU from one sampling to the next, by name; those without work are left out."""
    n, length = load.traces, load.prompt + load.mean
    whole = shape.forward(length) / rates.flops  # of a trace

    traces = n + load.prefixes
    seconds = decode(shape, rates, sampler, traces, load.prompt, (load.mean, load.longest))
    prompts = traces * shape.forward(load.prompt) / rates.flops
    found = {"sampling": Phase(traces * length, traces * load.mean, seconds + prompts)}

    again = n * (1 - sampler.shared)  # traces to compute once more
    asked = n * load.boundaries
    suffixes = asked * shape.forward(load.suffix, past=length / 2) / rates.flops + again * whole
    if load.branches:
        drawn = asked * load.branches
        seconds = decode(shape, rates, sampler, drawn, load.prompt + load.mean / 2, (load.answer, load.answer))
        tokens = drawn * load.answer
        found["branches"] = Phase(asked * load.suffix + tokens + again * length, tokens, seconds + suffixes)
    if load.likelihood:
        tokens = load.suffix + load.answer
        trees = asked * shape.forward(tokens, past=length / 2) / rates.flops
        found["likelihood"] = Phase(asked * tokens + again * length, 0, trees + again * whole)
    if load.scored:
        found["old log-probabilities"] = Phase(n * length, 0, n * whole)
    if load.epochs:
        passes = load.epochs * n
        found["forward and backward"] = Phase(passes * length, 0, passes * whole * (4 if checkpointing else 3))
    return found
