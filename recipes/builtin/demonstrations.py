"""Demonstrations for the embedded default model: thoughts about Countdown with the faults of real ones.

A thought is a row of attempts, each a line a step and a check against the target, parted by blank lines and opened by
a marker ("Wait", "Alternatively"), so that the default segmenter makes each attempt an episode. Attempts are mostly
guesses; the faults are that some repeat an earlier attempt, that some thoughts go on after they have found it, and
that hopeless ones give up late. Some demonstrations are cut short and answer at once, which is what forced termination
asks for.
"""

import random
from typing import NamedTuple

from headway.problems.countdown import Puzzle, Step, outer, puzzle, steps, take

BREAK = "\n\n"
OPENING = "Okay"
MARKERS = ("Wait", "Alternatively")
VERDICTS = {True: "? Yes.", False: "? No."}

HINT = 0.1  # an attempt that is right
LOOKAHEAD = 0.7  # an attempt whose last step hits the target if any can
REPEAT = 0.2  # an attempt that is an earlier one again
GO_ON = 0.25  # after a hit: one more attempt all the same (asked again after each)
MOST_ATTEMPTS = (6, 10)  # a thought gives up after so many
FORCED = 0.4  # a demonstration that is cut short
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


def right_attempt(rng: random.Random, made: Puzzle, *, tries: int = 100) -> tuple[Step, ...]:
    """Random attempts until one hits, or the last of them."""
    for _ in range(tries):
        done = attempt(rng, made)
        if done[-1].result == made.target:
            break
    return done


def demonstrate(rng: random.Random, made: Puzzle, *, hint: float = HINT) -> Demonstration:
    """One demonstration for a puzzle.

    The answer is the first hit that the thought shows; without one, what the last whole attempt made, or a guess.
    """
    attempts: list[tuple[Step, ...]] = []
    most = rng.randint(*MOST_ATTEMPTS)
    found = False
    while len(attempts) < most and not (found and rng.random() >= GO_ON):
        if attempts and rng.random() < REPEAT:
            attempts.append(rng.choice(attempts))
        elif rng.random() < hint:
            attempts.append(right_attempt(rng, made))
        else:
            attempts.append(attempt(rng, made))
        found = found or attempts[-1][-1].result == made.target
    paragraphs = [
        BREAK.join(
            [
                rng.choice(MARKERS) if n else OPENING,
                *(step.line() for step in done),
                f"{made.target}{VERDICTS[done[-1].result == made.target]}",
                "",
            ]
        )
        for n, done in enumerate(attempts)
    ]
    forced = rng.random() < FORCED
    shown = rng.randint(0, len(attempts)) if forced else len(attempts)
    cut = ""
    if forced and shown < len(attempts) and rng.random() >= FORCED_AT_BOUNDARY:
        words = paragraphs[shown].split(" ")
        cut = " ".join(words[: rng.randint(1, len(words) - 1)])
    hits = [done for done in attempts[:shown] if done[-1].result == made.target]
    best = (hits or attempts[:shown][-1:] or [attempt(rng, made)])[0]
    return Demonstration(made.prompt(), "".join(paragraphs[:shown]) + cut, forced, outer(best[-1].term().text))


def demonstrations(seed: int, n: int, *, hint: float = HINT) -> list[Demonstration]:
    """`n` demonstrations on training puzzles only; `hint` is the share of attempts that are made right."""
    rng = random.Random(f"demonstrations {seed}")
    return [demonstrate(rng, puzzle(rng, "train"), hint=hint) for _ in range(n)]
