"""Linearized evaluation: one long search that forgets, beside many short ones that vote.

A backtracking model needs only its last attempts to go on. So it is run past its context: what it has written is
cut into episodes, and the prompt of the next round is the problem and the last few of them.
"""

from collections.abc import Collection, Iterator, Sequence

from headway.graders import BOX, extract_answer
from headway.prompts import ThinkTags, decode_with_offsets, prompt_ids
from headway.sample import derive_seed, grade_answers
from headway.segment import by_backtracks, to_tokens
from headway.types import Attempt, Completion, Engine, Grader, Problem, Prompt, SamplingParams, TokenIds, Tokenizer

# what the authors' code appends to make a model go back that would not do so by itself
CUE = "\nWait, this seems off. Let's try something else.\n"

Chain = tuple[str, int]


def linearize(
    engine: Engine,
    problems: Sequence[Problem],
    grader: Grader,
    tags: ThinkTags,
    *,
    chains: int,
    rounds: int,
    round_tokens: int,
    window: int,
    cue: str = CUE,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    problems_at_once: int = 32,
    done: Collection[tuple[Chain, int]] = (),
) -> Iterator[list[Attempt]]:
    """Runs `chains` chains of `rounds` rounds on each problem, a list for every `problems_at_once` problems.

    A round samples at most `round_tokens` tokens after the problem and the chain's last `window` episodes
    (`by_backtracks`; the end of a round ends one too, so a prompt has at most the problem and `window` rounds). Where
    a round ended by itself the next one opens with `cue`; where its length cut it off it is gone on with. All that was
    sampled or forced counts, forgotten or not; an attempt's answer is what its own round put into a box. The division
    of the work is fixed, as in `sample`.
    """
    forced = tuple(engine.tokenizer.encode(cue, add_special_tokens=False))
    params = SamplingParams(max_tokens=round_tokens, temperature=temperature, top_p=top_p)
    for start in range(0, len(problems), problems_at_once):
        chunk = problems[start : start + problems_at_once]
        keys = [(p.id, index) for p in chunk for index in range(chains)]
        if all((key, r) in done for key in keys for r in range(rounds)):
            yield []
            continue
        prompts = [prompt_ids(engine.tokenizer, p.prompt, tags) for p in chunk for _ in range(chains)]
        episodes: list[list[TokenIds]] = [[] for _ in keys]
        opening: list[TokenIds] = [() for _ in keys]
        spent = [0 for _ in keys]
        made: list[Attempt] = []
        for r in range(rounds):
            contexts = [
                Prompt.of(prompt + sum(own[-window:], ()) + ids)
                for prompt, own, ids in zip(prompts, episodes, opening, strict=True)
            ]
            seeds = [derive_seed(seed, *key, "linearize", r) for key in keys]
            for i, [completion] in enumerate(engine.sample(contexts, params, seeds=seeds)):
                text, cut = _cut(engine.tokenizer, opening[i], completion)
                episodes[i] = [*episodes[i], *cut][-window:]
                spent[i] += len(opening[i]) + len(completion.token_ids)
                opening[i] = forced if completion.stop == "stop" else ()
                answer = extract_answer(text) if BOX in text else None
                made.append(Attempt(*keys[i], r, text, spent[i], answer))
        rewards = grade_answers(
            [a.problem_id for a in made], [a.answer for a in made], {p.id: p for p in chunk}, grader
        )
        yield [
            Attempt(a.problem_id, a.index, a.round, a.text, a.tokens, a.answer, reward)
            for a, reward in zip(made, rewards, strict=True)
            if ((a.problem_id, a.index), a.round) not in done
        ]


def _cut(tokenizer: Tokenizer, opening: TokenIds, completion: Completion) -> tuple[str, list[TokenIds]]:
    """What a round sampled as text, and its episodes as tokens, the first with what opened the round."""
    ids = completion.token_ids
    text, offsets = decode_with_offsets(tokenizer, ids)
    pieces = [ids[e.start : e.stop] for e in to_tokens(by_backtracks(text), offsets)] if ids else [()]
    return text, [opening + pieces[0], *pieces[1:]]
