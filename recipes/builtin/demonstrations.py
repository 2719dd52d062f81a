"""Demonstrations for the embedded default model: thoughts about Countdown with the faults of real ones.

A thought is a row of attempts, each a line a step, parted by blank lines and opened by a marker ("Wait",
"Alternatively"), so that the default segmenter makes each attempt an episode. Attempts are mostly guesses; the faults
are that some repeat an earlier attempt, that some thoughts go on after they have found it, and that hopeless ones give
up late. Half of the demonstrations are cut short and answer at once, which is what forced termination asks for.
"""

import random
from typing import NamedTuple

from headway.tasks.countdown import Puzzle, Step, outer, puzzle, steps, take

BREAK = "\n\n"
OPENING = "Okay"
MARKERS = ("Wait", "Alternatively")

HINT = 0.12  # an attempt that follows the solution by which the puzzle was made
LOOKAHEAD = 0.6  # an attempt whose last step hits the target if any can
REPEAT = 0.25  # an attempt that is an earlier one again
GO_ON = 0.35  # after a hit: one more attempt all the same (asked again after each)
MOST_ATTEMPTS = (4, 9)  # a thought gives up after so many
FORCED = 0.5  # a demonstration that is cut short
FORCED_AT_BOUNDARY = 0.7  # ... at the end of an attempt rather than anywhere


class Demonstration(NamedTuple):
    """A question, the thought, whether the thought is cut short, and the answer."""

    prompt: str
    thought: str
    forced: bool
    answer: str


def attempt(rng: random.Random, made: Puzzle) -> tuple[Step, ...]:
    """One attempt: random steps until one number is left, the last one often chosen to hit the target."""
    while True:
        terms, done = made.terms(), []
        while len(terms) > 1 and (choices := steps(terms)):
            hits = [s for s in choices if s.result == made.target] if len(terms) == 2 else []
            step = rng.choice(hits if hits and rng.random() < LOOKAHEAD else choices)
            done.append(step)
            terms = take(terms, step)
        if len(terms) == 1:
            return tuple(done)


def solution_steps(made: Puzzle, rng: random.Random) -> tuple[Step, ...]:
    """Random attempts until one hits, at most 200; the last one in any case."""
    for _ in range(200):
        done = attempt(rng, made)
        if done[-1].result == made.target:
            break
    return done


def demonstrate(rng: random.Random, made: Puzzle) -> Demonstration:
    """One demonstration for a puzzle."""
    attempts: list[tuple[Step, ...]] = []
    answer = made.solution
    found = False
    most = rng.randint(*MOST_ATTEMPTS)
    while len(attempts) < most:
        if attempts and rng.random() < REPEAT:
            attempts.append(rng.choice(attempts))
        elif rng.random() < HINT:
            attempts.append(solution_steps(made, rng))
        else:
            attempts.append(attempt(rng, made))
        if attempts[-1][-1].result == made.target:
            if not found:
                answer = outer(attempts[-1][-1].term().text)
            found = True
        if found and rng.random() >= GO_ON:
            break

    paragraphs = []
    for n, done in enumerate(attempts):
        opening = OPENING if n == 0 else rng.choice(MARKERS)
        paragraphs.append(BREAK.join([opening, *(step.line() for step in done)]) + BREAK)
    if rng.random() >= FORCED:
        return Demonstration(made.prompt(), "".join(paragraphs), False, answer)
    kept = paragraphs[: rng.randint(0, len(paragraphs))]
    thought = "".join(kept)
    if kept and rng.random() >= FORCED_AT_BOUNDARY:
        words = thought.split(" ")
        thought = " ".join(words[: rng.randint(1, len(words))])
    hit = any(done[-1].result == made.target for done in attempts[: len(kept)])
    if not (hit and thought == "".join(kept)):
        answer = found_answer(attempts, thought, made) or made.solution
    return Demonstration(made.prompt(), thought, True, answer)


def found_answer(attempts: list[tuple[Step, ...]], thought: str, made: Puzzle) -> str | None:
    """The first hit that the cut thought still shows, as an expression."""
    shown = 0
    for done in attempts:
        shown = thought.find(done[-1].line(), shown)
        if shown < 0:
            return None
        if done[-1].result == made.target:
            return outer(done[-1].term().text)
    return None


def demonstrations(seed: int, n: int) -> list[Demonstration]:
    """`n` demonstrations on training puzzles only."""
    rng = random.Random(f"demonstrations {seed}")
    return [demonstrate(rng, puzzle(rng, "train")) for _ in range(n)]
