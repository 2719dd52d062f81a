"""Values of every kind against the scripted engine, whose success probabilities are known."""

import json

import numpy as np
import pytest

import tiny
from headway.cli import main
from headway.core.segment import boundaries, by_markers, by_tokens, to_tokens
from headway.core.tally import ESTIMATORS, known_share, lay_out, value_curve
from headway.engines.hf import HFEngine
from headway.engines.scripted import CLOSE, ScriptedEngine
from headway.problems.graders import InPlace, exact
from headway.procedures.prove import Prover
from headway.procedures.sample import Sampling, make_trace, sample
from headway.text.prompts import meta_prover
from headway.text.tags import ThinkTags
from headway.types import Branch, Completion, HeadwayError, MetaProver, Problem, Score

TAGS = ThinkTags("<think>", CLOSE)
GRADER = InPlace(exact)
PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(6)]
BY_ID = {p.id: p for p in PROBLEMS}
TRUTH = {p.id: [0.1 * i, 0.5, 0.2 + 0.1 * i, 1 - 0.1 * i] for i, p in enumerate(PROBLEMS)}
ENGINE = ScriptedEngine(PROBLEMS, TRUTH)
META_PROVER = meta_prover(TAGS, branches=4, max_tokens=16)


def segmenter(trace):
    return to_tokens(by_markers(trace.thought), trace.offsets[: trace.thinking])


@pytest.fixture(scope="module")
def traces():
    return [t for c in sample(ENGINE, PROBLEMS, GRADER, TAGS, Sampling(2, 99, 40)) for t in c]


def prover(meta_prover=META_PROVER, *, engine=ENGINE, grader=GRADER):
    return Prover(engine, meta_prover, BY_ID, grader=grader, segmenter=segmenter)


def curves(kind, traces, *, seed=0, **options):
    return prover(**options).curves(kind, traces, seed=seed)


def tally(trace, **records):
    return lay_out((trace.problem_id, trace.index), boundaries(segmenter(trace)), **{"branches": [], **records})


def test_a_likelihood_is_the_truth(traces):
    found, branches, scores = curves("likelihood", traces)
    assert branches == [] and len(scores) == sum(len(c.boundaries) for c in found)
    for trace, curve in zip(traces, found, strict=True):
        assert curve.values.values == pytest.approx(TRUTH[trace.problem_id][: len(curve.boundaries)])
        assert not curve.values.stderr.any()
        # thought, forced text, the answer's tokens and its end
        end = META_PROVER.end_suffix if trace.closed else META_PROVER.suffix
        assert curve.tokens[-1] == trace.thinking + len(end) + len(BY_ID[trace.problem_id].answer) + 1
    assert known_share(found, scores) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["distinct", "hybrid"])
def test_other_kinds_are_the_truth_on_average(kind, traces):
    tries = [curves(kind, traces, seed=s)[0] for s in range(60)]
    for i, trace in enumerate(traces):
        values = np.array([found[i].values.values for found in tries])
        truth = np.array(TRUTH[trace.problem_id][: values.shape[1]])
        # one right answer: p / pi with chance pi = 1 - (1 - p)^4, else 0
        missed = (1 - truth) ** META_PROVER.branches
        error = truth * np.sqrt(missed / (1 - missed + 1e-300) / len(tries)) + 1e-9
        assert (np.abs(values.mean(axis=0) - truth) <= 4.5 * error).all()
        if kind == "hybrid":  # the script writes right answers in one form: nothing is left to sample
            assert values == pytest.approx(np.tile(truth, (len(tries), 1)))


def test_distinct_values_vary_less_than_the_mean_of_branches(traces):
    spread = {
        kind: np.mean(
            [np.concatenate([c.values.values for c in curves(kind, traces, seed=s)[0]]) for s in range(40)], axis=0
        )
        for kind in ("branches", "distinct")
    }
    assert np.abs(spread["branches"] - spread["distinct"]).max() < 0.3  # they estimate the same
    variance = {
        kind: np.var(
            [np.concatenate([c.values.values for c in curves(kind, traces, seed=s)[0]]) for s in range(40)], axis=0
        ).mean()
        for kind in ("branches", "distinct")
    }
    assert variance["distinct"] < 0.5 * variance["branches"]


def test_a_resumed_scoring_equals_one_that_was_never_stopped(traces):
    whole = [s for c in prover().score(traces, traces_at_once=5) for s in c]
    for kept in (whole[:1], whole[:23], whole):
        done = {((s.problem_id, s.index), s.boundary) for s in kept}
        rest = prover().score(traces, traces_at_once=5, done=done)
        assert kept + [s for c in rest for s in c] == whole


def test_a_problem_without_a_known_form_has_no_likelihood_and_its_hybrid_is_distinct(traces):
    grader = InPlace(exact, candidates=lambda problem: [])
    nothing = prover(grader=grader)
    found, _, scores = nothing.curves("likelihood", traces, seed=0)
    assert all(s.probability is None and s.forms == 0 for s in scores)
    assert all(np.isnan(c.values.values).all() and np.isnan(c.values.stderr).all() for c in found)
    hybrid, distinct = (nothing.curves(kind, traces, seed=0)[0] for kind in ("hybrid", "distinct"))
    for a, b in zip(hybrid, distinct, strict=True):
        assert a.values.values.tolist() == b.values.values.tolist()


def test_a_trace_without_a_thought_has_one_boundary():
    completion = Completion(tuple(map(ord, CLOSE + "\n\n\\boxed{0}")), "stop")
    prompt = tuple(map(ord, ENGINE.tokenizer.chat_template.format(content=PROBLEMS[0].prompt)))
    trace = make_trace(ENGINE.tokenizer, "p0", 0, prompt, completion, TAGS)
    [curve], _, [one] = curves("likelihood", [trace])
    assert curve.boundaries == [0] and one.probability == TRUTH["p0"][0]


def test_what_cannot_be_scored_is_refused(traces):
    class Samples:
        tokenizer = ENGINE.tokenizer
        sample = ENGINE.sample

    with pytest.raises(HeadwayError, match="cannot evaluate given answers"):
        next(prover(engine=Samples()).score(traces))
    narrow = MetaProver(suffix=META_PROVER.suffix, end_suffix=META_PROVER.end_suffix, top_p=0.9)
    with pytest.raises(HeadwayError, match="top-p 1"):
        curves("likelihood", traces, meta_prover=narrow)
    unknown = Branch("p0", 0, 0, 0, "0}", 20, 2, "0", 1.0)
    with pytest.raises(HeadwayError, match="has no probability"):
        value_curve(tally(traces[0], branches=[unknown]), "distinct")
    with pytest.raises(ValueError, match="does not fit trace p0/0"):
        tally(traces[0], scores=[Score("p1", 0, 0, 9, 1, 0.5)])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_hybrid_and_likelihood_fit_the_branches_of_a_real_model(kind):
    """An untrained model writes anything; one-character answers it writes often enough to count."""
    engine = HFEngine(tiny.model(kind, seed=4), tiny.tokenizer())
    problems = {"p": Problem("p", "2+2", "4")}
    grader = InPlace(lambda answer, reference: len(answer) == 1, candidates=lambda p: [chr(c) for c in range(40, 100)])
    meta_prover = MetaProver(suffix="</think>\\boxed{", end_suffix="</think>\\boxed{", branches=3000, max_tokens=3)
    prompt = tuple(engine.tokenizer.encode("<user>2+2<assistant><think>", add_special_tokens=False))
    thought = tuple(np.random.default_rng(0).integers(10, 60, size=12).tolist())
    trace = make_trace(engine.tokenizer, "p", 0, prompt, Completion(thought, "length"), ThinkTags("", "</think>"))

    def grid(t):
        return by_tokens(t.thinking, size=6)

    characters = Prover(engine, meta_prover, problems, grader=grader, segmenter=grid)
    [plain], branches, _ = characters.curves("branches", [trace], seed=1)
    [hybrid], marked, scores = characters.curves("hybrid", [trace], seed=1)
    assert 0 < sum(b.known for b in marked) < sum(b.reward == 1 for b in branches)
    error = 4.5 * plain.values.stderr
    assert (np.abs(hybrid.values.values - plain.values.values) < error).all()
    assert (plain.values.values > 0.02).all() and (hybrid.values.stderr < 0.9 * plain.values.stderr).all()
    # known forms alone: their own share of the branches
    for one in scores:
        rewards = np.array([b.known for b in marked if b.boundary == one.boundary], dtype=float)
        assert abs(rewards.mean() - one.probability) < 4.5 * np.sqrt(one.probability / len(rewards))


@pytest.mark.parametrize("values", ["distinct", "likelihood", "hybrid"])
def test_measuring_with_every_kind_of_value(values, tmp_path, monkeypatch, capsys):
    def headway(*arguments):
        monkeypatch.setattr("sys.argv", ["headway", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), capsys.readouterr()

    out = tmp_path / "run"
    flags = ("--model", "scripted", "--limit", "4", "--traces", "2", "--values", values, "--out", str(out))
    headway("measure", *flags)
    report = json.loads((out / "report.json").read_text())
    assert report["values"]["kind"] == values
    assert report["values"].get("known_share") == (None if values == "distinct" else pytest.approx(1, abs=0.35))
    assert (out / "scores.jsonl").exists() == (values != "distinct")
    assert (out / "branches.jsonl").exists() == (values != "likelihood")
    if values == "likelihood":
        assert report["branches"]["branches"] == 0 and "mean_gap" not in report["values"]
    else:
        gap = report["values"]["mean_gap"]
        assert abs(gap["value"]) < 5 * gap["stderr"] and gap["n"] == 8 * 7
    before = (out / "report.json").read_text()
    headway("measure", *flags)  # all is there: nothing is made again
    assert (out / "report.json").read_text() == before


def test_branches_keep_the_tokens_they_were_sampled_as(traces):
    [branches] = prover().draw(traces[:1])
    assert all(ENGINE.tokenizer.decode(b.token_ids, skip_special_tokens=True) == b.text for b in branches)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_all_kinds_come_from_one_tally_and_name_what_they_need(kind, traces):
    _, branches, scores = curves("hybrid", traces[:1])
    whole = tally(traces[0], branches=branches, scores=scores)
    assert not np.isnan(value_curve(whole, kind).values.values).any()
    given = {"branches": branches, "scores": scores}
    some = tally(traces[0], **{need: given[need] for need in ESTIMATORS[kind].needs if need in given})
    for a, b in zip(value_curve(some, kind).values, value_curve(whole, kind).values, strict=True):
        assert np.array_equal(a, b)
    for need in ESTIMATORS[kind].needs & given.keys():
        less = tally(traces[0], **{**given, need: []})
        assert np.isnan(value_curve(less, kind).values.values).all()
