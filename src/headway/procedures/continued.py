"""Values of the policy itself: it goes on from each boundary, without a forced answer, as in VinePPO (2410.01679)."""

from collections.abc import Sequence

from msgspec import structs

from headway.core.tally import ValueCurve, lay_out, value_curve
from headway.procedures.forced import Forced
from headway.procedures.prove import Prover
from headway.procedures.sample import derive_seed, grade_traces, make_trace
from headway.text.tags import ThinkTags
from headway.types import Branch, Completion, Prompt, SamplingParams, Trace

ROOM = 32  # boundaries whose room for tokens is the same up to this are continued in one call of the engine


def continued_curves(
    prover: Prover, traces: Sequence[Trace], tags: ThinkTags, params: SamplingParams, *, seed: int
) -> tuple[list[ValueCurve], list[Branch]]:
    """The curve of each trace, and the branches that it comes from: whole traces that begin as this one does.

        V_j = (1 / n) sum_b r_jb,    V_K = r, the trace's own outcome: nothing is sampled there

    Thinking and answer of a branch have `params.max_tokens` tokens, those before the boundary included.

    Args:
        traces: Graded ones.
        params: How the policy samples traces; `n` is the number of branches at each boundary.
    """
    ends = [prover.forced(trace) for trace in traces]
    asked = [f for of_trace in ends for f in of_trace[:-1]]
    rooms: dict[int, list[Forced]] = {}
    for f in asked:
        room = params.max_tokens - f.position
        rooms.setdefault(min(params.max_tokens, -(-room // ROOM) * ROOM), []).append(f)
    branches = [b for room, some in rooms.items() for b in _continue(prover, some, tags, params, room, seed)]
    branches = grade_traces(branches, prover.problems, prover.grader)
    for f in (of_trace[-1] for of_trace in ends):
        tokens = len(f.trace.token_ids)
        branches.append(Branch(*f.trace.key, f.boundary, 0, "", tokens, 0, f.trace.answer, f.trace.reward))
    of_key: dict[tuple[str, int], list[Branch]] = {trace.key: [] for trace in traces}
    for branch in branches:
        of_key[branch.key].append(branch)
    tallies = [lay_out(t.key, [f.position for f in e], of_key[t.key]) for t, e in zip(traces, ends, strict=True)]
    return [value_curve(tally) for tally in tallies], branches


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
