"""Prints whether the embedded default model meets its bars, from a run that measured it.

headway measure --model builtin:countdown --problems countdown --limit 500 --budget 192 --answer-tokens 16 --out RUN
python recipes/builtin/check.py RUN
"""

import json
import sys
from pathlib import Path

from safetensors import safe_open

from headway.engines.loading import model_path
from headway.problems.countdown_text import written
from headway.runs.store import Run


def main() -> int:
    """Prints a line a bar; the exit code is the number of bars missed."""
    run = Run.load(Path(sys.argv[1]))
    report = json.loads((run.path / "report.json").read_text())
    weights = Path(model_path(run.settings["model"])) / "model.safetensors"
    with safe_open(weights, "np") as tensors:
        parameters = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
    found = [written(trace.thought) for trace in run.traces()]
    right, steps = (sum(counts) for counts in zip(*found, strict=True))
    pass_at_1, forced = report["pass_at_1"], report["forced_at_start"]
    arithmetic = right / steps
    bars = [
        ("held-out problems", report["n_problems"], report["n_problems"] >= 500),
        ("pass@1, 0.30 to 0.65", f"{pass_at_1['value']:.3f} ± {pass_at_1['stderr']:.3f}",
         0.30 <= pass_at_1["value"] <= 0.65),
        ("forced answer before thinking, at most half of pass@1", f"{forced['value']:.3f} ± {forced['stderr']:.3f}",
         2 * forced["value"] <= pass_at_1["value"]),
        ("episodes a trace, at least 4", f"{report['episodes']['value']:.2f}", report["episodes"]["value"] >= 4),
        ("arithmetic right, at least 0.98", f"{arithmetic:.4f} of {steps} steps", arithmetic >= 0.98),
        ("parameters, at most 3M", f"{parameters:,}", parameters <= 3_000_000),
        ("weights, at most 8 MB", f"{weights.stat().st_size:,} bytes", weights.stat().st_size <= 8_000_000),
    ]  # fmt: skip
    for name, value, held in bars:
        print(f"{'ok  ' if held else 'MISS'}  {name}: {value}")
    return sum(not held for _, _, held in bars)


if __name__ == "__main__":
    sys.exit(main())
