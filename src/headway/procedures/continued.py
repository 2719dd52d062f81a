"""Values of the policy itself: it goes on from each boundary, without a forced answer, as in VinePPO (2410.01679)."""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import structs

from headway.core.tally import ValueCurve, lay_out, value_curve
from headway.procedures.forced import Forced
from headway.procedures.prove import Prover
from headway.procedures.sample import derive_seed, grade_traces, make_trace
from headway.text.tags import ThinkTags
from headway.types import Branch, Completion, Episode, Prompt, SamplingParams, Trace

ROOM = 32  # boundaries whose room for tokens is the same up to this are continued in one call of the engine


def through_openers(episodes: Sequence[Episode], length: int) -> list[Episode]:
    """Episodes that end with the token that opens the next one, the last with the completion of `length` tokens.

    The policy's own value is a martingale: that where an episode ends is the mean of what follows only if this token,
    which decides that it ends there, comes before.
    """
    edges = [0, *(e.start + 1 for e in episodes[1:]), length]
    return [Episode(start, stop) for start, stop in pairwise(edges) if start < stop]


def continued_curves(
    prover: Prover, traces: Sequence[Trace], tags: ThinkTags, params: SamplingParams, *, seed: int
) -> tuple[list[ValueCurve], list[Branch]]:
    """The curve of each trace, and the branches that it comes from: whole traces that begin as this one does.

        V_j = (1 / n) sum_b r_jb,    V_K = r, the trace's own outcome

    Thinking and answer of a branch have `params.max_tokens` tokens, those before the boundary included; where none is
    left, the value is the outcome too.

    Args:
        traces: Graded ones.
        params: How the policy samples traces; `n` is the number of branches at each boundary.
    """
    at = [prover.forced(trace) for trace in traces]
    rooms: dict[int, list[Forced]] = {}
    branches: list[Branch] = []
    for of_trace in at:
        for f in of_trace:
            room = params.max_tokens - f.position
            if room <= 0 or f.boundary == len(of_trace) - 1:
                branches.append(_own(f))
            else:
                rooms.setdefault(min(params.max_tokens, -(-room // ROOM) * ROOM), []).append(f)
    sampled = [b for room, some in rooms.items() for b in _continue(prover, some, tags, params, room, seed)]
    branches += grade_traces(sampled, prover.problems, prover.grader)
    of_key: dict[tuple[str, int], list[Branch]] = {trace.key: [] for trace in traces}
    for branch in branches:
        of_key[branch.key].append(branch)
    positions = [[f.position for f in of_trace] for of_trace in at]
    tallies = [lay_out(t.key, where, of_key[t.key]) for t, where in zip(traces, positions, strict=True)]
    return [value_curve(tally) for tally in tallies], branches


def _own(f: Forced) -> Branch:
    """The trace itself as the one branch of a boundary."""
    t = f.trace
    return Branch(*t.key, f.boundary, 0, "", len(t.token_ids), 0, t.answer, t.reward)


def _continue(
    prover: Prover, asked: Sequence[Forced], tags: ThinkTags, params: SamplingParams, room: int, seed: int
) -> list[Branch]:
    """The ungraded branches at these boundaries in one call of the engine; what is beyond their own room is cut."""
    prompts = [Prompt(f.base, len(f.trace.prompt_ids) + f.position) for f in asked]
    seeds = [derive_seed(seed, *f.key, f.position) for f in asked]
    completions = prover.engine.sample(prompts, structs.replace(params, max_tokens=room), seeds=seeds)
    branches = []
    for f, group in zip(asked, completions, strict=True):
        before, own = f.trace.token_ids[: f.position], params.max_tokens - f.position
        for number, (ids, stop, _) in enumerate(group):
            whole = Completion(before + ids[:own], stop if len(ids) <= own else "length")
            end = make_trace(prover.engine.tokenizer, f.trace.problem_id, 0, f.trace.prompt_ids, whole, tags)
            text = prover.engine.tokenizer.decode(ids[:own], skip_special_tokens=True)
            branches.append(Branch(*f.key, f.boundary, number, text, f.position + len(ids), len(ids), end.answer))
    return branches
