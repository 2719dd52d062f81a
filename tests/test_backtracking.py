"""The recipes of backtracking, from the built-in model's traces to a step of MRT and a round of STaR, very small."""

import json
from pathlib import Path

import backtracks
import pytest
import warm_start as recipe

from headway.core.segment import by_backtracks
from headway.engines.loading import load_tokenizer
from headway.procedures.sample import make_trace
from headway.procedures.warm_start import MARKERS
from headway.runs.measure import Measurement
from headway.runs.settings import Settings
from headway.runs.star import star
from headway.runs.store import Run
from headway.text.tags import find_think_tags
from headway.training import main as train
from headway.types import Completion, Problem

RECIPES = Path(recipe.__file__).parent
PROBLEM = Problem("p", "Reach 16 with 10, 2, 12.", "10 + (12 / 2)")
# third parties warn about their own futures
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def builtin():
    tokenizer = load_tokenizer("builtin:countdown")
    return tokenizer, find_think_tags(tokenizer)


def traced(builtin, text, problem="p"):
    tokenizer, tags = builtin
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    return make_trace(tokenizer, problem, 0, (3, 4, 5), Completion(ids, "stop"), tags)


def test_attempts_of_a_trace_by_hand(builtin):
    text = (
        "Okay\n\n12 / 2 = 6\n\n10 - 6 = 4\n\n16? No.\n\n"
        "Wait\n\n12 / 2 = 5\n\n10 + 5 = 15\n\n16? No.\n\n"  # a wrong step
        "Wait\n\n12 - 2 = 10\n\n10 - 2 = 8\n\n16? No.\n\n"  # a number used twice
        "Alternatively\n\n12 + 10 = 22\n\n22 - 2 = 20\n\n16? Yes.\n\n"  # a wrong check
        "Wait\n\n12 / 2 = 6\n\n10 + 6 = 16\n\n16? Yes.\n\n"
        "Wait\n\n12 - 10 = 2\n\n2 +"
    )
    failed, right = recipe.attempts_of(traced(builtin, text), PROBLEM, *builtin)
    assert failed.text == (
        "12 / 2 = 6\n\n10 - 6 = 4\n\n16? No.\n\n</think>\n\n**Final Answer**\n\n\\boxed{10 - (12 / 2)}"
    )
    assert (failed.reward, right.reward, right.answer) == (0.0, 1.0, "10 + (12 / 2)")
    assert (failed.problem_id, failed.prompt_ids) == ("p", (3, 4, 5))


def test_what_backtracks_do_by_hand(builtin):
    attempts = ["5 + 4 = 9\n\n9 - 2 = 7\n\n8? No.\n\n", "5 + 4 = 9\n\n9 - 1 = 7\n\n8? Yes.\n\n"]
    kept = traced(
        builtin, f"{attempts[0]}Backtrack to Line 2\n{attempts[1]}</think>\n\n**Final Answer**\n\n\\boxed{{1}}"
    )
    [(line, before, after)] = backtracks.backtracks(kept)
    assert line == 2 and before[:1] == after[:1] and before[1] != after[1]
    assert backtracks.right_steps(kept) == [True, True, True, False]
    unfinished = traced(builtin, f"{attempts[0]}Backtrack to Line 2\n5 + 4")
    assert backtracks.backtracks(unfinished) == []


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A warm-started model of a few steps, from a small run of the built-in model."""
    folder = tmp_path_factory.mktemp("backtracking")
    options = dict(model="builtin:countdown", problems="countdown-train", limit=24, traces=12, answer_tokens=16)
    with Measurement.create(folder / "base", Settings.of(budget=96, **options)) as run:
        run.sample()
    arguments = ["--out", str(folder / "warm"), "--max-steps", "40", "--learning-rate", "3e-3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["warm_start.py", str(folder / "base"), *arguments])
        recipe.main()
    return folder / "warm"


def test_the_warm_start_is_a_model_that_has_the_words(warm):
    tokenizer = load_tokenizer(warm)
    for marker in MARKERS.values():
        for kept in (0, 2):
            ids = tokenizer.encode("8? No.\n\n" + marker(kept), add_special_tokens=False)
            assert len(ids) <= 6 and tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == "8? No.\n\n" + marker(kept)
    summary = json.loads((warm / "warm_start.json").read_text())
    assert summary["steps"] == 40 and 0 < summary["right"] < summary["attempts"]
    assert summary["backtracks"] > 0 and summary["longest"] < 1024
    assert (warm / "model.safetensors").stat().st_size < 8_000_000


def test_mrt_trains_on_backtracks(warm, tmp_path):
    few = ["--num_generations", "4", "--per_device_train_batch_size", "8", "--limit", "8", "--max_steps", "1"]
    config = ["--config", str(RECIPES / "mrt.yaml"), "--model_name_or_path", str(warm), "--output_dir", str(tmp_path)]
    train([*config, *few, "--max_completion_length", "120", "--use_cpu"], tell=lambda done, of: None)
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    searched = [by_backtracks(line["text"].partition("</think>")[0]) for line in lines]
    cut = [len(line["boundaries"]) - 1 for line in lines]
    assert [n for n, spans in zip(cut, searched, strict=True) if n != len(spans)] == []
    assert max(map(len, searched)) >= 3
    assert all(v is not None for line in lines for v in line["values"])


def test_star_selects_from_backtracks(warm, tmp_path):
    few = ["--limit", "8", "--traces", "4", "--max_steps", "1", "--rounds", "1", "--budget", "96"]
    config = ["--config", str(RECIPES / "star.yaml"), "--model_name_or_path", str(warm), "--output_dir", str(tmp_path)]
    [metrics] = star([*config, *few], lambda *_: None)
    assert metrics["steps"] == 1
    run = Run.load(tmp_path / "round-1" / "run")
    assert run.settings["segment"] == "backtracks"
    assert (tmp_path / "round-1" / "model" / "model.safetensors").is_file()
