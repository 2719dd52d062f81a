"""What a training step costs beside TRL's own: `progress_weight: 0`, and episode credit by each kind of value.

    python benchmarks/step.py [--model builtin:countdown] [--rounds 7]
    python benchmarks/step.py --model smollm2 --problems gsm8k_train.jsonl --rounds 3

The trainers start from the same weights and take turns, a step each, in one process. The last line is JSON:
the ratio of each to TRL's step, with min, median and max over the rounds.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trl
from transformers import AutoTokenizer, PrinterCallback

from headway.engines import model_path
from headway.problems import load_problems
from headway.problems.graders import load_grader
from headway.text.prompts import find_think_tags
from headway.training import MRTConfig, MRTTrainer, dataset_of, outcome_reward

COMMON: dict[str, Any] = dict(
    num_generations=8,
    learning_rate=1e-6,  # the policies stay alike, so the steps stay comparable
    lr_scheduler_type="constant",
    bf16=False,
    activation_checkpointing=False,
    use_cpu=True,
    report_to="none",
    save_strategy="no",
    disable_tqdm=True,
    seed=0,
)
KINDS: dict[str, dict[str, Any]] = {
    "weight-0": dict(progress_weight=0.0),
    "MC-4": dict(values="branches", branches=4),
    "distinct-4": dict(values="distinct", branches=4),
    "likelihood": dict(values="likelihood"),
    "hybrid-4": dict(values="hybrid", branches=4),
}


class Setup(NamedTuple):
    """What is trained on, and the options that all trainers and only MRT's get."""

    problems: str
    think_close: str | None
    common: dict[str, Any]
    mrt: dict[str, Any]


BUILTIN = Setup(
    "countdown-train",
    None,
    dict(per_device_train_batch_size=96, max_completion_length=208),
    dict(answer_tokens=16),
)


def real_text(problems: str, traces: int) -> Setup:
    """Traces of 512 tokens, each cut into seven episodes of like length: eight boundaries."""
    length = dict(max_completion_length=512, generation_kwargs={"min_new_tokens": 512})
    cuts = dict(segment="tokens", episode_tokens=74, max_episodes=7, answer_tokens=12, think_open="")
    return Setup(problems, "The answer is", dict(per_device_train_batch_size=traces, **length), cuts)


def trainers(model: str, setup: Setup, kinds: Sequence[str], folder: Path, steps: int) -> dict[str, trl.GRPOTrainer]:
    """TRL's trainer and one of each kind, ready for single steps."""
    path, problems = model_path(model), load_problems(setup.problems, limit=96)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    grader, close = load_grader(problems.grader), setup.think_close
    tags = find_think_tags(tokenizer, think_open=None if close is None else "", think_close=close)
    common = {**COMMON, **setup.common, "max_steps": steps, "model_init_kwargs": {"dtype": "float32"}}
    made: dict[str, trl.GRPOTrainer] = {}
    made["trl"] = trl.GRPOTrainer(
        path,
        reward_funcs=outcome_reward(grader, tokenizer, tags),
        args=trl.GRPOConfig(output_dir=str(folder / "trl"), **common),
        train_dataset=dataset_of(problems.problems),
        processing_class=tokenizer,
    )
    for name in kinds:
        options = {**setup.mrt, "think_close": close, **KINDS[name]}
        made[name] = MRTTrainer(
            path,
            args=MRTConfig(output_dir=str(folder / name), **common, **options),
            train_dataset=dataset_of(problems.problems),
            grader=grader,
            processing_class=tokenizer,
        )
    return made


def steps(trainer: trl.GRPOTrainer) -> Iterator[float]:
    """The seconds of each step: generation, grading, credit, update."""
    trainer.remove_callback(PrinterCallback)
    trainer.create_optimizer_and_scheduler(num_training_steps=trainer.args.max_steps)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # what Trainer's own loop would set
    for batch in trainer.get_train_dataloader():
        start = time.perf_counter()
        trainer.training_step(trainer.model, batch, None)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        trainer.state.global_step += 1
        yield time.perf_counter() - start


def take_turns(model: str, setup: Setup, kinds: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """The seconds of `rounds` steps of TRL's trainer and one of each kind, after a first one that warms up."""
    seconds: dict[str, list[float]] = {"trl": [], **{name: [] for name in kinds}}
    with tempfile.TemporaryDirectory() as folder:
        running = {n: steps(t) for n, t in trainers(model, setup, kinds, Path(folder), rounds + 2).items()}
        for run in running.values():
            next(run)
        for turn in range(rounds):
            names = list(running)
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(next(running[name]))
            print({name: round(s[-1], 2) for name, s in seconds.items()}, file=sys.stderr, flush=True)
    return seconds


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(numbers), "median": statistics.median(numbers), "max": max(numbers)}


def ratios(seconds: dict[str, list[float]], to: str = "trl") -> dict[str, dict[str, float]]:
    """The seconds of each kind over another's, round by round."""
    return {name: spread([a / b for a, b in zip(s, seconds[to], strict=True)]) for name, s in seconds.items()}


def main() -> None:
    """Prints a line a round and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:countdown")
    parser.add_argument("--problems", help="a JSONL file, for a model of real text; its traces have 512 tokens")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--traces", type=int, default=8, help="traces of a step, with --problems")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    setup = real_text(args.problems, args.traces) if args.problems else BUILTIN
    torch.set_num_threads(2)
    seconds = take_turns(args.model, setup, args.kinds, args.rounds)
    versions = {"torch": torch.__version__, "trl": trl.__version__, "python": platform.python_version()}
    result = {"step_ratio": ratios(seconds), "seconds": seconds, "model": Path(args.model).name, "versions": versions}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
