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
from headway.text.offsets import decode_with_offsets, token_at
from headway.text.prompts import prompt_ids
from headway.text.tags import ThinkTags, opening_of
from headway.text.thoughts import read_thought
from headway.types import Attempt, Engine, Grader, Problem, Prompt, TokenIds

# what the authors' code appends, on a line of its own, to make a model backtrack
CUE = "Wait, this seems off. Let's try something else.\n"


class Chains(Options, frozen=True):
    """How chains are run; of `sampling`, the temperature, top-p and seed count."""

    chains: Annotated[int, Option("Chains per problem.", least=1)] = 4
    rounds: Annotated[int, Option("Rounds per chain.", least=1)] = 8
    round_tokens: Annotated[int, Option("Maximum tokens of a round.", least=1)] = 1024
    window: Annotated[int, Option("Last episodes of the chain in a round's prompt.", least=1)] = 2
    cue: Annotated[str, Option("Starts a round after one that ended by itself; empty: the chain ends.")] = CUE
    sampling: Sampling = Sampling()
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
    ends an episode too, so a prompt holds at most the problem and `window` rounds). Episodes are thinking: a closing
    tag and what follows it are never in a prompt. The cue reopens the search; a truncated round is continued without
    it, and answers again if it was truncated in its answer. Without a cue, a chain ends with the first round that ends
    by itself, and its later rounds are empty. All sampled and forced tokens count, also those outside the window; an
    attempt's answer is in a box of its own round. The chunks are fixed, as in `sample`.
    """
    opened = tags._replace(open=tags.open or opening_of(tags))  # the search is open, whoever opened it
    cues = [tuple(engine.tokenizer.encode(text, add_special_tokens=False)) for text in (asked.cue, "\n" + asked.cue)]
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
        ended: list[int] = []
        made: list[Attempt] = []
        for r in range(asked.rounds):
            made += [Attempt(*keys[i], r, "", spent[i]) for i in ended]
            now = [i for i in range(len(keys)) if i not in ended]
            contexts = [Prompt.of(prompts[i] + sum(episodes[i], ()) + opening[i]) for i in now]
            seeds = [derive_seed(asked.sampling.seed, *keys[i], "linearize", r) for i in now]
            sampled = engine.sample(contexts, params, seeds=seeds) if now else []
            for i, [completion] in zip(now, sampled, strict=True):
                text, offsets = decode_with_offsets(engine.tokenizer, completion.token_ids)
                thought = read_thought(text, opened)
                searched = text[: thought.stop]
                cut = to_tokens(by_backtracks(searched), offsets[: token_at(offsets, thought.stop)])
                pieces = [completion.token_ids[e.start : e.stop] for e in cut] or [()]
                episodes[i] = [*episodes[i], opening[i] + pieces[0], *pieces[1:]][-asked.window :]
                spent[i] += len(opening[i]) + len(completion.token_ids)
                answer = extract_answer(text) if BOX in text else None
                made.append(Attempt(*keys[i], r, text, spent[i], answer))
                opening[i] = ()
                if completion.stop == "stop" and asked.cue:
                    opening[i] = cues[not searched.endswith("\n")]
                elif completion.stop == "stop":
                    ended.append(i)
        graded = grade_traces(made, {p.id: p for p in chunk}, grader)
        yield [a for a in graded if (a.key, a.round) not in done]
