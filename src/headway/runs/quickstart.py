"""The quickstart: measure the built-in model, fine-tune it with GRPO and with MRT at equal cost, and compare."""

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from headway.runs.measure import Measurement
from headway.runs.open_run import Tell
from headway.runs.report import compare_runs
from headway.runs.settings import Settings, extra
from headway.types import HeadwayError

MODEL = "builtin:countdown"
TRAINED_BUDGET = 192


class Size(NamedTuple):
    """The size of a quickstart."""

    problems: int
    branches: int
    tokens: int  # computed in each training


FULL = Size(problems=120, branches=4, tokens=3_200_000)
QUICK = Size(problems=40, branches=2, tokens=600_000)


def quickstart(out: Path, *, quick: bool, seed: int, tell: Tell) -> str:
    """Returns the comparison as a table; continues a stopped quickstart, of another size or seed is a HeadwayError."""
    size = QUICK if quick else FULL
    # held-out problems, twice the thinking budget of training
    options: dict[str, Any] = {"problems": "countdown", "budget": 2 * TRAINED_BUDGET, "answer_tokens": 16}
    options |= {"limit": size.problems, "traces": 4, "branches": size.branches, "seed": seed}
    runs: list[tuple[str, Path]] = []
    for name in ("base", "grpo", "mrt"):
        model = MODEL if name == "base" else str(out / "models" / name)
        if name != "base":
            fine_tune(name, Path(model), size, seed=seed, tell=tell)
        asked, tell_of = Settings.of(model=model, **options), lambda stage, *n, of=name: tell(f"{of}: {stage}", *n)
        with Measurement.create(out / name, asked, tell_of) as measurement:
            measurement.all()
        runs.append((name, out / name))
    return compare_runs(runs, out / "compare", budgets=(TRAINED_BUDGET, 2 * TRAINED_BUDGET))


def fine_tune(name: str, folder: Path, size: Size, *, seed: int, tell: Tell) -> None:
    """Fine-tunes the built-in model by the package's recipe of this name, unless done before."""
    made, asked = folder / "quickstart.txt", f"seed {seed}, {size.tokens} computed tokens\n"
    if made.exists():
        if (there := made.read_text()) != asked:
            raise HeadwayError(f"{folder} was made with {there.strip()}, not {asked.strip()}; give another --out")
        return
    with extra("train", "training needs trl"):
        from headway.training import main
    recipe = str(files("headway") / "builtin" / f"{name}.yaml")
    flags = ["--output_dir", str(folder), "--seed", str(seed), "--max_computed_tokens", str(size.tokens)]
    main(["--config", recipe, *flags], tell=lambda done, total: tell(f"{name}: train", done, total))
    made.write_text(asked)
