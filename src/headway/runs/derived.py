"""Runs made from runs: extended past the end of their traces, or put beside one long chain that forgets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.core import stats
from headway.core.votes import maj_at_k
from headway.problems.graders import one_right
from headway.procedures.extend import extend
from headway.procedures.linearize import linearize
from headway.report.numbers.evaluation import by_k, trace_votes
from headway.report.numbers.table import entry
from headway.runs.measure import Measurement
from headway.runs.open_run import Tell
from headway.runs.records import TraceLine
from headway.runs.settings import Extension
from headway.runs.store import Run
from headway.text.equivalence import answer_classes
from headway.types import Attempt, HeadwayError

RESULT = "linearized.json"


def extend_run(source: Path, out: Path, *, rounds: int, round_tokens: int, tell: Tell = lambda *_: None) -> None:
    """Writes a run whose traces are those of `source`, extended; goes on where it stopped.

    Raises:
        HeadwayError: a number cannot be, or `source` has no traces, or `out` is another run.
    """
    _at_least_one(rounds=rounds, round_tokens=round_tokens)
    with Measurement(Run.load(source)) as old:
        traces, s = old.ordered_traces(), old.settings
        settings = msgspec.structs.replace(
            s, budget=s.budget + rounds * round_tokens, extended=Extension(str(source.resolve()), rounds, round_tokens)
        )
        with Measurement.create(out, settings, tell, problems=old.problems) as new:
            done = {(t.problem_id, t.index) for t in new.run.traces().read_as(TraceLine)}
            new.advance("extend", len(done), len(traces), lambda: extend(
                new.engine, traces, {p.id: p for p in new.problems.problems}, new.grader, new.tags, rounds=rounds,
                round_tokens=round_tokens, answer_tokens=s.answer_tokens, temperature=s.temperature, top_p=s.top_p,
                seed=s.seed, done=done,
            ))  # fmt: skip


def linearize_run(
    path: Path, *, chains: int, rounds: int, round_tokens: int, window: int, tell: Tell = lambda *_: None
) -> Path:
    """Runs chains on a run's problems and writes them against its traces' majority to linearized.json; goes on.

    Raises:
        HeadwayError: a number cannot be, the run has no traces, or it holds attempts that were asked for otherwise.
    """
    asked = {"chains": chains, "rounds": rounds, "round_tokens": round_tokens, "window": window}
    _at_least_one(**asked)
    with Measurement(Run.load(path), tell) as run:
        run.ordered_traces()
        _same(run.run, asked)
        s, problems = run.settings, run.problems.problems
        done = {((a.problem_id, a.index), a.round) for a in run.run.attempts()}
        run.advance("linearize", len(done), len(problems) * chains * rounds, lambda: linearize(
            run.engine, problems, run.grader, run.tags, chains=chains, rounds=rounds, round_tokens=round_tokens,
            window=window, temperature=s.temperature, top_p=s.top_p, seed=s.seed, done=done,
        ))  # fmt: skip
        parallel = trace_votes(run.table())
        content = {**asked, **linearized(run.run.attempts(), one_right=one_right(run.grader))}
        run.run.write_json(RESULT, {**content, "parallel": by_k(parallel, parallel.maj_at)})
    return path / RESULT


def linearized(attempts: Iterable[Attempt], *, one_right: bool) -> dict[str, list[dict[str, Any]]]:
    """Accuracy against total tokens after each round: by a chain's last answer, and by a vote over its answers so far.

    A round without an answer leaves the last one standing; a chain without any is wrong. A chain whose answers so far
    could not all be decided is left out of that round.
    """
    chains: dict[tuple[str, int], list[tuple[Attempt, int]]] = {}
    ordered = sorted(attempts, key=lambda a: (a.problem_id, a.index, a.round))
    classes = answer_classes([(a.problem_id, a.answer, a.reward) for a in ordered], one_right=one_right)
    for attempt, kind in zip(ordered, classes, strict=True):
        chains.setdefault((attempt.problem_id, attempt.index), []).append((attempt, kind))
    problems = [problem for problem, _ in chains]
    curves: dict[str, list[dict[str, Any]]] = {"last_answer": [], "majority": []}
    for r in range(max((len(own) for own in chains.values()), default=0)):
        so_far = [own[: r + 1] for own in chains.values()]
        tokens = float(np.mean([own[-1][0].tokens for own in so_far]))
        last = np.array([_last(own) for own in so_far])
        voted = np.array([_majority(own) for own in so_far])
        for name, values in (("last_answer", last), ("majority", voted)):
            curves[name].append({"round": r + 1, "tokens": tokens, **entry(stats.mean(values, problems))})
    return curves


def _last(own: list[tuple[Attempt, int]]) -> float:
    answered = [a for a, _ in own if a.answer is not None]
    reward = answered[-1].reward if answered else 0.0
    return np.nan if reward is None else reward


def _majority(own: list[tuple[Attempt, int]]) -> float:
    if any(a.reward is None for a, _ in own):
        return np.nan
    kinds = np.array([kind for _, kind in own])
    return float(maj_at_k(kinds, np.array([a.reward == 1 for a, _ in own]))[-1])


def _same(run: Run, asked: dict[str, int]) -> None:
    """Writes down what was asked for, or refuses to go on with something else."""
    file = run.path / RESULT
    there = msgspec.json.decode(file.read_bytes()) if file.exists() else {}
    if not there:
        run.write_json(RESULT, asked)
    elif any(there.get(name) != number for name, number in asked.items()):
        kept = {name: there.get(name) for name in asked}
        raise HeadwayError(
            f"{run.path} holds attempts with other numbers ({kept}, now {asked}); give the same, or delete "
            f"attempts.jsonl and {RESULT}"
        )


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise HeadwayError(f"--{name.replace('_', '-')} must be at least 1, got {number}")
