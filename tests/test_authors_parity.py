"""Headway's parity options against what a plain re-telling of the authors' rules says (tests/fixtures)."""

import itertools
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from headway.core.regret import authors_budget, episode_regret, normalized_regret
from headway.core.votes import NO_VOTE, logprob_weights, weighted_maj
from headway.report.numbers.parity import BLOCK, as_authors
from headway.report.numbers.table import run_table
from headway.types import Branch, Episode, Trace

FIXTURE = Path(__file__).parent / "fixtures" / "authors_parity.json"
STORED = json.loads(FIXTURE.read_text())
BUDGETS = np.array(STORED["budgets"], dtype=float)
CLASSES = {None: NO_VOTE, "7": 0, "8": 1, "9": 2}


def columns(block, name):
    return np.array([a[name] for a in block["answers"]], dtype=float)


def majority(block, p):
    classes = np.array([CLASSES[a["text"]] for a in block["answers"]])
    weights = logprob_weights(columns(block, "logprob"), columns(block, "tokens"))
    return weighted_maj(classes, columns(block, "right") > 0, weights, p, ties="half")


def test_the_stored_values_are_what_their_script_makes():
    assert runpy.run_path(str(FIXTURE.with_suffix(".py")))["main"]() == FIXTURE.read_text()


@pytest.mark.parametrize("trace", STORED["traces"], ids=lambda t: f"{t['problem']}/{t['index']}")
def test_regret_and_votes_of_each_trace(trace):
    blocks = trace["blocks"]
    sampled = np.array([columns(b, "tokens").mean() for b in blocks])
    ours = np.array([float(b["prefix"] + b["suffix"]) for b in blocks]) + sampled
    x = authors_budget(np.full(len(blocks), float(trace["prompt"])), ours, sampled)
    values = np.array([columns(b, "right").mean() for b in blocks])
    assert normalized_regret(x, values, BUDGETS, kind="linear") == pytest.approx(trace["regret"])
    votes = np.array([[majority(b, p) for p in (1, 2, 4, 8)] for b in blocks])
    assert votes == pytest.approx(np.array(trace["maj"]))
    assert votes[:, 0] == pytest.approx(values)  # one answer votes for itself
    assert episode_regret(votes) == pytest.approx(np.array(trace["episode_regret"], dtype=float), nan_ok=True)


def as_run():
    """The stored tables as a run: each block of the table is a block of five episodes, whose inner boundaries have no
    branches."""
    traces, cuts, costs, branches, classes = [], {}, {}, [], []
    for t in STORED["traces"]:
        blocks = t["blocks"]
        ends = [b["prefix"] for b in blocks]
        inner = [np.linspace(a, b, BLOCK, endpoint=False).astype(int) for a, b in itertools.pairwise(ends)]
        boundaries = [*np.concatenate(inner).tolist(), ends[-1]]
        ids = tuple(range(ends[-1]))
        traces.append(
            Trace(t["problem"], t["index"], (0,) * t["prompt"], ids, "x" * len(ids), ids, len(ids), True, "stop")
        )
        cuts[traces[-1].name] = [Episode(a, b) for a, b in itertools.pairwise(boundaries)]
        costs[t["problem"], t["index"]] = tokens = np.full(len(boundaries), np.nan)
        for k, block in enumerate(blocks):
            fixed = block["prefix"] + block["suffix"]
            tokens[BLOCK * k] = fixed + columns(block, "tokens").mean()  # their answers differ in length by boundary
            for i, a in enumerate(block["answers"]):
                branches.append(
                    Branch(
                        t["problem"], t["index"], BLOCK * k, i, "", fixed + a["tokens"], a["tokens"], a["text"],
                        float(a["right"]), a["logprob"],
                    )
                )  # fmt: skip
                classes.append(CLASSES[a["text"]])
    classes = [NO_VOTE] * len(traces) + classes
    made = run_table(traces, branches, lambda trace: cuts[trace.name], classify=lambda answers: classes)
    keys = zip(made.problems, made.indices, made.curves, strict=True)
    return made._replace(curves=[curve._replace(tokens=costs[problem, index]) for problem, index, curve in keys])


def test_the_reports_authors_entries_are_their_numbers():
    entries = as_authors(as_run(), budget=1024)
    regret = {r["budget"]: r for r in entries["normalized_regret"]}
    found = [regret[b]["value"] for b in STORED["budgets"]]
    assert found == pytest.approx(STORED["regret"])
    assert regret[1024]["n"] == 8 and regret[1024]["n_problems"] == 4

    by_blocks = {len(t["blocks"]) - 1 for t in STORED["traces"]}
    for blocks in by_blocks:
        members = [t for t in STORED["traces"] if len(t["blocks"]) - 1 == blocks]
        for p, column in zip((1, 2, 4, 8), range(4), strict=True):
            for block in range(blocks + 1):
                [r] = [
                    r for r in entries["maj_by_episode"]
                    if (r["blocks"], r["branches"], r["block"]) == (blocks, p, block)
                ]  # fmt: skip
                assert r["value"] == pytest.approx(np.mean([t["maj"][block][column] for t in members]))
                assert r["episodes"] == 5 * block + {1: 0, 2: 1, 4: 3, 8: 7}[p]

    first = [t["episode_regret"][0] for t in STORED["traces"]]
    known = [r for r in first if r is not None]
    assert entries["episode_regret"][0]["value"] == pytest.approx(np.mean(known))
    assert [r["episodes"] for r in entries["episode_regret"]] == [6, 11, 16, 21, 26, 31]


def test_halving_the_answer_and_counting_the_prompt_is_the_difference():
    # 30 tokens of prompt, a budget of ours of 100 of which the answer is 8
    assert authors_budget(np.array([30.0]), np.array([100.0]), np.array([8.0])).tolist() == [126.0]
