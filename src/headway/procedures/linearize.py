"""Linearized evaluation: one long search with a sliding window, compared with a vote over many short ones.

A backtracking model needs only its last attempts to continue, so it can run past its context length: the prompt of
the next round is the problem and the last few episodes of its output.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

from headway.choices import Option, Options
from headway.core.segment import by_backtracks, to_tokens
from headway.procedures.sample import Sampling, TraceKey, derive_seed, grade_traces
from headway.text.answers import BOX, extract_answer
from headway.text.offsets import decode_with_offsets
from headway.text.prompts import prompt_ids
from headway.text.tags import ThinkTags
from headway.types import Attempt, Engine, Grader, Problem, Prompt, TokenIds

# what the authors' code appends to make a model backtrack
CUE = "\nWait, this seems off. Let's try something else.\n"


class Chains(Options, frozen=True):
    """How chains are run; of `sampling`, the temperature, top-p and seed count."""

    chains: Annotated[int, Option("Chains per problem.", least=1)] = 4
    rounds: Annotated[int, Option("Rounds per chain.", least=1)] = 8
    round_tokens: Annotated[int, Option("Maximum tokens of a round.", least=1)] = 1024
    window: Annotated[int, Option("Last episodes of the chain in a round's prompt.", least=1)] = 2
    sampling: Sampling = Sampling()
    cue: str = CUE  # what a round starts with if the round before it ended by itself
    problems_at_once: int = 32


def linearize(
    engine: Engine,
    problems: Sequence[Problem],
    grader: Grader,
    tags: ThinkTags,
    asked: Chains,
    *,
    done: Collection[tuple[TraceKey, int]] = (),
) -> Iterator[list[Attempt]]:
    """Runs the chains of each problem, a list for every `problems_at_once` problems.

    The prompt of a round is the problem and the chain's last `window` episodes (`by_backtracks`; the end of a round
    ends an episode too, so a prompt holds at most the problem and `window` rounds). A truncated round is continued
    without a cue. All sampled and forced tokens count, also those outside the window; an attempt's answer is in a box
    of its own round. The chunks are fixed, as in `sample`.
    """
    forced = tuple(engine.tokenizer.encode(asked.cue, add_special_tokens=False))
    params = asked.sampling.params(asked.round_tokens)
    for start in range(0, len(problems), asked.problems_at_once):
        chunk = problems[start : start + asked.problems_at_once]
        keys = [(p.id, index) for p in chunk for index in range(asked.chains)]
        if all((key, r) in done for key in keys for r in range(asked.rounds)):
            yield []
            continue
        prompts = [prompt_ids(engine.tokenizer, p.prompt, tags) for p in chunk for _ in range(asked.chains)]
        episodes: list[list[TokenIds]] = [[] for _ in keys]
        opening: list[TokenIds] = [()] * len(keys)
        spent = [0] * len(keys)
        made: list[Attempt] = []
        for r in range(asked.rounds):
            each = zip(prompts, episodes, opening, strict=True)
            contexts = [Prompt.of(prompt + sum(kept, ()) + ids) for prompt, kept, ids in each]
            seeds = [derive_seed(asked.sampling.seed, *key, "linearize", r) for key in keys]
            for i, [completion] in enumerate(engine.sample(contexts, params, seeds=seeds)):
                ids = completion.token_ids
                text, offsets = decode_with_offsets(engine.tokenizer, ids)
                own = [ids[e.start : e.stop] for e in to_tokens(by_backtracks(text), offsets)] if ids else [()]
                episodes[i] = [*episodes[i], opening[i] + own[0], *own[1:]][-asked.window :]
                spent[i] += len(opening[i]) + len(ids)
                opening[i] = forced if completion.stop == "stop" else ()
                answer = extract_answer(text) if BOX in text else None
                made.append(Attempt(*keys[i], r, text, spent[i], answer))
        graded = grade_traces(made, {p.id: p for p in chunk}, grader)
        yield [a for a in graded if (a.key, a.round) not in done]
