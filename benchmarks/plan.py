"""How far `headway plan` is from what a training step takes: peak memory and seconds, on this machine.

    export MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536    # freed memory goes back to the system at once
    python benchmarks/plan.py --model builtin:countdown [--batch 96] [--tokens 200] [--checkpointing] [--steps 2]

Trains through `MRTTrainer` on traces that are all as long as they may be; the weights do not matter. Memory is the
peak of the process in its last step beyond what it had before the model was loaded. The machine's FLOP/s and bandwidth
are measured first, and given to `plan` with both fractions 1. The last line is JSON.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from headway import __version__
from headway.engines.loading import model_path
from headway.problems.graders import load_grader
from headway.runs.plan.command import plan_training
from headway.runs.plan.machines import Machine
from headway.training import MRTConfig, MRTTrainer, dataset_of
from headway.types import Problem


def memory(name: str) -> int:
    """Bytes of this process: now (VmRSS) or at most since the last reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def rates() -> tuple[float, float]:
    """TFLOP/s of a matrix product in float32, and GB/s of reading a vector; the best of five."""
    a, b = torch.rand(1024, 1024), torch.rand(2**26)
    seconds: list[list[float]] = [[], []]
    for _ in range(5):
        for found, work in zip(seconds, (lambda: a @ a, b.sum), strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds[0]) / 1e12, 4 * 2**26 / min(seconds[1]) / 1e9


class Measured(MRTTrainer):
    """Keeps the peak memory and the seconds of each phase of each step."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.found: dict[str, list[float]] = {n: [] for n in ("sampling", "learning", "s_sampling", "s_learning")}

    def _begin(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._since = time.perf_counter()

    def _end(self, name: str) -> None:
        self.found[f"s_{name}"].append(time.perf_counter() - self._since)
        self.found[name].append(memory("VmHWM"))

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._begin()
        out = super()._generate_and_score_completions(inputs)
        self._end("sampling")
        self.prompt, self.longest = out["prompt_ids"].shape[1], out["completion_ids"].shape[1]
        return out

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        """TRL's; the backward that follows belongs to the phase too."""
        self._begin()
        return super().compute_loss(*args, **options)

    def training_step(self, *args: Any, **options: Any) -> Any:
        """TRL's."""
        out = super().training_step(*args, **options)
        self._end("learning")
        return out


def main() -> None:
    """Prints measured and planned numbers, and a JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:countdown")
    parser.add_argument("--think-close", help="for a model without think tags")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true")
    asked = parser.parse_args()
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        raise SystemExit("set MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ first (see --help)")
    torch.set_num_threads(1)
    tflops, gbps = rates()
    recipe = dict(
        per_device_train_batch_size=asked.batch, num_generations=asked.batch, max_completion_length=asked.tokens,
        gradient_checkpointing=asked.checkpointing, max_steps=asked.steps, bf16=False, credit="regret",
        values="likelihood", answer_tokens=16,
    )  # fmt: skip
    tags = {"think_open": "", "think_close": asked.think_close} if asked.think_close else {}
    problems = [Problem(f"p{i}", "3 4 5 -> 17", "17") for i in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        args = MRTConfig(
            output_dir=folder, report_to=[], save_strategy="no", dataloader_pin_memory=False, disable_tqdm=True,
            generation_kwargs={"min_new_tokens": asked.tokens}, **tags, **recipe,
        )  # fmt: skip
        path = model_path(asked.model)
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        torch.nn.Linear(64, 64)(torch.ones(2000, 64)).sum().backward()  # loads the libraries of both directions
        before = memory("VmRSS")
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        trainer = Measured(
            model,
            args=args,
            train_dataset=dataset_of(problems),
            grader=load_grader("exact"),
            processing_class=tokenizer,
        )
        trainer.train()
        file = Path(folder, "recipe.yaml")
        file.write_text(yaml.safe_dump({"model_name_or_path": asked.model} | recipe))
        machine = Machine(
            gpu="cpu",
            prompt_tokens=trainer.prompt,
            mean_tokens=trainer.longest,
            tflops=tflops,
            gbps=gbps,
            mfu=1.0,
            mbu=1.0,
        )
        planned = plan_training(file, machine)
    seconds = {p["phase"]: p["seconds"] for p in planned["phases"]}
    learning = seconds.pop("forward and backward")
    both = {"sampling": sum(seconds.values()), "learning": learning}
    measured = {name: trainer.found[name][-1] - before for name in both}
    plan = planned["memory"]["data parallel"]
    out: dict[str, Any] = {"asked": vars(asked), "tflops": tflops, "gbps": gbps}
    out["bytes"] = {n: {"measured": measured[n], "planned": plan[n], "ratio": plan[n] / measured[n]} for n in both}
    peak = max(measured.values())
    out["bytes"]["peak"] = {"measured": peak, "planned": plan["peak"], "ratio": plan["peak"] / peak}
    for name, planned_seconds in both.items():
        took = trainer.found[f"s_{name}"][-1]
        out.setdefault("seconds", {})[name] = {
            "measured": took,
            "planned": planned_seconds,
            "factor": took / planned_seconds,
        }
    out["versions"] = {"headway": __version__, "torch": torch.__version__, "python": platform.python_version()}
    for name in ("bytes", "seconds"):
        print(name, {n: {k: round(v, 3) for k, v in row.items()} for n, row in out[name].items()})
    print(json.dumps(out))


if __name__ == "__main__":
    main()
