"""The size of things: no module over 300 lines, a median of at most 120, no function with more than 7 parameters."""

import ast
import statistics
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src/headway"
MODULES = sorted(SRC.rglob("*.py"))
MOST_LINES, MEDIAN_LINES, MOST_PARAMETERS = 300, 120, 7


def lines(module: Path) -> int:
    return len(module.read_text(encoding="utf-8").splitlines())


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of all parameters but `self`, `cls` and those that take the rest."""
    of = function.args
    names = [a.arg for a in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_module_is_long() -> None:
    assert {str(m.relative_to(SRC)): lines(m) for m in MODULES if lines(m) > MOST_LINES} == {}
    assert statistics.median(lines(m) for m in MODULES if m.name != "__init__.py") <= MEDIAN_LINES


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(SRC)))
def test_no_function_takes_more_than_seven_parameters(module: Path) -> None:
    if module.name == "cli.py":  # its parameters are flags
        return
    functions = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)]
    assert {f.name: parameters(f) for f in functions if len(parameters(f)) > MOST_PARAMETERS} == {}
