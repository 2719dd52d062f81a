import ast
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

NEED_TORCH = ("torch", "trl", "peft", "server", "headway.engines.hf", "headway.training")


def needs_torch(file: Path) -> bool:
    """Whether a test module imports something that a minimal install does not have."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return any(name == heavy or name.startswith(f"{heavy}.") for name in found for heavy in NEED_TORCH)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-torch", action="store_true", help="the tests of a minimal install, which has no torch")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-torch") and importlib.util.find_spec("torch"):
        raise pytest.UsageError("--without-torch is for a minimal install (.ci/minimal), and torch is installed here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    ignored = config.getoption("--without-torch") and collection_path.suffix == ".py" and needs_torch(collection_path)
    return True if ignored else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--without-torch"):
        there = [item for item in items if not item.get_closest_marker("extras")]
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("extras")])
        items[:] = there
