"""The study: its configuration, its plan, cells that resume, and its numbers against hand numbers."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from headway.report.numbers.study import table
from headway.report.numbers.study_cell import pack, training, unpack
from headway.report.page.study_page import BEGIN, END, Rows, generated, put_between
from headway.runs.study.cell import PACKAGES, Cell, is_running, last_checkpoint, locked, read_json, write_json
from headway.runs.study.config import laid_over, read_study
from headway.runs.study.plan import Plan
from headway.runs.study.schedule import StudyRun
from headway.types import HeadwayError

ROOT = Path(__file__).parent.parent
PART = {"limit": 6, "traces": 2}
SETTING = {"start": "scripted", "test": "countdown", "validation": "countdown-validation", "train": {"lr": 1}}


def config(folder: Path, **over: Any) -> Path:
    """The file of a small study in a folder, with parts laid over."""
    whole = {
        "results": str(folder / "results"), "work": str(folder / "work"), "page": str(folder / "study.md"),
        "seeds": [1, 2], "budget": 192, "answer_tokens": 16, "multiples": [1, 2], "grid_tokens": 64,
        "curves": PART, "votes": {"limit": 4, "traces": 4}, "also": PART, "validation": PART,
        "train": {"max_steps": 2, "shared": True},
        "settings": {"one": SETTING | {"also": "countdown-hard"}},
        "methods": {"grpo": {"train": {"credit": "grpo"}}, "to_go": {"train": {"credit": "to_go"}, "label": "To go"}},
    }  # fmt: skip
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(laid_over(whole, over)))
    return file


def study_of(folder: Path, **over: Any) -> StudyRun:
    return StudyRun(read_study(config(folder, **over)), ["headway", "study"])


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"sedes": [1]}, "got 'sedes'; did you mean 'seeds'"),
        ({"methods": {"grpo": {"tran": {}}}}, "methods, grpo: option must be .* did you mean 'train'"),
        ({"settings": {"one": {"strat": "x"}}}, "settings, one: option must be .* did you mean 'start'"),
        ({"settings": {"one": {"start": {"model": "m", "method": "grpo", "sead": 1}}}}, "did you mean 'seed'"),
        ({"tuning": {"seeds": [1], "gird": {}}}, "tuning: option must be .* did you mean 'grid'"),
        ({"curves": {"limit": "many"}}, "expected `int`, got `str`"),
        ({"seeds": [1, 1]}, "seeds must be different numbers"),
        ({"baseline": "grop"}, "baseline must be one of grpo, to_go; got 'grop'; did you mean 'grpo'"),
        ({"settings": {"one": {"tuned_on": "two"}}}, "tuned_on must be one of one"),
        ({"methods": {"grpo": {"settings": ["none"]}}}, "settings of grpo must be one of one"),
        ({"methods": {"grpo": {"knob": {"a": [1], "b": [2]}}}}, "knob of grpo must be one option"),
        ({"methods": {"grpo": {"of": "to_go"}}}, "an ablation, and nothing else, needs 'of'"),
        ({"ablations": {"less": {"train": {}}}}, "an ablation, and nothing else, needs 'of'"),
        ({"ablations": {"grpo": {"train": {}, "of": "to_go"}}}, "different names, got grpo in both"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path: Path, over: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadwayError, match=message):
        read_study(config(tmp_path, **over))


def test_missing_and_broken_files_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="cannot read the study"):
        read_study(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(HeadwayError, match="cannot read the study"):
        read_study(tmp_path / "bad.yaml")
    with pytest.raises(HeadwayError, match="has no part 'small'"):
        read_study(config(tmp_path), small=True)


def test_the_small_version_lies_over_the_whole(tmp_path: Path) -> None:
    file = config(tmp_path, small={"seeds": [7], "train": {"max_steps": 1}, "methods": {"to_go": None}})
    small = read_study(file, small=True)
    assert (small.seeds, small.train, list(small.methods)) == ([7], {"max_steps": 1, "shared": True}, ["grpo"])
    assert read_study(file).seeds == [1, 2]


@pytest.mark.parametrize("small", [False, True])
def test_the_study_of_the_repository_can_be_read(small: bool) -> None:
    study = read_study(ROOT / "recipes/study/study.yaml", small=small)
    assert set(study.settings) == {"builtin", "levelled", "hard"} and study.baseline in study.methods
    assert Plan(study, {}).jobs


# -- plan -------------------------------------------------------------------------------------------------------------

TUNED: dict[str, Any] = {
    "tuning": {"seeds": [101], "grid": {"learning_rate": [1, 2]}, "train": {"max_steps": 1}},
    "methods": {"grpo": {"knob": {"beta": [0, 9]}}},
    "ablations": {"half": {"of": "to_go", "train": {"weight": 0.5}, "seeds": 1}},
    "settings": {
        "two": SETTING | {"tuned_on": "one", "start": {"model": "m", "method": "grpo", "seed": 5, "train": {"x": 1}}}
    },
}


def test_the_plan_has_every_cell_and_what_it_needs(tmp_path: Path) -> None:
    study = read_study(config(tmp_path, **TUNED))
    jobs = Plan(study, {}).jobs
    grid = [f"one/grpo@learning_rate={r},beta={b}/101" for r in (1, 2) for b in (0, 9)]
    assert [n for n, job in jobs.items() if job.kind == "tuning" and job.method == "grpo"] == grid
    assert next(iter(jobs)) == "two/model/5"
    assert {n for n, job in jobs.items() if job.kind == "cell"} == {
        *(f"{s}/{m}/{seed}" for s in ("one", "two") for m in ("grpo", "to_go") for seed in (1, 2)), "one/half/1",
    }  # fmt: skip
    assert jobs["one/grpo/1"].needs == tuple(grid)
    assert jobs["two/grpo/2"].needs == ("two/model/5", *grid)
    assert jobs["one/half/1"].needs == jobs["one/to_go/1"].needs
    assert jobs["two/start/1"].needs == ("two/model/5",) and jobs["two/start/1"].train is None
    # cells of one seed come before those of the next
    cells = [job.seed for job in jobs.values() if job.kind == "cell"]
    assert cells == sorted(cells)


def test_later_options_win_and_a_choice_wins_over_the_methods_own(tmp_path: Path) -> None:
    study = read_study(config(tmp_path, **TUNED))
    jobs = Plan(study, {("one", "grpo"): {"beta": 9, "max_steps": 4}, ("one", "to_go"): {"weight": 3}}).jobs
    assert jobs["one/grpo/1"].train == {"max_steps": 4, "shared": True, "lr": 1, "credit": "grpo", "beta": 9}
    assert jobs["one/grpo/1"].needs == () and jobs["two/grpo/1"].train == jobs["one/grpo/1"].train
    assert jobs["one/to_go/1"].train is not None and jobs["one/to_go/1"].train["weight"] == 3
    assert jobs["one/half/1"].train is not None and jobs["one/half/1"].train["weight"] == 0.5
    assert jobs["two/model/5"].train == {"max_steps": 2, "shared": True, "credit": "grpo", "x": 1}
    assert jobs["two/to_go/1"].asked["origin"]["train"]["x"] == 1  # a start made otherwise makes other cells


def test_a_method_of_one_setting_is_tuned_where_that_setting_says(tmp_path: Path) -> None:
    over = TUNED | {"methods": {"late": {"train": {}, "settings": ["two"]}}}
    jobs = Plan(read_study(config(tmp_path, **over)), {}).jobs
    tuning = ("one/late@learning_rate=1/101", "one/late@learning_rate=2/101")
    assert jobs["two/late/1"].needs == ("two/model/5", *tuning) and set(tuning) <= set(jobs)


def test_patterns_select_cells_and_what_those_need(tmp_path: Path) -> None:
    plan = Plan(read_study(config(tmp_path, **TUNED)), {("one", "grpo"): {}, ("one", "to_go"): {}})
    assert [job.name for job in plan.selected(["two/grpo/*"])] == ["two/model/5", "two/grpo/1", "two/grpo/2"]
    with pytest.raises(HeadwayError, match="no cell fits three"):
        plan.selected(["three/*"])


# -- results, choices and states --------------------------------------------------------------------------------------


def put_result(run: StudyRun, name: str, tests: dict[str, Any]) -> None:
    job = run.plan().jobs[name]
    cost = {"seconds": {"train": {"wall": 120.0, "cpu": 60.0}}}
    write_json(run.result(job), {**job.asked, "point": job.point, "cost": cost, "tests": tests})


def test_the_best_point_is_frozen_once_all_of_the_grid_is_done(tmp_path: Path) -> None:
    run = study_of(tmp_path, tuning={"seeds": [101, 102], "grid": {"learning_rate": [1, 2]}})
    success = {1: (0.2, 0.6), 2: (0.5, 0.5)}
    for rate, of_seeds in success.items():
        for seed, mean in zip((101, 102), of_seeds, strict=True):
            assert ("one", "grpo") not in run.plan().choices
            validation = {"validation": {"success": {"192": pack([mean] * 4)}}}
            put_result(run, f"one/grpo@learning_rate={rate}/{seed}", validation)
    assert run.plan().choices[("one", "grpo")] == {"learning_rate": 2}
    frozen = read_json(tmp_path / "results/tuning/one-grpo.json")
    assert [(row["point"], row["mean"]) for row in frozen["tried"]] == [
        ({"learning_rate": 1}, pytest.approx(0.4)), ({"learning_rate": 2}, pytest.approx(0.5)),
    ]  # fmt: skip
    assert run.plan().jobs["one/grpo/1"].train == {"max_steps": 2, "shared": True, "lr": 1, "credit": "grpo"} | {
        "learning_rate": 2
    }


def test_a_choice_that_is_no_longer_in_the_grid_does_not_count(tmp_path: Path) -> None:
    write_json(tmp_path / "results/tuning/one-grpo.json", {"chosen": {"learning_rate": 2}})
    tuning = {"seeds": [101], "grid": {"learning_rate": [1, 2]}}
    assert study_of(tmp_path, tuning=tuning).plan().choices == {("one", "grpo"): {"learning_rate": 2}}
    assert study_of(tmp_path, tuning=tuning | {"grid": {"learning_rate": [1, 3]}}).plan().choices == {}
    assert study_of(tmp_path).plan().choices == {}


def test_a_result_of_other_options_is_outdated(tmp_path: Path) -> None:
    run = study_of(tmp_path)
    put_result(run, "one/grpo/1", {})
    job = run.plan().jobs["one/grpo/1"]
    assert run.standing(job)[1:] == ("done", 2.0)
    changed = study_of(tmp_path, train={"max_steps": 3})
    assert changed.standing(changed.plan().jobs["one/grpo/1"]).state == "outdated"
    assert changed.content(changed.plan().jobs["one/grpo/1"]) is None
    assert run.standing(run.plan().jobs["one/grpo/2"]).state == "missing"


def test_a_locked_cell_is_running_and_refuses_a_second_process(tmp_path: Path) -> None:
    run = study_of(tmp_path)
    job = run.plan().jobs["one/start/1"]
    folder = tmp_path / "work/one/start/1"
    folder.mkdir(parents=True)
    with locked(folder):
        assert is_running(folder) and run.standing(job).state == "running"
        with pytest.raises(HeadwayError, match="in use by another process"):
            run.run_one("one/start/1")
    assert not is_running(folder)


def test_a_cell_waits_for_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match="two/grpo/1 needs two/model/5"):
        study_of(tmp_path, settings=TUNED["settings"]).run_one("two/grpo/1")


# -- cells ------------------------------------------------------------------------------------------------------------


def cut_in_half(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])


def test_a_stopped_cell_ends_in_the_result_of_one_that_was_not(tmp_path: Path) -> None:
    run = study_of(tmp_path)
    run.run_one("one/start/1")
    file, work = tmp_path / "results/cells/one/start/1.json", tmp_path / "work/one/start/1"
    whole = read_json(file)
    assert set(whole["tests"]) == {"curves", "votes", "also"}
    file.unlink()
    shutil.rmtree(work / "also")
    for name in ("curves/scores.jsonl", "votes/traces.jsonl"):  # as a kill leaves them
        cut_in_half(work / name)
    run.run_one("one/start/1")
    again = read_json(file)
    assert again["tests"] == whole["tests"]
    spent = {stage: times["wall"] for stage, times in again["cost"]["seconds"].items()}
    assert all(spent[stage] >= times["wall"] for stage, times in whole["cost"]["seconds"].items())


def test_a_cell_asked_for_something_else_starts_anew(tmp_path: Path) -> None:
    study_of(tmp_path).run_one("one/start/1")
    made = tmp_path / "work/one/start/1/curves/traces.jsonl"
    before = made.read_bytes()
    study_of(tmp_path, curves={"limit": 3, "traces": 1}).run_one("one/start/1")
    assert 0 < len(made.read_bytes()) < len(before)


@pytest.mark.extras
def test_the_scheduler_runs_cells_in_processes_of_their_own_and_names_those_that_fail(tmp_path: Path) -> None:
    file = config(tmp_path, settings={"bad": SETTING | {"start": str(tmp_path / "no-model")}})
    run = StudyRun(read_study(file), ["headway", "study", "--config", str(file)])
    told: list[str] = []
    with pytest.raises(HeadwayError, match=r"1 cells failed, see their logs: bad/start/1 \(.*log.txt\)"):
        run.run(["*/start/1"], 2, told.append)
    assert run.standing(run.plan().jobs["one/start/1"]).state == "done"
    assert "cannot load the model" in (tmp_path / "work/bad/start/1/log.txt").read_text()
    assert "one/start/1: done" in told


def test_the_last_whole_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, '{"log'), (100, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert [c.name for c in tmp_path.iterdir()] == ["checkpoint-9"]


def test_a_cells_file_holds_seeds_versions_and_numbers_in_little_space(tmp_path: Path) -> None:
    run = study_of(tmp_path)
    Cell(run.study, run.plan().jobs["one/start/2"], tmp_path / "r.json", "the command").run()
    content = read_json(tmp_path / "r.json")
    assert content["command"] == "the command" and content["seed"] == 2
    installed = {name for name in PACKAGES if find_spec(name)}
    assert set(content["versions"]) - {"commit"} == {"headway", "python", "machine"} | installed
    curves = content["tests"]["curves"]
    assert {len(unpack(x)) for part in ("success", "accuracy", "regret") for x in curves[part].values()} == {6}
    assert list(curves["accuracy"]) == ["208", "400"]
    # 500 problems at four budgets are three rows of 1000 characters each
    assert len(pack(np.linspace(0, 1, 500))) == 1000


def test_packing_keeps_a_fraction_to_a_quarter_of_a_percent() -> None:
    x = np.array([0.0, 1.0, 0.25, 1 / 3, np.nan])
    assert unpack(pack(x)) == pytest.approx(x, abs=0.0021, nan_ok=True)
    assert unpack(pack([0.0, 0.5, 1.0])).tolist() == [0.0, 0.5, 1.0]


def test_a_training_log_is_binned_and_missing_stays_missing() -> None:
    log = [{"step": i + 1, "loss": 0.0, "reward": i, "mrt/x": float("nan"), "unknown": 1} for i in range(32)]
    made = training([*log, {"step": 32, "train_runtime": 1.0}])
    assert made["step"] == list(range(2, 33, 2)) and made["reward"][0] == 0.5 and made["reward"][-1] == 30.5
    assert made["mrt/x"] == [None] * 16 and "unknown" not in made and "train_runtime" not in made
    assert training([]) == {"step": []}


# -- numbers ----------------------------------------------------------------------------------------------------------


def cell_with(success: list[float], *, maj: list[float], tokens: int = 10) -> dict[str, Any]:
    rows = {"192": pack(success)}
    counts = {"steps": 10, "right_steps": 9, "claims": 4, "false_claims": 1}
    n = len(success)
    curve = {"budget": [100], "accuracy": [0.5], "regret": [0.5]}
    votes = {"k": [1, 2], "pass_at": {"1": pack(success), "2": pack(success)}, "tokens": [tokens] * n}
    votes["maj_at"] = {str(k + 1): pack([m] * n) for k, m in enumerate(maj)}
    cost = {"steps": 3, "generated_tokens": 1000, "computed_tokens": None, "step_seconds": 90.0}
    return {
        "tests": {
            "curves": {"success": rows, "accuracy": {"208": pack(success)}, "regret": {"208": pack(success)}}
            | counts | {"tokens": 50.0, "mean_curve": curve},
            "votes": votes,
        },
        "cost": cost, "training": {"step": []},
    }  # fmt: skip


CELLS = {
    "one": {
        "start": {1: cell_with([0.0, 0.2, 0.4, 0.2], maj=[0.2, 0.3])},
        "grpo": {s: cell_with([0.1, 0.3, 0.5, 0.3 + s / 10], maj=[0.3, 0.4]) for s in (1, 2)},
        "to_go": {s: cell_with([0.2, 0.4, 0.6, 0.4 + s / 5], maj=[0.4, 0.5], tokens=5) for s in (2, 1)},
    }
}


def test_gains_differences_and_ratios_by_hand() -> None:
    made = table(CELLS, budget=192, baseline="grpo")
    rows = {(r["method"], r["quantity"]): r for r in made["rows"]}
    grpo, to_go = rows["grpo", "pass_at_1"], rows["to_go", "pass_at_1"]
    assert grpo["value"] == pytest.approx((0.1 + 0.3 + 0.5 + 0.45) / 4, abs=0.002)
    assert grpo["gain"]["value"] == pytest.approx((0.1 * 3 + 0.25) / 4, abs=0.002)
    assert to_go["gain"]["value"] == pytest.approx(2 * grpo["gain"]["value"], abs=1e-5)
    assert to_go["against_baseline"]["difference"]["value"] == pytest.approx(grpo["gain"]["value"], abs=1e-5)
    assert to_go["against_baseline"]["ratio"]["value"] == pytest.approx(2, abs=1e-4)
    assert (to_go["n_seeds"], to_go["n_problems"]) == (2, 4)
    assert "against_baseline" not in grpo and "gain" not in rows["start", "pass_at_1"]
    other = table(CELLS, budget=192, baseline="grpo", reference="to_go")["rows"]
    [record] = [r for r in other if (r["method"], r["quantity"]) == ("grpo", "pass_at_1")]
    assert record["against_reference"]["ratio"]["value"] == pytest.approx(0.5, abs=1e-4)
    # 0.4, the most that both reach, costs one trace of 5 tokens against two of 10
    assert rows["to_go", "tokens_at_equal_maj"]["value"] == pytest.approx(5 / 20)
    assert rows["grpo", "arithmetic"]["value"] == 0.9 and rows["grpo", "false_claims"]["value"] == 0.25
    assert rows["grpo", "computed_tokens"]["value"] is None and rows["grpo", "minutes"]["value"] == 1.5
    assert json.loads(json.dumps(made)) == made


def test_the_page_has_a_line_a_method_with_its_seeds_and_keeps_its_prose() -> None:
    rows = Rows(table(CELLS, budget=192, baseline="grpo"), {"grpo": "GRPO", "to_go": "To go"})
    made = generated(rows, [("A figure", "a.svg")], "3 of 9 cells are done.")
    line = next(line for line in made.splitlines() if line.startswith("| To go"))
    assert "2, 4" in line and "2.00" in line
    page = put_between(f"# Title\n\nwords\n\n{BEGIN}\nold\n{END}\n\nafter\n", made)
    assert page.startswith("# Title\n\nwords\n\n") and page.endswith("\n\nafter\n") and "old" not in page
    assert put_between(page, made) == page
    with pytest.raises(HeadwayError, match="each once and in this order"):
        put_between("no markers", made)
