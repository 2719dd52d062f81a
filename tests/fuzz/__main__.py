"""python tests/fuzz [AREA ...] [--part I/N] [--only TEXT] [--keep FOLDER]: all cases of these areas, or of all."""

import argparse
import importlib
import os
import sys
import tempfile
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

AREAS = ("problems", "imports", "servers", "models", "recipes")  # those with torch come last


def main() -> int:
    """Exit code 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--part", default="0/1", help="every N-th case, from the I-th")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--most", type=int, help="at most so many cases of an area")
    parser.add_argument("--keep", type=Path, help="folder where failed cases stay; default: a temporary one")
    asked = parser.parse_args()
    part, of = map(int, asked.part.split("/"))
    keep, failed = (asked.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))).resolve(), 0
    for area in asked.areas or AREAS:
        from fuzz.runner import cut, run_all, warm

        cases = importlib.import_module(f"fuzz.{area}").cases
        warm((case for case in cases() if case.must == "work"), keep / area)
        made = cut(cases(), part, of)
        print(f"{area}:", flush=True)
        chosen = islice((case for case in made if asked.only in case.name), asked.most)
        failed += len(run_all(chosen, keep / area, tell=lambda line: print(f"  {line}", flush=True)))
    if failed:
        print(f"the folders of the failed cases are in {keep}: arguments.json, said.log")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
