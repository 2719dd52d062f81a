"""Generated problems of reasoning-gym, graded by its own verifiers.

A problem's id (task, seed and number) generates its entry again, which its verifier needs.
Some verifiers evaluate the model's text as Python. Those of one version were reviewed for that: they get only text
that matches the patterns below, other answers are wrong without being evaluated, and other versions are refused.
"""

import functools
import io
import math
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import metadata
from typing import Any

from headway.types import HeadwayError, Problem

CHECKED_VERSION = "0.1.25"
INSTALL = f"pip install 'reasoning-gym=={CHECKED_VERSION}'"
TEMPLATE = "{problem}\n\nPut your final answer within \\boxed{}."
SIZE = 2000  # entries of a set; those of some tasks depend on it, so it is the same for all
TOLERANCE = 1e-9  # of a full score

_ID = re.compile(r"\w+/\d{1,9}/\d{1,9}", re.ASCII)

_ARITHMETIC = re.compile(r"(?s)(?!.*\*\*)[\d\s+\-*/().]*")
_ALGEBRA = re.compile(
    r"(?:[\d\s+\-*/^(),]|\.(?=\d)|\b(?:[A-Za-z]|a?(?:sin|cos|tan)h?|sec|csc|cot|exp|log|ln|sqrt|pi|Abs)\b)*"
)
# The text that evaluating verifiers may get: no names but variables and mathematical functions, no attributes. Every
# right answer matches; an integral that is only restated does not.
EVALUATED = {
    "countdown": _ARITHMETIC,
    "intermediate_integration": _ALGEBRA,
    "polynomial_multiplication": _ALGEBRA,
    "simple_integration": _ALGEBRA,
    "spiral_matrix": re.compile(r"[\d\s]*"),
    "string_insertion": re.compile(r"[A-Z]*"),
}
# The tasks whose verifiers were read and tried with hostile answers; no other verifier is called, since ids come from
# files, and others evaluate what they get (n_queens, binary_matrix)
READ = frozenset(
    """
    ab acre advanced_geometry aiw arc_1d base_conversion basic_arithmetic bf binary_alternation bitwise_arithmetic
    caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio color_cube_rotation
    complex_arithmetic count_bits count_primes countdown course_schedule cryptarithm decimal_arithmetic
    decimal_chain_sum dice emoji_mystery family_relationships figlet_font fraction_simplification game_of_life gcd
    group_anagrams gsm_symbolic intermediate_integration isomorphic_strings jugs knight_swap knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle maze needle_haystack
    number_filtering number_format number_sequence number_sorting palindrome_generation palindrome_partitioning
    path_star polynomial_equations polynomial_multiplication power_function prime_factorization products
    quantum_lock ransom_note rectangle_count rotten_oranges self_reference sentence_reordering shortest_path
    simple_equations simple_geometry simple_integration sokoban spell_backward spiral_matrix string_insertion
    string_manipulation string_splitting string_synthesis syllogism time_intervals tsumego word_ladder
    word_sequence_reversal word_sorting zebra_puzzles
    """.split()
)
REFUSED = {
    "coin_flip": "its verifier takes the first digits of the probability for all of it",
    "composite": "it is a mixture of other tasks; name one of those",
    "game_of_life_halting": "its verifier takes any text as right",
    "puzzle24": "its verifier does not look at which numbers were used",
}
# NaN as a number: some verifiers find no distance between it and the reference
_NAN = re.compile(r"(?i)(?<![a-z])nan(?![a-hk-z])")


def problems(task: str, n: int, *, seed: int = 0) -> Iterator[Problem]:
    """The first `n` problems that a task generates from a seed; a task that cannot be graded is a HeadwayError."""
    if n > SIZE:
        raise HeadwayError(f"a gym: set has at most {SIZE} problems, got --limit {n}; other seeds have others")
    for number in range(n):
        entry = _entry(task, seed, number)
        answer = entry["answer"]
        if not isinstance(answer, str) or not answer.strip():
            raise HeadwayError(f"gym:{task} cannot be measured: it has problems without a reference answer")
        if "\n" in answer.strip():
            raise HeadwayError(f"gym:{task} cannot be measured: its answers have several lines, a forced answer one")
        yield Problem(f"{task}/{seed}/{number}", entry["question"], answer)


def entry_id(problem: Problem) -> str:
    """The id of a problem of a `gym:` set (of another, a HeadwayError), which generates its entry again."""
    if not _ID.fullmatch(problem.id):
        raise HeadwayError(f"the gym grader needs the problems of a gym: set, got one with the id '{problem.id}'")
    _check_read(problem.id.partition("/")[0])
    return problem.id


def _check_read(task: str) -> None:
    if task not in READ:
        unread = f"it is not among the {len(READ)} that were read for what they do with a model's text"
        raise HeadwayError(
            f"the verifier of gym:{task} is not called: {REFUSED.get(task, unread)}; leave these problems out, or use "
            "another grader"
        )


def judge(answer: str, problem_id: str) -> bool:
    """Whether a verifier gives the answer to the problem of this id its full score.

    A partial score is wrong, and so is an answer at which the verifier raises: some raise on text they cannot parse.
    A score out of range is a HeadwayError, so that the answer counts as undecided.
    """
    _library()  # imports at a worker's first call, whatever its arguments
    task, seed, number = problem_id.split("/")
    _check_read(task)
    if task in EVALUATED and not EVALUATED[task].fullmatch(answer):
        return False
    made, entry = _made(task, int(seed)), _entry(task, int(seed), int(number))
    if _NAN.search(answer) and not _NAN.search(entry["answer"]):
        return False
    try:
        score = float(made.score_answer(answer, entry))
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError):
        return False
    if not (math.isfinite(score) and 0 <= score <= 1 + TOLERANCE):
        raise HeadwayError(f"the verifier of gym:{task} gave {score}; expected a score from 0 to 1")
    return score >= 1 - TOLERANCE


def check_installed() -> None:
    """Raises a HeadwayError where reasoning-gym is missing or not of the checked version."""
    try:
        version = metadata.version("reasoning-gym")
    except metadata.PackageNotFoundError as error:
        raise HeadwayError(f"gym: problems need reasoning-gym; {INSTALL}") from error
    if version != CHECKED_VERSION:
        need = f"gym: problems need reasoning-gym {CHECKED_VERSION}, got {version}"
        raise HeadwayError(f"{need}: verifiers may run a model's text, and were checked in that version; {INSTALL}")


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    check_installed()
    from reasoning_gym import factory

    return factory


@functools.lru_cache(maxsize=4)
def _made(task: str, seed: int) -> Any:
    library = _library()
    if task not in library.DATASETS:
        raise HeadwayError(f"reasoning-gym has no task '{task}'; there are {', '.join(sorted(library.DATASETS))}")
    if task in REFUSED:
        raise HeadwayError(f"gym:{task} cannot be measured: {REFUSED[task]}")
    return library.create_dataset(task, seed=seed, size=SIZE)


@functools.lru_cache(maxsize=SIZE)
def _entry(task: str, seed: int, number: int) -> Any:
    made = _made(task, seed)
    with redirect_stdout(io.StringIO()):  # some tasks print
        return made[number]
