"""The embedded default model: an ordinary Hugging Face folder that never saw the held-out problems."""

import random
from pathlib import Path

import demonstrations
import pytest
import yaml

from headway.engines.hf import load
from headway.engines.loading import model_path
from headway.problems import countdown
from headway.text.tags import find_think_tags
from headway.types import HeadwayError

FOLDER = Path(model_path("builtin:countdown"))


def test_it_is_small_and_its_tags_are_found() -> None:
    engine = load(FOLDER)
    assert sum(p.numel() for p in engine.model.parameters()) <= 3_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    assert find_think_tags(engine.tokenizer, think_open=None, think_close=None) == ("<think>\n", "</think>")


def test_every_prompt_and_demonstration_is_in_its_vocabulary() -> None:
    tokenizer = load(FOLDER).tokenizer
    for made in demonstrations.demonstrations(5, 50):
        text = f"{made.prompt}{made.thought}{made.answer}"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_demonstrations_never_show_a_held_out_problem() -> None:
    rng = random.Random(0)
    for made in (countdown.puzzle(rng, "train") for _ in range(5000)):
        assert countdown.split_of(made.numbers, made.target) == "train"
    held_out = {p.prompt for p in countdown.problems(2000, split="heldout")}
    assert not held_out & {d.prompt for d in demonstrations.demonstrations(0, 3000)}


def test_demonstrations_have_the_faults_they_are_meant_to_have() -> None:
    shown = [d for d in demonstrations.demonstrations(1, 2000) if not d.forced]
    attempts = [[a.split("\n\n")[1:-2] for a in _attempts(d.thought)] for d in shown]
    repeats = sum(len({tuple(a) for a in tried}) < len(tried) for tried in attempts)
    goes_on = sum("? Yes." in d.thought[: d.thought.rstrip().rfind("\n\n")] for d in shown)
    gives_up = sum("? Yes." not in d.thought for d in shown)
    assert min(repeats, goes_on, gives_up) > 0.05 * len(shown)


def _attempts(thought: str) -> list[str]:
    for marker in demonstrations.MARKERS:
        thought = thought.replace(f"{marker}\n\n", f"\x00{demonstrations.OPENING}\n\n")
    return [a for a in thought.split("\x00") if a]


def test_an_unknown_builtin_names_those_there_are() -> None:
    with pytest.raises(HeadwayError, match="builtin:countdown"):
        model_path("builtin:nothing")


def test_the_two_recipes_differ_in_progress_alone() -> None:
    grpo, mrt = (yaml.safe_load((FOLDER.parent / f"{name}.yaml").read_text()) for name in ("grpo", "mrt"))
    mrt_only = {"progress_weight", "credit", "values", "answer_tokens", "max_episodes"}
    assert {k: v for k, v in grpo.items() if k not in mrt_only} == {k: v for k, v in mrt.items() if k not in mrt_only}
