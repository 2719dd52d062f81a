import os
from pathlib import Path

from jaxtyping import install_import_hook

# One thread: the models are tiny, and two processes with two threads each slow each other many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Array shapes and types are checked in tests, in all modules but these: after its __post_init__ GRPOConfig breaks its
# own annotations, and what typer passes as its Context is not one. The packages are left out: their parts are listed.
SRC = Path(__file__).parent.parent / "src"
UNCHECKED = {"headway", "headway.training", "headway.training.config", "headway.training.recipe", "headway.cli"}
MODULES = {
    ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for file in (SRC / "headway").rglob("*.py")
}
install_import_hook(sorted(MODULES - UNCHECKED), "beartype.beartype")
