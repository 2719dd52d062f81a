"""Problems of reasoning-gym, and what its verifiers get to see of what a model wrote."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.problems import gym, load_problems
from headway.problems.graders import Grader, load_grader
from headway.types import HeadwayError, Problem

pytest.importorskip("reasoning_gym")


def test_problems_are_those_of_the_task_and_its_seed() -> None:
    made = load_problems("gym:chain_sum", limit=5, seed=7)
    assert (made.name, made.grader) == ("gym:chain_sum", "gym")
    assert [p.id for p in made.problems] == [f"chain_sum/7/{n}" for n in range(5)]
    assert all(p.prompt.endswith("\n\nPut your final answer within \\boxed{}.") for p in made.problems)
    assert load_problems("gym:chain_sum", limit=9, seed=7).problems[:5] == made.problems
    assert load_problems("gym:chain_sum", limit=5, seed=8).problems != made.problems
    bare = load_problems("gym:chain_sum", limit=1, seed=7, template="{problem}").problems[0]
    assert made.problems[0].prompt == bare.prompt + "\n\nPut your final answer within \\boxed{}."


def test_the_first_problems_of_every_task_do_not_depend_on_how_many_there_are() -> None:
    # acre's do where the size of its set does
    assert list(gym.problems("acre", 2)) == list(gym.problems("acre", 4))[:2]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("chess", "no task 'chess'; there are ab, acre"),
        ("composite", "a mixture of other tasks"),
        ("coin_flip", "takes the first digits of the probability"),
        ("game_of_life_halting", "takes any text as right"),
        ("puzzle24", "does not look at which numbers"),
        ("rush_hour", "without a reference answer"),
        ("sudoku", "several lines"),
        ("chain_sum:hard", "no task 'chain_sum:hard'"),
    ],
)
def test_a_task_that_cannot_be_measured_is_refused_with_the_reason(task: str, says: str) -> None:
    with pytest.raises(HeadwayError, match=says):
        load_problems(f"gym:{task}", limit=2)


def test_more_problems_than_a_set_has_are_refused() -> None:
    with pytest.raises(HeadwayError, match="at most 2000 problems, got --limit 2001"):
        load_problems("gym:chain_sum", limit=2001)


def test_another_version_is_refused_since_its_verifiers_were_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym, "CHECKED_VERSION", "99.0")
    with pytest.raises(HeadwayError, match=r"need reasoning-gym 99.0, got 0.1.25"):
        load_grader("gym")


def by_hand(task: str, number: int = 0) -> tuple[Problem, str]:
    problem = list(gym.problems(task, number + 1, seed=3))[number]
    return problem, problem.answer


def test_countdown_by_hand() -> None:
    problem, answer = by_hand("countdown")
    assert answer == "82 + 20 + 67 - 50"
    right = {answer: True, "67+20-(50-82)": True, "20 + 67 + 82 - 50 ": True}
    wrong = {"119": False, "82 + 20 + 17": False, "x": False, "82 + 20 + 67 - 50 = 119": False, "": False}
    hostile = dict.fromkeys(["9**9**9**9", "1/0", "(" * 1000, "__import__('os')", "(1).__class__", "9!" * 9], False)
    for text, verdict in {**right, **wrong, **hostile}.items():
        assert gym.judge(text, problem.id) is verdict, text


@pytest.mark.parametrize("task", sorted(gym.EVALUATED))
def test_what_an_evaluating_verifier_may_see_has_room_for_every_right_answer(task: str) -> None:
    written = [p for p in gym.problems(task, 12, seed=1) if "Integral" not in p.answer]
    assert len(written) > 8
    for problem in written:
        assert gym.judge(problem.answer, problem.id), problem.answer
    assert gym.judge("None", problem.id) is False


def test_an_integral_in_another_form_is_right_and_another_function_is_not() -> None:
    problem, answer = by_hand("simple_integration")
    assert answer == "-9*x**8/10 + 3*x**4/2 + 10*x**2/9 + C"
    assert gym.judge("3*x**4/2 + 10*x**2/9 - 0.9*x**8", problem.id)
    assert not gym.judge("sin(x)", problem.id)
    # what sympy cannot integrate it writes down again, and its verifier takes that from anyone
    assert (
        gym._made("intermediate_integration", 1).score_answer(
            "3*Integral(x**3*cos(3*x), x)", gym._entry("intermediate_integration", 1, 4)
        )
        == 1
    )
    assert gym.judge("3*Integral(x**3*cos(3*x), x)", "intermediate_integration/1/4") is False
    assert gym.judge("x**3*sin(3*x) + x**2*cos(3*x) - 2*x*sin(3*x)/3 - 2*cos(3*x)/9", "intermediate_integration/1/4")


def test_part_of_the_score_is_not_right_and_what_a_verifier_stumbles_over_is_wrong() -> None:
    problem, answer = by_hand("prime_factorization")
    assert gym.judge(answer, problem.id)
    assert gym.judge("nonsense", problem.id) is False  # its verifier raises
    problem, _ = by_hand("countdown")
    assert 0 < gym._made("countdown", 3).score_answer("119", gym._entry("countdown", 3, 0)) < 1
    assert gym.judge("119", problem.id) is False


@pytest.mark.parametrize(("task", "number"), [("complex_arithmetic", 0), ("number_sorting", 0), ("number_sorting", 1)])
def test_what_is_no_number_is_wrong(task: str, number: int) -> None:
    problem, reference = by_hand(task, number)
    nan = "NaN" if task == "complex_arithmetic" else f"[{', '.join(['NaN'] * (reference.count(',') + 1))}]"
    assert gym._made(task, 3).score_answer(nan, gym._entry(task, 3, number)) == 1  # the verifier takes it
    for text in (nan, nan.lower(), f" {nan}"):
        assert gym.judge(text, problem.id) is False
    assert gym.judge(reference, problem.id)


@pytest.mark.parametrize("id", ["1", "countdown/0", "countdown/0/-1", "countdown/0/1/2", "a b/0/1", "countdown/0/x"])
def test_the_grader_takes_problems_of_gym_sets_alone(id: str) -> None:
    with pytest.raises(HeadwayError, match=rf"needs the problems of a gym: set, got one with the id '{id}'"):
        load_grader("gym").grade([(Problem(id, "?", "1"), "1")])


@pytest.mark.parametrize("task", ["n_queens", "binary_matrix", "composite", "puzzle24", "nonsense"])
def test_a_verifier_that_was_not_read_is_never_called(task: str, tmp_path: Path) -> None:
    """Ids come from files: the payload of n_queens would be evaluated."""
    payload = f"[open({str(tmp_path / 'pwned')!r}, 'w').write('x')]"
    with pytest.raises(HeadwayError, match=f"the verifier of gym:{task} is not called"):
        gym.judge(payload, f"{task}/0/0")
    with load_grader("gym") as grader, pytest.raises(HeadwayError, match="is not called"):  # type: ignore[attr-defined]
        grader.grade([(Problem(f"{task}/0/0", "?", "1"), payload)])
    assert not (tmp_path / "pwned").exists()


def test_the_grader_makes_the_problem_again_in_a_worker() -> None:
    problems = load_problems("gym:countdown", limit=2, seed=3).problems
    grader: Grader = load_grader("gym")
    with grader:  # type: ignore[attr-defined]
        assert grader.grade([(p, "67+20-(50-82)") for p in problems]) == [1.0, 0.0]


EVERY_TASK = """
import json, sys
from headway.problems import gym
from reasoning_gym.factory import DATASETS

compiled = []
sys.addaudithook(lambda event, args: compiled.append(str(args[0])) if event == "compile" else None)
HOSTILE = ["mark", "[mark]", "mark()", "{mark: 1}", "1 + mark", "'mark'.upper()", "mark, mark", "x.mark", "mark(x)"]

def evaluated(judge):
    compiled.clear()
    for text in HOSTILE:
        try: judge(text)
        except Exception: pass
    return any("mark" in source for source in compiled)

taken, wrong, seen, by_verifier = [], [], [], []
for task in sys.argv[1:] or sorted(DATASETS):
    try: [problem] = gym.problems(task, 1)
    except ValueError: continue
    taken.append(task)
    if not gym.judge(problem.answer, problem.id): wrong.append(task)
    if evaluated(lambda text: gym.judge(text, problem.id)): seen.append(task)
    made = gym._made(task, 0)
    if evaluated(lambda text: made.score_answer(text, made[0])): by_verifier.append(task)
print(json.dumps([len(DATASETS), taken, wrong, seen, by_verifier]))
"""


def audited(*tasks: str) -> list[Any]:
    """In a process of its own, for an audit hook cannot be taken away again."""
    ran = subprocess.run([sys.executable, "-c", EVERY_TASK, *tasks], capture_output=True, text=True, check=True)
    found: list[Any] = json.loads(ran.stdout[ran.stdout.index("[") :])
    return found


def test_verifiers_that_evaluate_never_see_what_is_hostile() -> None:
    _, taken, wrong, seen, by_verifier = audited(*gym.EVALUATED)
    assert (wrong, seen) == ([], [])
    assert sorted(taken) == sorted(by_verifier) == sorted(gym.EVALUATED)  # by themselves they would: the hook notices


@pytest.mark.slow
def test_no_other_verifier_evaluates_anything_and_every_reference_is_right() -> None:
    known, taken, wrong, seen, by_verifier = audited()
    assert (known, sorted(taken)) == (106, sorted(gym.READ))
    assert (wrong, seen) == ([], [])
    assert by_verifier == sorted(gym.EVALUATED)
