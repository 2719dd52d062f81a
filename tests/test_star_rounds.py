"""`headway star`: rounds on the built-in model, stopped between any two stages, refused with another recipe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
import yaml

import tiny
from headway import cli
from headway.core.star import RULES
from headway.procedures.select import Text
from headway.runs.star import star
from headway.runs.star_recipe import Recipe
from headway.training.sft import NO_LOSS, dataset_of_tokens, fine_tune, parse_with_sft
from headway.types import HeadwayError

# third parties warn about their own futures
pytestmark = pytest.mark.filterwarnings("default")

RECIPE = Path(__file__).parent.parent / "recipes" / "star" / "best_prefix.yaml"
STAGES = [f"round 1: {stage}" for stage in ("sample", "score", "solve", "fine-tune")]
STAGES += ["round 2: sample", "round 2: fine-tune"]
SMALL = {
    "limit": 4, "traces": 4, "budget": 64, "per_device_train_batch_size": 4, "max_steps": 2, "warmup_steps": 0,
    "rounds": 2, "branches": 2, "seed": 5,
}  # fmt: skip


def test_the_recipes_differ_in_their_rule_only() -> None:
    recipes = {file.stem: yaml.safe_load(file.read_text()) for file in RECIPE.parent.glob("*.yaml")}
    assert recipes.keys() == RULES.keys()
    assert all(made.pop("rule") == name for name, made in recipes.items())
    assert all(made == recipes["outcome"] for made in recipes.values())


def arguments(out: Path, **changes: Any) -> list[str]:
    flags = {"output_dir": out, **SMALL, **changes}
    return ["--config", str(RECIPE), *(part for k, v in flags.items() for part in (f"--{k}", str(v)))]


def quiet(*_: object) -> None: ...


class Stop(Exception):
    """The simulated kill."""


def killer(stage: str) -> Callable[[str, int, int], None]:
    def tell(at: str, done: int, total: int) -> None:
        if at == stage:
            raise Stop

    return tell


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds without a stop."""
    out = tmp_path_factory.mktemp("star") / "whole"
    star(arguments(out), quiet)
    return out


def selected(out: Path, number: int) -> list[Text]:
    lines = (out / f"round-{number}" / "selected.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Text) for line in lines]


def weights(out: Path, number: int) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(out / f"round-{number}" / "model" / "model.safetensors")


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("sampled_from", "start")} for line in lines]


def test_each_round_samples_from_the_last_and_starts_from_the_base(whole: Path) -> None:
    first, second = (json.loads(line) for line in (whole / "rounds.jsonl").read_text().splitlines())
    assert first["sampled_from"] == first["start"] == second["start"] == "builtin:countdown"
    assert second["sampled_from"] == str(whole / "round-1" / "model")
    for made in (first, second):
        assert made["sampled"] == 16 == made["selected"] + sum(made["left_out"].values())
        assert made["selected"] > 0 and made["steps"] == 2 and made["loss"] > 0
    assert any(
        not torch.equal(a, b) for a, b in zip(weights(whole, 1).values(), weights(whole, 2).values(), strict=True)
    )


def test_what_is_selected_ends_its_thinking_once_and_then_the_text(whole: Path) -> None:
    from headway.engines.loading import load_tokenizer

    tokenizer = load_tokenizer("builtin:countdown")
    for text in selected(whole, 1):
        assert text.completion_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(text.completion_ids[:-1], skip_special_tokens=False) == text.text
        assert text.text.count("</think>") == 1 and "Time is up" not in text.text
        assert text.boundary is not None and text.boundary > 0


@pytest.mark.parametrize("stage", STAGES)
def test_rounds_that_were_stopped_end_like_those_that_were_not(stage: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with pytest.raises(Stop):
        star(arguments(out), killer(stage))
    before = {
        p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.suffix in (".jsonl", ".safetensors")
    }
    told: list[str] = []
    star(arguments(out), lambda at, done, total: told.append(f"{at} {done}"))
    assert metrics(out) == metrics(whole)
    for number in (1, 2):
        assert selected(out, number) == selected(whole, number)
        mine, other = weights(out, number), weights(whole, number)
        assert mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)
    if stage.startswith("round 2"):  # what was finished is not touched again
        assert not [t for t in told if t.startswith("round 1")]
        assert all(p.stat().st_mtime_ns == at for p, at in before.items() if "round-1" in p.parts)
    if stage.endswith("fine-tune"):
        assert not [t for t in told if t.startswith(f"{stage[:8]} sample")]


def test_another_recipe_is_refused_with_what_differs_and_more_rounds_are_not(whole: Path) -> None:
    kept = (whole / "star.json").read_text()
    with pytest.raises(HeadwayError, match=r"rule: there 'best_prefix', now 'outcome'; traces: there 4, now 3"):
        star(arguments(whole, rule="outcome", traces=3), quiet)
    with pytest.raises(HeadwayError, match=r"learning_rate: there 0\.0003, now 0\.001"):
        star(arguments(whole, learning_rate=1e-3), quiet)
    assert (whole / "star.json").read_text() == kept
    Recipe(arguments(whole, rounds=3, logging_steps=1)).claim()  # a third round would go on from here
    (whole / "star.json").write_text(kept)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HeadwayError, match="holds no rounds"):
        Recipe(arguments(tmp_path)).claim()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"schema": 0, "options": {}}', "schema 0")],
)
def test_a_star_json_that_cannot_be_used_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "star.json").write_text(content)
    with pytest.raises(HeadwayError, match=said):
        Recipe(arguments(tmp_path)).claim()


def test_nothing_selected_is_an_error_with_counts(tmp_path: Path) -> None:
    with pytest.raises(HeadwayError, match=r"no text was selected from 16 traces \(16 truncated\)"):
        star(arguments(tmp_path / "none", budget=4, rule="outcome"), quiet)
    with pytest.raises(HeadwayError, match=r"no text was selected from 16 traces \(.*too_long"):
        star(arguments(tmp_path / "long", max_length=20), quiet)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "best"}, "best"),
        ({"start": "middle"}, "middle"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"engine": "api"}, "cannot be fine-tuned"),
        ({"traces": 0}, "traces must be at least 1"),
        ({"completion_only_loss": "false"}, "completion_only_loss"),
        ({"resume_from_checkpoint": "x"}, "the same command continues"),
        ({"problems": ""}, "no problems"),
        ({"model_name_or_path": ""}, "no model"),
        ({"output_dir": ""}, "no output_dir"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["headway", "star", *arguments(tmp_path / "out", **changes)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_rounds(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.app(["star", *arguments(whole)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "rule: best_prefix" in shown and "round 2: left out" in shown


# -- the fine-tuning --------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_completion_given_the_prompt(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "m")
    ids = [tuple(tiny.tokenizer().encode(t)) for t in ("What is 1?", "Hm</think>1", "And 2?", "So it is 2</think>2")]
    examples = [(ids[0], (*ids[1], 1)), (ids[2], (*ids[3], 1))]
    rows = dataset_of_tokens(examples)
    assert rows[0]["input_ids"] == [*ids[0], *ids[1], 1]
    assert rows[0]["labels"] == [NO_LOSS] * len(ids[0]) + [*ids[1], 1]

    model = tiny.model()
    lost = torch.cat([
        -torch.log_softmax(model(torch.tensor([[*p, *c]])).logits[0, len(p) - 1 : -1], dim=-1)[range(len(c)), list(c)]
        for p, c in examples
    ])  # fmt: skip
    flags = ["--output_dir", str(tmp_path / "w"), "--model_name_or_path", str(tmp_path / "m"), "--max_steps", "1"]
    args, of = parse_with_sft((), [*flags, "--learning_rate", "0", "--save_strategy", "no"], "star")
    done = fine_tune(examples, str(tmp_path / "m"), args, of, tmp_path / "out", tmp_path / "w", tell=quiet)
    assert done.steps == 1 and done.loss == pytest.approx(lost.mean().item(), rel=1e-4)


def test_an_adapter_is_merged_into_a_whole_model(tmp_path: Path) -> None:
    tiny.folder(tmp_path / "m")
    flags = ["--output_dir", str(tmp_path / "w"), "--model_name_or_path", str(tmp_path / "m"), "--max_steps", "2"]
    lora = [
        "--use_peft",
        "true",
        "--lora_r",
        "2",
        "--lora_target_modules",
        "q_proj",
        "v_proj",
        "--learning_rate",
        "0.01",
    ]
    args, of = parse_with_sft((), [*flags, *lora, "--save_strategy", "no"], "star")
    fine_tune([((5, 6), (7, 8, 1))] * 8, str(tmp_path / "m"), args, of, tmp_path / "out", tmp_path / "w", tell=quiet)
    before, after = (safetensors.torch.load_file(tmp_path / f / "model.safetensors") for f in ("m", "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed and all("q_proj" in name or "v_proj" in name for name in changed)
