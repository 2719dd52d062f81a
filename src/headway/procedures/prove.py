"""Proving: from traces to branches, scores and value curves. The meta-prover answers at each boundary."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from msgspec import structs

from headway.choices import lookup
from headway.core.tally import ESTIMATORS, ValueCurve, ValueKind, lay_out, value_curve
from headway.engines.streaming import Parts, at_once, in_parts
from headway.engines.window import counting
from headway.procedures.forced import Forced, Segmenter, end_of, forced_answers
from headway.procedures.sample import TraceKey, derive_seed, grade_traces
from headway.text.answers import answer_after, extract_answer
from headway.text.known_answers import Forms, KnownAnswers
from headway.text.offsets import decode_with_offsets
from headway.types import (
    Branch,
    Completion,
    Engine,
    Grader,
    HeadwayError,
    Likelihood,
    MetaProver,
    Problem,
    Score,
    Trace,
)

TRACES_AT_ONCE = 64
Rounds = Mapping[TraceKey, Sequence[range]]
Done = Collection[tuple[TraceKey, int, int]]  # trace, boundary and number of branches


@dataclass(eq=False)
class Prover:
    """Samples branches, evaluates known answers and values traces."""

    engine: Engine
    meta_prover: MetaProver
    problems: dict[str, Problem]  # of the traces, by id
    _: KW_ONLY
    grader: Grader
    segmenter: Segmenter
    known: KnownAnswers | None = None  # those of another prover, so that each is found once

    def __post_init__(self) -> None:
        self._known = self.known or KnownAnswers(self.engine.tokenizer, self.meta_prover, self.grader)

    def with_branches(self, n: int) -> "Prover":
        """The same with another number of branches."""
        return replace(self, meta_prover=structs.replace(self.meta_prover, branches=n), known=self._known)

    def forms(self, forced: Forced) -> Forms:
        """The known correct answers at a boundary."""
        return self._known.forms(self.problems[forced.trace.problem_id], forced.text)

    def forced(self, trace: Trace) -> list[Forced]:
        """What is forced at each boundary of a trace."""
        return forced_answers(trace, self.meta_prover, self.engine.tokenizer, self.segmenter)

    def draw(
        self,
        traces: Sequence[Trace],
        *,
        seed: int = 0,
        mark_known: bool = False,
        traces_at_once: int = TRACES_AT_ONCE,
        done: Done = (),
        rounds: Rounds | None = None,
    ) -> Iterator[list[Branch]]:
        """Samples `meta_prover.branches` forced answers at each boundary; a list as soon as some are there.

        Every `traces_at_once` traces are one call of the engine. The chunks are fixed, as in `sample`.

        Args:
            traces: Those of one list are in memory at a time.
            mark_known: Whether branches that wrote a known correct answer are marked, as hybrid values need it.
            done: Branches to leave out.
            rounds: Which rounds to sample at each boundary of a trace; default: round 0 everywhere. Branch b of round
                r has number r * branches + b, and its seed does not depend on what else is sampled.
        """
        for asked in self._boundaries(traces, traces_at_once):
            yield from self._branches(in_parts, asked, seed, mark_known, done, rounds)

    def score(
        self,
        traces: Sequence[Trace],
        *,
        traces_at_once: int = TRACES_AT_ONCE,
        done: Collection[tuple[TraceKey, int]] = (),
    ) -> Iterator[list[Score]]:
        """The likelihood of the known correct answers at each boundary; prompts and chunks are those of `draw`.

        A form's probability is that the meta-prover writes it and then ends the answer, even within one token: it
        closes the box, begins a new line or ends the text. Forms are summed. Where no form is known the probability
        is unknown.

        Raises:
            HeadwayError: the engine cannot evaluate given text.
        """
        for asked in self._boundaries(traces, traces_at_once):
            yield self._score(asked, done)

    def _boundaries(self, traces: Sequence[Trace], traces_at_once: int) -> Iterator[list[Forced]]:
        """The boundaries of each chunk of traces; at the end, a warning if some are beyond the context window."""
        window, advice = getattr(self.engine, "window", None), "shorten the traces (--budget)"
        with counting(window, "boundaries, with the forced text and an answer, are longer", advice) as counter:
            for start in range(0, len(traces), traces_at_once):
                asked = [f for t in traces[start : start + traces_at_once] for f in self.forced(t)]
                counter.see(len(f.prompt) + self.meta_prover.max_tokens for f in asked)
                yield asked

    def curves(
        self, kind: ValueKind, traces: Sequence[Trace], *, seed: int
    ) -> tuple[list[ValueCurve], list[Branch], list[Score]]:
        """The curve of each trace, and the branches and scores that it comes from: one call of the engine each."""
        needs = lookup(ESTIMATORS, kind, "values").needs
        forced = [self.forced(t) for t in traces]
        asked = [f for of_trace in forced for f in of_trace]
        scores = self._score(asked) if "scores" in needs else []
        branches = self.branches_at(asked, seed=seed, mark_known="scores" in needs) if "branches" in needs else []
        found: dict[TraceKey, tuple[list[Branch], list[Score]]] = {f.key: ([], []) for f in asked}
        for branch in branches:
            found[branch.key][0].append(branch)
        for score in scores:
            found[score.key][1].append(score)
        tallies = [lay_out(f[0].key, [at.position for at in f], *found[f[0].key]) for f in forced]
        return [value_curve(tally, kind) for tally in tallies], branches, scores

    def branches_at(self, asked: Sequence[Forced], *, seed: int, mark_known: bool) -> list[Branch]:
        """The branches at these boundaries in one call of the engine; as for `draw`."""
        return [b for part in self._branches(at_once, asked, seed, mark_known) for b in part]

    def _branches(
        self, sample: Callable[..., Parts], asked: Sequence[Forced], seed: int, mark_known: bool, done: Done = (),
        rounds: Rounds | None = None,
    ) -> Iterator[list[Branch]]:  # fmt: skip
        """The branches at these boundaries as `sample` gives them, without those that are done."""
        B = self.meta_prover.branches
        drawing = [
            (f, r, prompt)
            for f, prompt in ((f, f.prompt) for f in asked)  # one for all rounds
            for r in (rounds[f.key][f.boundary] if rounds else range(1))
        ]
        whole = {
            i for i, (f, r, _) in enumerate(drawing) if all((f.key, f.boundary, r * B + b) in done for b in range(B))
        }
        if len(whole) == len(drawing):
            return
        prompts = [prompt for *_, prompt in drawing]
        seeds = [derive_seed(seed, *f.key, f.position, *([r] if r else [])) for f, r, _ in drawing]
        for part in sample(self.engine, prompts, self.meta_prover.sampling(), seeds=seeds, done=whole):
            branches = [
                self._branch(f, number, completion, mark_known)
                for f, r, group in ((*drawing[i][:2], group) for i, group in part.items())
                for number, completion in enumerate(group, start=r * B)
                if (f.key, f.boundary, number) not in done
            ]
            yield grade_traces(branches, self.problems, self.grader)

    def _branch(self, forced: Forced, number: int, completion: Completion, mark_known: bool) -> Branch:
        """A completion as a branch without its reward."""
        ids, tokenizer = completion.token_ids, self.engine.tokenizer
        text = tokenizer.decode(ids, skip_special_tokens=True)
        extract = getattr(self.grader, "extract", extract_answer)
        known = mark_known and self.forms(forced).wrote(ids, decode_with_offsets(tokenizer, ids))
        return Branch(
            *forced.key, forced.boundary, number, text, forced.tokens + len(ids), len(ids),
            answer_after(forced.text, text, extract), logprob=completion.logprob, token_ids=ids, known=known,
            end=end_of(forced.text, completion, tokenizer.decode(ids, skip_special_tokens=False)),
        )  # fmt: skip

    def _score(self, asked: Sequence[Forced], done: Collection[tuple[TraceKey, int]] = ()) -> list[Score]:
        """The scores at these boundaries in one call of the engine, without those that are done."""
        if not isinstance(self.engine, Likelihood):
            raise HeadwayError(
                f"{type(self.engine).__name__} cannot evaluate given answers; use values 'branches' or 'distinct', or "
                "the hf engine"
            )
        if all((f.key, f.boundary) in done for f in asked):
            return []
        forms = [self.forms(f) for f in asked]
        logprobs: list[list[float]] = [[] for _ in asked]
        by_ends: dict[tuple[str, ...], list[int]] = {}  # the two texts may end their answers differently
        for i in range(len(asked)):
            by_ends.setdefault(forms[i].ends, []).append(i)
        for ends, indices in by_ends.items():
            prompts, texts = [asked[i].prompt for i in indices], [forms[i].continuations for i in indices]
            found = self.engine.logprobs(prompts, texts, ends=ends, temperature=self.meta_prover.temperature)
            for i, some in zip(indices, found, strict=True):
                logprobs[i] = some
        return [
            Score(
                *f.key, f.boundary,
                tokens=f.tokens + (1 + len(known.continuations[int(np.argmax(some))].token_ids) if some else 0),
                forms=len(known.answers),
                probability=float(min(1.0, np.exp(some).sum())) if some else None,
            )
            for f, known, some in zip(asked, forms, logprobs, strict=True)
            if (f.key, f.boundary) not in done
        ]  # fmt: skip
