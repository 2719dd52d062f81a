import importlib.util
import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# One thread: the models are tiny, and two processes with two threads each slow each other many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Array shapes and types are checked in tests, in all modules but these: after its __post_init__ GRPOConfig breaks its
# own annotations, options of a wrong type are ours to refuse, and what typer passes as its Context is not one. The
# packages are left out: their parts are listed.
SRC = Path(__file__).parent.parent / "src"
UNCHECKED = {"headway", "headway.training", "headway.training.config", "headway.training.recipe", "headway.cli"}
MODULES = {
    ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for file in (SRC / "headway").rglob("*.py")
    if file.name != "__main__.py"
}
install_import_hook(sorted(MODULES - UNCHECKED), "beartype.beartype")

NEED_TORCH = Path(__file__).parent / "with_torch"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-torch", action="store_true", help="the tests of a minimal install, which has no torch")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-torch") and importlib.util.find_spec("torch"):
        raise pytest.UsageError("--without-torch is for a minimal install (.ci/minimal), and torch is installed here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--without-torch") and collection_path.is_relative_to(NEED_TORCH) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-torch"):
        there = [item for item in items if not item.get_closest_marker("torch")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("torch")])
        items[:] = there
