"""Linearized evaluation, against an engine that searches by a script."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from headway.engines.scripted import Characters
from headway.problems.graders import InPlace, exact
from headway.procedures.linearize import CUE, Chains, linearize
from headway.procedures.sample import Sampling
from headway.runs.derived import linearize_run, linearized
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.store import Run
from headway.text.tags import ThinkTags
from headway.types import Attempt, Completion, HeadwayError, Problem

TAGS = ThinkTags("", "</think>")
GRADER = InPlace(exact)
PROBLEMS = [Problem(f"p{i}", f"What is {i}?", str(i)) for i in range(5)]
ROUND = "Backtrack to beginning\nTry {n}. \\boxed{{{answer}}}"


class Searcher:
    """Backtracks once a round and is right with a probability; remembers its prompts."""

    def __init__(self, p=0.3, stop="stop"):
        self.tokenizer, self.p, self.stop, self.asked = Characters(), p, stop, []

    def sample(self, prompts, params, *, seeds):
        self.asked += ["".join(map(chr, prompt.ids)) for prompt in prompts]
        return [[self._try(prompt.ids, seed)] for prompt, seed in zip(prompts, seeds, strict=True)]

    def _try(self, prompt, seed):
        rng = Random(seed)
        answer = "".join(map(chr, prompt)).split("?")[0].split()[-1]
        if rng.random() >= self.p:
            answer = f"no{rng.randrange(3)}"
        return Completion(tuple(map(ord, ROUND.format(n=rng.randrange(10), answer=answer))), self.stop)


def attempts(engine, **options):
    done, sampling = options.pop("done", ()), Sampling(seed=options.pop("seed", 0))
    asked = Chains(**{"chains": 2, "rounds": 4, "round_tokens": 100, "window": 2, "sampling": sampling, **options})
    return [a for chunk in linearize(engine, PROBLEMS, GRADER, TAGS, asked, done=done) for a in chunk]


def test_a_round_sees_the_problem_and_its_last_episodes_only():
    engine = Searcher()
    made = attempts(engine, chains=1, window=3)
    first = [a.text for a in made if a.problem_id == "p0"]
    prompt, *later = engine.asked[:: len(PROBLEMS)]
    attempts_only = [text.removeprefix("Backtrack to beginning\n") for text in first]
    back = "Backtrack to beginning\n"
    # an episode goes back or tries; what opened a round stands before its first episode, which is empty here
    cue = "\n" + CUE  # on a line of its own
    assert later[0] == prompt + back + attempts_only[0] + cue
    assert later[1] == prompt + attempts_only[0] + cue + back + attempts_only[1] + cue
    assert later[2] == prompt + attempts_only[1] + cue + back + attempts_only[2] + cue
    assert attempts_only[0] not in later[2]


def test_what_is_forgotten_was_still_paid_for():
    for stop, forced in (("stop", len("\n" + CUE)), ("length", 0)):
        made = attempts(Searcher(stop=stop), chains=1)
        own = [a for a in made if a.problem_id == "p3"]
        assert [a.tokens for a in own] == np.cumsum([len(a.text) + (forced if a.round else 0) for a in own]).tolist()


def test_an_attempt_answers_in_a_box_of_its_own_round():
    made = attempts(Searcher(p=1.0))
    assert all(a.answer == a.problem_id[1:] and a.reward == 1.0 for a in made)
    assert [(a.problem_id, a.index) for a in made if a.round == 0] == [(p.id, c) for p in PROBLEMS for c in range(2)]

    class Silent(Searcher):
        def _try(self, prompt, seed):
            return Completion(tuple(map(ord, "hm")), "length")

    assert {(a.answer, a.reward) for a in attempts(Silent())} == {(None, 0.0)}


def test_only_thinking_is_kept_and_the_cue_reopens_it():
    class Thinker(Searcher):
        def _try(self, prompt, seed):
            text = f"Try {len(prompt)}.\n</think>\\boxed{{1}}"
            return Completion(tuple(map(ord, text)), "stop")

    engine = Thinker()
    made = attempts(engine, chains=1, rounds=3, window=9)
    first, second, third = engine.asked[:: len(PROBLEMS)]
    assert second == f"{first}Try {len(first)}.\n{CUE}"
    assert third == f"{second}Try {len(second)}.\n{CUE}"
    assert {a.answer for a in made} == {"1"}
    own = [a for a in made if a.problem_id == "p0"]
    assert [a.tokens for a in own] == np.cumsum([len(a.text) + (len(CUE) if a.round else 0) for a in own]).tolist()


def test_a_round_that_is_truncated_in_its_answer_answers_again():
    class Thinker(Searcher):
        def _try(self, prompt, seed):
            return Completion(tuple(map(ord, "Try.\n</think>\\boxed{1")), "length")

    engine = Thinker()
    attempts(engine, chains=1, rounds=2)
    first, second = engine.asked[:: len(PROBLEMS)]
    assert second == f"{first}Try.\n"


def test_without_a_cue_a_chain_ends_with_its_answer():
    class Sometimes(Searcher):
        def _try(self, prompt, seed):
            done = Random(seed).random() < 0.5
            text = "Try.\n</think>\\boxed{1}" if done else "Try.\n"
            return Completion(tuple(map(ord, text)), "stop" if done else "length")

    engine = Sometimes()
    made = attempts(engine, cue="", rounds=6)
    assert len(made) == len(PROBLEMS) * 2 * 6
    chains = [[a for a in made if a.key == key] for key in dict.fromkeys(a.key for a in made)]
    for own in chains:
        answered = [a.round for a in own if a.answer]
        assert len(answered) <= 1
        end = answered[0] if answered else 5
        assert all(a.text == "" and a.tokens == own[end].tokens for a in own[end + 1 :])
    assert len(engine.asked) == sum(a.text != "" for a in made) < len(made)
    done = {(a.key, a.round) for a in made[:11]}
    assert attempts(Sometimes(), cue="", rounds=6, done=done) == made[11:]


def test_a_stopped_chain_goes_on_to_the_same_attempts():
    whole = attempts(Searcher(), problems_at_once=2)
    done = {((a.problem_id, a.index), a.round) for a in whole[:11]}
    assert attempts(Searcher(), problems_at_once=2, done=done) == whole[11:]
    assert whole != attempts(Searcher(), problems_at_once=2, seed=1)


def test_curves_by_hand():
    def attempt(problem, r, answer, reward):
        return Attempt(problem, 0, r, "", 10 * (r + 1), answer, reward)

    made = [
        *(attempt("a", r, x, float(x == "7")) for r, x in enumerate(["7", "8", None, "7"])),
        *(attempt("b", r, x, float(x == "7")) for r, x in enumerate([None, "9", "7", "7"])),
    ]
    curves = linearized(made, one_right=True)
    assert [r["value"] for r in curves["last_answer"]] == [0.5, 0.0, 0.5, 1.0]
    # votes of a: 7 | 7 8 | 7 8 | 7 7 8; of b: none | 9 | 9 7 | 9 7 7
    assert [r["value"] for r in curves["majority"]] == [0.5, 0.25, 0.5, 1.0]
    assert [r["tokens"] for r in curves["majority"]] == [10, 20, 30, 40]
    assert curves["majority"][0]["n_problems"] == 2 and [r["round"] for r in curves["majority"]] == [1, 2, 3, 4]


def test_the_vote_over_rounds_is_what_independent_tries_give():
    # right with 0.5, wrong in three ways: after 9 rounds the right one leads mostly
    made = attempts(Searcher(p=0.5), chains=80, rounds=9)
    curves = linearized(made, one_right=True)
    error = (0.25 / 400) ** 0.5
    assert all(r["value"] == pytest.approx(0.5, abs=4 * error) for r in curves["last_answer"])
    assert curves["majority"][-1]["value"] > 0.5 + 8 * error


def test_an_undecided_attempt_leaves_its_chain_out():
    made = [Attempt("a", 0, 0, "", 5, "x", None), Attempt("b", 0, 0, "", 5, "7", 1.0)]
    [record] = linearized(made, one_right=True)["majority"]
    assert (record["value"], record["n"]) == (1.0, 1)


def test_a_run_gets_its_chains_and_refuses_others(tmp_path: Path):
    settings = Settings.of(model="scripted", problems="countdown", limit=4, traces=3, branches=1)
    with Measurement.create(tmp_path, settings) as measurement:
        measurement.sample()
        measurement.prove()
    asked = {"chains": 2, "rounds": 2, "round_tokens": 50, "window": 1}
    file = linearize_run(tmp_path, **asked)
    content = json.loads(file.read_text())
    assert [r["k"] for r in content["parallel"]] == [1, 2, 3]
    assert len(content["last_answer"]) == len(content["majority"]) == 2
    kept = list(Run.load(tmp_path).attempts())
    (tmp_path / "attempts.jsonl").write_bytes((tmp_path / "attempts.jsonl").read_bytes()[:-100])
    linearize_run(tmp_path, **asked)
    assert list(Run.load(tmp_path).attempts()) == kept
    with pytest.raises(HeadwayError, match="attempts with other options"):
        linearize_run(tmp_path, **{**asked, "rounds": 3})
    with pytest.raises(HeadwayError, match="window must be at least 1"):
        linearize_run(tmp_path, **{**asked, "window": 0})
