"""Data sets of the hub. No hub is needed: `datasets` takes a folder of that name first, and reads it the same way."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headway.problems import Columns, load_problems
from headway.problems.hub import BOXED, PRESETS, HubSet
from headway.types import HeadwayError, Problem

Rows = list[dict[str, Any]]
ROWS: Rows = [{"problem": f"{n} + 1?", "answer": str(n + 1), "level": [n]} for n in range(3)]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which data sets can be put under the names that they have on the hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(source: HubSet, rows: Rows, *, config: str = "default", form: str = "parquet") -> None:
    """A data set as the hub keeps them: a README that says which files are which configuration and split."""
    folder, split = Path(source.name), source.split or "test"
    folder.mkdir(parents=True, exist_ok=True)
    config = source.config or config
    file = f"{config}-{split}.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / file)
    else:
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = sorted(path for path in folder.iterdir() if path.suffix == f".{form}")
    configs = [
        {"config_name": config, "data_files": [{"split": p.stem.split("-")[1], "path": p.name} for p in group]}
        for config, group in itertools.groupby(files, lambda path: path.stem.split("-")[0])
    ]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a/b", ("a/b", None, None)),
        ("a/b:main", ("a/b", "main", None)),
        ("a/b@test", ("a/b", None, "test")),
        ("a/b:main@train[:10]", None),
        ("a/b:main@train", ("a/b", "main", "train")),
        ("./folder", ("./folder", None, None)),
        ("", None),
        ("a/b@", None),
        ("a/b:@test", None),
    ],
)
def test_what_a_hub_spec_names(spec: str, parts: tuple[str, str | None, str | None] | None) -> None:
    if parts is None:
        with pytest.raises(HeadwayError, match=r"expected hub:owner/name, :config and @split"):
            HubSet.parse(spec)
    else:
        assert HubSet.parse(spec) == parts
        assert str(HubSet.parse(spec)) == spec


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_data_set_by_name(form: str) -> None:
    put(HubSet("me/sums"), ROWS, form=form)
    made = load_problems("hub:me/sums", columns=Columns("problem"), limit=2)
    assert made.problems == [Problem("0", "0 + 1?", "1"), Problem("1", "1 + 1?", "2")]
    assert (made.name, made.grader) == ("me/sums", "math-verify")


def test_configurations_and_splits() -> None:
    for config, split, n in (("easy", "train", 1), ("easy", "test", 2), ("hard", "test", 3)):
        put(HubSet("me/sums", config, split), ROWS[:n])
    columns = Columns("problem")

    def size(spec: str) -> int:
        return len(load_problems(f"hub:{spec}", columns=columns).problems)

    assert [size("me/sums:easy@train"), size("me/sums:easy@test"), size("me/sums:hard")] == [1, 2, 3]
    with pytest.raises(HeadwayError, match=r"has the splits test, train; say which, e.g. hub:me/sums:easy@test"):
        size("me/sums:easy")
    for spec, says in (("me/sums", "easy"), ("me/sums:odd", "odd"), ("me/sums:easy@dev", "dev")):
        with pytest.raises(HeadwayError, match=rf"cannot load the data set '{spec}': .*{says}"):
            size(spec)


def test_columns_are_found_or_asked_for_with_what_there_is() -> None:
    put(HubSet("me/sums"), ROWS)
    assert load_problems("hub:me/sums", limit=1).problems == [Problem("0", "0 + 1?", "1")]
    with pytest.raises(HeadwayError) as error:
        load_problems("hub:me/sums", columns=Columns("task", id="nr"))
    for said in ("'me/sums'", "no column 'task'", "no column 'nr'", "problem, answer, level", "--prompt-column"):
        assert said in str(error.value)


def test_a_hub_out_of_reach_is_one_clear_message(hub: Path) -> None:
    """In a process of its own, which is told not to look for a network."""
    script = (
        "from headway.problems import load_problems\n"
        "from headway.types import HeadwayError\n"
        "try: load_problems('gsm8k')\n"
        "except HeadwayError as error: print(error)"
    )
    source = str(Path(__file__).parent.parent / "src")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(hub), "PYTHONPATH": source}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    for said in ("cannot load the data set 'openai/gsm8k:main@test'", "HF_HOME", "needs no hub"):
        assert said in ran.stdout


# -- known sets -------------------------------------------------------------------------------------------------------


def rows_of(name: str) -> Rows:
    """As many rows as the set has, of its columns and types."""
    columns = PRESETS[name].columns
    answers: dict[str, Any] = {"gsm8k": "2 * 640 = <<2*640=1280>>1280\n#### 1,280", "amc": 1280.0}
    return [
        {columns.prompt: f"What is {n}?", "answer": answers.get(name, "1280"), columns.id or "n": f"x/{n}"}
        for n in range(PRESETS[name].size)
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_a_known_set_is_asked_and_answered_as_it_says(name: str) -> None:
    preset = PRESETS[name]
    put(preset.source, rows_of(name))
    made = load_problems(name)
    assert len(made.problems) == preset.size
    assert (made.name, made.grader) == (name, "math-verify")
    number = "x/2" if preset.columns.id else "2"
    asked = BOXED.replace("{problem}", "What is 2?")
    assert made.problems[2] == Problem(f"{name}/{number}", asked, "1280")
    bare = load_problems(name, limit=3, template="{problem}").problems
    assert [p.prompt for p in bare] == ["What is 0?", "What is 1?", "What is 2?"]


def test_the_sizes_of_known_sets() -> None:
    sizes = {"aime24": 30, "aime25": 30, "amc": 83, "math500": 500, "minerva": 272, "gsm8k": 1319, "omni-math": 4428}
    assert {name: preset.size for name, preset in PRESETS.items()} == sizes


def test_a_known_set_of_another_size_is_refused() -> None:
    put(PRESETS["aime24"].source, rows_of("aime24")[:-1])
    with pytest.raises(HeadwayError) as error:
        load_problems("aime24", limit=1)
    for said in ("holds 29 problems", "a set of 30", "hub:HuggingFaceH4/aime_2024@train"):
        assert said in str(error.value)


def test_a_known_set_with_other_columns_is_refused() -> None:
    put(PRESETS["aime24"].source, [{"question": "?", "answer": "1"}] * 30)
    with pytest.raises(HeadwayError, match=r"no column 'problem' .*It has question, answer"):
        load_problems("aime24")


def test_gsm8k_without_its_mark_is_an_error_and_not_an_answer() -> None:
    rows = rows_of("gsm8k")
    rows[1]["answer"] = "it is 4"
    put(PRESETS["gsm8k"].source, rows)
    with pytest.raises(HeadwayError, match=r"row 1: expected a solution that ends with '#### '"):
        load_problems("gsm8k", limit=2)


def test_omni_math_leaves_out_what_has_no_answer() -> None:
    rows = rows_of("omni-math")
    rows[0]["answer"], rows[2]["answer"] = "", None
    put(PRESETS["omni-math"].source, rows)
    made = load_problems("omni-math").problems
    assert len(made) == 4426
    assert made[0].prompt.startswith("What is 1?")
