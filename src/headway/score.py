"""Scoring: traces in, the probability of their known right answers at each boundary out; and values of every kind."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from headway import values as estimate
from headway.forms import Candidates, Forms, ends_of, known_forms, written
from headway.prove import TRACES_AT_ONCE, Segmenter, ValueCurve, ends_itself, prove, value_curve
from headway.sample import TraceKey
from headway.segment import boundaries
from headway.types import (
    Branch,
    Engine,
    Episode,
    Grader,
    HeadwayError,
    Likelihood,
    MetaProver,
    Problem,
    Prompt,
    Score,
    Trace,
)

ValueKind = Literal["branches", "distinct", "likelihood", "hybrid"]
FORMS: tuple[ValueKind, ...] = ("likelihood", "hybrid")  # kinds that need scores
DRAWN: tuple[ValueKind, ...] = ("branches", "distinct", "hybrid")  # kinds that need branches
PROBABLE: tuple[ValueKind, ...] = ("distinct", "hybrid")  # kinds that need the probabilities of branches


class Known:
    """The known right answers of problems after each of the meta-prover's two texts; found once for each problem."""

    def __init__(self, engine: Engine, prover: MetaProver, grader: Grader, candidates: Candidates = written) -> None:
        self._engine, self._prover, self._grader, self._candidates = engine, prover, grader, candidates
        self._found: dict[tuple[Problem, str], Forms] = {}

    def text(self, trace: Trace, position: int) -> str:
        """What is forced after a position of a trace."""
        return self._prover.end if ends_itself(trace, position) else self._prover.suffix

    def forms(self, problem: Problem, forced: str) -> Forms:
        """The known right answers after a forced text; none where the grader accepts no candidate."""
        key = problem, forced
        if key not in self._found:
            self._found[key] = known_forms(
                self._engine.tokenizer, self._prover, forced, problem, self._grader, self._candidates
            )
        return self._found[key]

    def marked(
        self, branches: Sequence[Branch], traces: Sequence[Trace], problems: dict[str, Problem], segmenter: Segmenter
    ) -> list[Branch]:
        """The branches, those that wrote a known form marked as `known`."""
        cuts = {(t.problem_id, t.index): (t, boundaries(segmenter(t))) for t in traces}
        marked = []
        for b in branches:
            trace, positions = cuts[b.problem_id, b.index]
            forms = self.forms(problems[b.problem_id], self.text(trace, positions[b.boundary]))
            marked.append(msgspec.structs.replace(b, known=forms.wrote(b.token_ids, b.answer)))
        return marked


def score(
    engine: Engine,
    traces: Sequence[Trace],
    problems: dict[str, Problem],
    known: Known,
    prover: MetaProver,
    segmenter: Segmenter,
    *,
    traces_at_once: int = TRACES_AT_ONCE,
    done: Collection[tuple[TraceKey, int]] = (),
) -> Iterator[list[Score]]:
    """The summed probability of the known right answers at each boundary, a list for every `traces_at_once` traces.

    The prompts are those of `prove`, and so is the division of the work. A form's probability is that the meta-prover
    writes it and then ends the answer: it closes the box, begins a new line or ends the text. Where no form is known
    the probability is unknown.

    Raises:
        HeadwayError: the engine cannot evaluate given text.
    """
    if not isinstance(engine, Likelihood):
        raise HeadwayError(
            f"{type(engine).__name__} cannot evaluate given answers; use values 'branches' or 'distinct', or the hf "
            "engine"
        )
    for start in range(0, len(traces), traces_at_once):
        asked = [
            (t, j, e) for t in traces[start : start + traces_at_once] for j, e in enumerate(boundaries(segmenter(t)))
        ]
        if all(((t.problem_id, t.index), j) in done for t, j, _ in asked):
            yield []
            continue
        bases = {t.name: t.prompt_ids + t.token_ids for t in traces[start : start + traces_at_once]}
        forced = [known.text(t, e) for t, _, e in asked]
        ids = {text: tuple(engine.tokenizer.encode(text, add_special_tokens=False)) for text in set(forced)}
        forms = [known.forms(problems[t.problem_id], text) for (t, _, _), text in zip(asked, forced, strict=True)]
        logprobs: list[list[float]] = [[] for _ in asked]
        # the two texts may end their answers differently; mostly they do not, and a trace is computed once
        for ends in {ends_of(prover, text) for text in forced}:
            now = [i for i, text in enumerate(forced) if ends_of(prover, text) == ends]
            prompts = [
                Prompt(bases[t.name], len(t.prompt_ids) + e, ids[text])
                for (t, _, e), text in ((asked[i], forced[i]) for i in now)
            ]
            found = engine.logprobs(
                prompts, [forms[i].token_ids for i in now], ends=ends, temperature=prover.temperature
            )
            for i, some in zip(now, found, strict=True):
                logprobs[i] = some
        yield [
            Score(
                t.problem_id, t.index, j,
                tokens=e + len(ids[text]) + (1 + len(f.token_ids[int(np.argmax(some))]) if some else 0),
                forms=len(some),
                probability=float(min(1.0, np.exp(some).sum())) if some else None,
            )
            for (t, j, e), text, f, some in zip(asked, forced, forms, logprobs, strict=True)
            if ((t.problem_id, t.index), j) not in done
        ]  # fmt: skip


def curve_of(
    kind: ValueKind,
    trace: Trace,
    episodes: Sequence[Episode],
    *,
    branches: Sequence[Branch] = (),
    scores: Sequence[Score] = (),
) -> ValueCurve:
    """The value at each boundary of a trace, of any kind; NaN where what it needs is not there.

    Raises:
        HeadwayError: distinct answers were asked of branches without probabilities.
        ValueError: a branch or a score belongs to another trace or cut.
    """
    drawn = value_curve(trace, branches, episodes)
    if kind == "branches":
        return drawn
    J = len(drawn.boundaries)
    known, cost = np.full((2, J), np.nan)
    for s in scores:
        if (s.problem_id, s.index) != (trace.problem_id, trace.index) or s.boundary >= J:
            raise ValueError(
                f"score {s.problem_id}/{s.index} at boundary {s.boundary} does not fit trace {trace.name} with {J} "
                "boundaries; score the traces again after cutting them another way"
            )
        # without a known form the branches have to tell it all
        unknown = 0.0 if kind == "hybrid" else np.nan
        known[s.boundary] = unknown if s.probability is None else s.probability
        cost[s.boundary] = s.tokens
    if kind == "likelihood":
        return ValueCurve(drawn.boundaries, cost, estimate.from_likelihood(known), kind)
    rewards, logprobs, completions = _table(branches, J)
    if kind == "distinct":
        return ValueCurve(drawn.boundaries, drawn.tokens, estimate.from_distinct(rewards, logprobs, completions), kind)
    return ValueCurve(
        drawn.boundaries,
        drawn.tokens,
        estimate.from_hybrid(known, rewards, logprobs, completions),
        kind,
    )


def curves_of(
    kind: ValueKind,
    engine: Engine,
    traces: Sequence[Trace],
    problems: dict[str, Problem],
    grader: Grader,
    known: Known,
    prover: MetaProver,
    segmenter: Segmenter,
    *,
    seed: int,
) -> tuple[list[ValueCurve], list[Branch], list[Score]]:
    """The curve of each trace, made now, and the branches and scores it comes from: one call of the engine each."""
    at_once = max(1, len(traces))
    branches: list[Branch] = []
    scores: list[Score] = []
    if kind in FORMS:
        made = score(engine, traces, problems, known, prover, segmenter, traces_at_once=at_once)
        scores = [s for part in made for s in part]
    if kind in DRAWN:
        drawn = prove(engine, traces, problems, grader, prover, segmenter, seed=seed, traces_at_once=at_once)
        branches = [b for part in drawn for b in part]
    if kind == "hybrid":
        branches = known.marked(branches, traces, problems, segmenter)
    branches_of: dict[TraceKey, list[Branch]] = defaultdict(list)
    scores_of: dict[TraceKey, list[Score]] = defaultdict(list)
    for branch in branches:
        branches_of[branch.problem_id, branch.index].append(branch)
    for one in scores:
        scores_of[one.problem_id, one.index].append(one)
    keys = [(t.problem_id, t.index) for t in traces]
    curves = [
        curve_of(kind, t, segmenter(t), branches=branches_of[key], scores=scores_of[key])
        for t, key in zip(traces, keys, strict=True)
    ]
    return curves, branches, scores


def known_share(curves: Sequence[ValueCurve], scores: Sequence[Score]) -> float:
    """The part of the value that the known right answers carry, over all boundaries; NaN where none were scored."""
    total = sum(float(np.nansum(c.values.values)) for c in curves)
    return sum(s.probability or 0.0 for s in scores) / total if scores and total > 0 else float("nan")


def _table(branches: Sequence[Branch], J: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards, log-probabilities and a number for each distinct completion, (J, B); a known one has no reward left."""
    B = max((b.branch for b in branches), default=-1) + 1
    rewards, logprobs = np.full((2, J, B), np.nan)
    completions = np.zeros((J, B), dtype=int)
    numbers: dict[object, int] = {}
    for b in branches:
        if b.logprob is None or (b.sampled and not b.token_ids):
            raise HeadwayError(
                f"branch {b.branch} of {b.problem_id}/{b.index} has no probability, which distinct and hybrid values "
                "need; its engine does not tell it, or an older version made it: use values 'branches', or prove again"
            )
        at = b.boundary, b.branch
        rewards[at] = np.nan if b.reward is None else 0.0 if b.known else b.reward
        logprobs[at] = b.logprob
        # one that was cut has as many tokens as it may have, so equal tokens have ended alike
        completions[at] = numbers.setdefault(b.token_ids, len(numbers))
    return rewards, logprobs, completions
