"""Branches are sampled as the traces are, unless said otherwise; and a few of them check a likelihood."""

import json
import math

import pytest

from headway.core.segment import by_markers, to_tokens
from headway.engines.scripted import CLOSE, ScriptedEngine
from headway.problems import ProblemSet
from headway.problems.graders import InPlace, exact
from headway.procedures import coverage
from headway.procedures.coverage import BOUNDARIES, BRANCHES, Coverage
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, sample
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import HeadwayError, Problem

TAGS = ThinkTags("<think>", CLOSE)
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(12)]
ENGINE = ScriptedEngine(PROBLEMS, {p.id: [0.6] * 5 for p in PROBLEMS})


def settings(**options):
    return Settings.of(model="scripted", **options)


def test_branches_are_sampled_as_the_traces_are_by_default():
    assert settings().branch_sampling == {"temperature": 1.0, "top_p": 1.0}
    warm = settings(temperature=0.6, top_p=0.95)
    assert warm.branch_sampling == {"temperature": 0.6, "top_p": 0.95}
    assert warm.flat()["branch_temperature"] == 0.6 and warm.flat()["branch_top_p"] == 0.95
    assert settings(temperature=0.6, branch_temperature=1.0).branch_sampling == {"temperature": 1.0, "top_p": 1.0}
    assert settings(top_p=0.9, branch_top_p=0.5).branch_sampling == {"temperature": 1.0, "top_p": 0.5}


@pytest.mark.parametrize("values", ["likelihood", "hybrid"])
@pytest.mark.parametrize("options", [{"top_p": 0.95}, {"branch_top_p": 0.5}, {"temperature": 0.0}])
def test_known_answers_need_the_models_own_distribution(values, options):
    settings(**options).check()
    with pytest.raises(HeadwayError, match=f"--values {values} needs branches of the model's own distribution"):
        settings(values=values, **options).check()
    settings(values=values, **{**options, "branch_top_p": 1.0, "branch_temperature": 0.7}).check()


class Asked:
    """The engine, remembering how it was asked to sample."""

    def __init__(self, engine):
        self.tokenizer, self._engine, self.params = engine.tokenizer, engine, []

    def sample(self, prompts, params, *, seeds):
        self.params.append(params)
        return self._engine.sample(prompts, params, seeds=seeds)


def test_an_engine_is_asked_for_branches_at_their_temperature(tmp_path):
    asked, options = Asked(ENGINE), dict(limit=2, traces=1, temperature=0.6, branch_top_p=0.9)
    problems = ProblemSet("countdown", PROBLEMS[:2], "exact")
    with Measurement.create(tmp_path / "run", settings(**options), problems=problems) as measurement:
        measurement.__dict__["engine"] = asked
        measurement.sample()
        measurement.prove()
    traces, branches = asked.params
    assert (traces.temperature, traces.top_p) == (0.6, 1.0)
    assert (branches.temperature, branches.top_p) == (0.6, 0.9)
    assert json.loads((tmp_path / "run/run.json").read_text())["settings"]["branch_temperature"] == 0.6


def test_a_run_of_an_older_version_keeps_its_branches_at_temperature_1(tmp_path):
    options = dict(limit=2, traces=1, temperature=0.6)
    with Measurement.create(tmp_path / "run", settings(**options, branch_temperature=1.0)) as made:
        made.sample()
    file = tmp_path / "run/run.json"
    head = json.loads(file.read_text())
    del head["settings"]["branch_temperature"], head["settings"]["branch_top_p"]  # as it was written then
    file.write_text(json.dumps(head))
    with Measurement.load(tmp_path / "run") as old:
        assert old.meta_prover.temperature == old.meta_prover.top_p == 1.0
    with Measurement.create(tmp_path / "run", settings(**options, branch_temperature=1.0)) as old:
        assert old.meta_prover.temperature == 1.0
    with pytest.raises(HeadwayError, match=r"branch_temperature: there 1.0, now 0.6"):
        Measurement.create(tmp_path / "run", settings(**options))


# -- the check of a likelihood ----------------------------------------------------------------------------------------


def checked(candidates, *, seed=0, traces=6):
    grader = InPlace(exact, candidates=candidates)
    made = [t for part in sample(ENGINE, PROBLEMS, grader, TAGS, Sampling(traces, 99, 40)) for t in part]
    prover = Prover(
        ENGINE, meta_prover(TAGS, branches=4, max_tokens=16), {p.id: p for p in PROBLEMS}, grader=grader,
        segmenter=lambda t: to_tokens(by_markers(t.thought), t.offsets[: t.thinking]),
    )  # fmt: skip
    return coverage.sampled(prover, made, seed=seed)


def test_a_few_branches_tell_how_many_correct_answers_are_counted(caplog):
    found = checked(lambda p: [p.answer])
    assert found.branches == BOUNDARIES * BRANCHES and found.counted == found.correct
    assert abs(found.correct / found.branches - 0.6) < 4.5 * math.sqrt(0.24 / found.branches)
    assert found.share == 1 and not found.warn_if_low() and not caplog.records
    assert found.sampled > 0 and checked(lambda p: [p.answer]) == found != checked(lambda p: [p.answer], seed=1)


def test_a_likelihood_that_leaves_out_correct_answers_warns_with_both_numbers(caplog):
    # exact ignores spaces, and the model never writes `1 0`: half of the problems
    found = checked(lambda p: [" ".join(p.answer)] if len(p.answer) > 1 else [p.answer])
    assert 0.3 < found.share < 0.7 and found.warn_if_low()
    [record] = caplog.records
    assert f"{found.correct} are correct and {found.counted} of these" in record.getMessage()


def test_problems_without_a_known_answer_are_not_checked():
    found = checked(lambda p: [])
    assert found == Coverage(0, 0, 0, 0) and math.isnan(found.share) and not found.warn_if_low()


def test_too_few_correct_branches_say_nothing(caplog):
    assert not Coverage(128, 7, 0, 900).warn_if_low() and not caplog.records
    assert Coverage(128, 8, 5, 900).warn_if_low() and not Coverage(128, 10, 7, 900).warn_if_low()


def test_measuring_by_likelihood_checks_once_and_reports_it(tmp_path, monkeypatch):
    made = settings(limit=4, traces=2, values="likelihood")
    with Measurement.create(tmp_path / "run", made) as measurement:
        found = measurement.all()["values"]["coverage"]
    report = (tmp_path / "run/report.json").read_text()
    assert found == json.loads((tmp_path / "run/coverage.json").read_text())
    assert found["share"] == 1 and 0 < found["correct"] <= found["branches"] == 2 * 8 * 7
    assert not (tmp_path / "run/branches.jsonl").exists()
    monkeypatch.setattr(coverage, "sampled", None)  # would fail if it were called again
    with Measurement.create(tmp_path / "run", made) as measurement:
        measurement.all()
    assert (tmp_path / "run/report.json").read_text() == report
    with Measurement.create(tmp_path / "hybrid", settings(limit=4, traces=2, values="hybrid")) as measurement:
        assert "coverage" not in measurement.all()["values"]
