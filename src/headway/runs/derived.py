"""Runs made from runs: with extended traces, or compared with one long chain that has a sliding window."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headway.choices import declared
from headway.core import stats
from headway.core.votes import maj_at_k
from headway.procedures.extend import Extension, extend
from headway.procedures.linearize import Chains, linearize
from headway.report.numbers.evaluation import by_k, trace_votes
from headway.report.numbers.table import entry
from headway.runs.measure import Measurement
from headway.runs.open_run import OpenRun, Tell, quiet
from headway.runs.settings import Extended
from headway.runs.store import Run
from headway.text.equivalence import answer_classes
from headway.types import Attempt, HeadwayError

RESULT = "linearized.json"


def extend_run(source: Path, out: Path, *, tell: Tell = quiet, **options: Any) -> None:
    """Writes a run of the traces of `source`, extended, or continues it; another run in `out` is a HeadwayError."""
    with OpenRun.load(source) as old:
        traces, s = old.ordered_traces(), old.settings
        asked = Extension(**options, sampling=s.sampling)
        asked.check()
        extended = Extended(str(source.resolve()), asked.rounds, asked.round_tokens)
        settings = s.changed(budget=s.sampling.budget + asked.rounds * asked.round_tokens, extended=extended)
        with Measurement.create(out, settings, tell, problems=old.problems) as new:
            done = set(new.run.trace_keys())
            by_id = {p.id: p for p in new.problems.problems}
            new.advance("extend", len(done), len(traces), lambda: extend(
                new.engine, traces, by_id, new.grader, new.tags, asked, done=done
            ))  # fmt: skip


def linearize_run(path: Path, *, tell: Tell = quiet, **options: Any) -> Path:
    """Compares chains with the traces' majority in linearized.json; attempts with other options are refused."""
    with Measurement.load(path, tell) as run:
        run.ordered_traces()
        asked, problems = Chains(**options, sampling=run.settings.sampling), run.problems.problems
        asked.check()
        numbers = {name: getattr(asked, name) for name in declared(Chains)}
        _same(run.run, numbers)
        done = {((a.problem_id, a.index), a.round) for a in run.run.attempts()}
        run.advance("linearize", len(done), len(problems) * asked.chains * asked.rounds, lambda: linearize(
            run.engine, problems, run.grader, run.tags, asked, done=done
        ))  # fmt: skip
        parallel = trace_votes(run.table())
        content = {**numbers, **linearized(run.run.attempts(), one_right=getattr(run.grader, "one_right", False))}
        run.run.write_json(RESULT, {**content, "parallel": by_k(parallel, parallel.maj_at)})
    return path / RESULT


def linearized(attempts: Iterable[Attempt], *, one_right: bool) -> dict[str, list[dict[str, Any]]]:
    """Accuracy against total tokens after each round: of a chain's last answer, and of a vote over its answers so far.

    A chain without an answer is wrong. The last answer is NaN where it is undecided, the vote where one so far is.
    """
    chains: dict[tuple[str, int], list[tuple[Attempt, int]]] = {}
    ordered = sorted(attempts, key=lambda a: (a.problem_id, a.index, a.round))
    classes = answer_classes([(a.problem_id, a.answer, a.reward) for a in ordered], one_right=one_right)
    for attempt, kind in zip(ordered, classes, strict=True):
        chains.setdefault((attempt.problem_id, attempt.index), []).append((attempt, kind))
    problems = [problem for problem, _ in chains]
    curves: dict[str, list[dict[str, Any]]] = {"last_answer": [], "majority": []}
    for r in range(max(map(len, chains.values()), default=0)):
        so_far = [own[: r + 1] for own in chains.values()]
        tokens = float(np.mean([own[-1][0].tokens for own in so_far]))
        for name, accuracy in (("last_answer", _last), ("majority", _majority)):
            mean = stats.mean(np.array([accuracy(own) for own in so_far]), problems, within=stats.UNIT)
            curves[name].append({"round": r + 1, "tokens": tokens, **entry(mean)})
    return curves


def _last(own: list[tuple[Attempt, int]]) -> float:
    reward = next((a.reward for a, _ in reversed(own) if a.answer is not None), 0.0)
    return np.nan if reward is None else reward


def _majority(own: list[tuple[Attempt, int]]) -> float:
    if any(a.reward is None for a, _ in own):
        return np.nan
    kinds = np.array([kind for _, kind in own])
    return float(maj_at_k(kinds, np.array([a.reward == 1 for a, _ in own]))[-1])


def _same(run: Run, asked: dict[str, Any]) -> None:
    """Saves the options, or refuses to continue with others."""
    file = run.path / RESULT
    if not (saved := msgspec.json.decode(file.read_bytes()) if file.exists() else {}):
        run.write_json(RESULT, asked)
    elif (there := {name: saved.get(name) for name in asked}) != asked:
        differ = f"{run.path} holds attempts with other options ({there}, now {asked})"
        raise HeadwayError(f"{differ}; give the same, or delete attempts.jsonl and {RESULT}")
