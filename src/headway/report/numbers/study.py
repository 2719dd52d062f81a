"""The numbers of a study: every method in every setting against the setting's start and the baseline method.

A quantity of a method is a table of seeds and problems; its error is over both (`core.crossed`). A gain is over the
start, whose problem means are over all seeds of its measurement. Differences and ratios pair seeds and problems.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from headway.core import crossed
from headway.core.regret import tokens_to_reach
from headway.core.stats import Estimate
from headway.report.numbers.study_cell import unpack

START = "start"
Content = dict[str, Any]  # of a cell's file
Cells = Mapping[str, Mapping[str, Mapping[int, Content]]]  # by setting, method and seed
Table = Float[np.ndarray, "S P"]
Record = dict[str, Any]


class Quantity(NamedTuple):
    """A number of each problem in a cell, and whether more of it is better."""

    name: str
    test: str
    part: str
    key: str
    more_is_better: bool = True

    def read(self, content: Content) -> Float[np.ndarray, " P"]:
        """The quantity of each problem in a cell."""
        return unpack(content["tests"][self.test][self.part][self.key])


def quantities(content: Content, budget: int) -> list[Quantity]:
    """The quantities of a cell; `budget` is the trained one."""
    tests = content["tests"]
    found = [Quantity("pass_at_1", "curves", "success", str(budget))]
    others = [b for b in tests["curves"]["success"] if int(b) != budget]
    found += [Quantity(f"own_answer@{b}", "curves", "success", b) for b in others]
    found += [Quantity(f"accuracy@{b}", "curves", "accuracy", b) for b in tests["curves"]["accuracy"]]
    found += [Quantity(f"regret@{b}", "curves", "regret", b, False) for b in tests["curves"]["regret"]]
    for part, name in (("pass_at", "pass@"), ("maj_at", "maj@")):
        found += [Quantity(f"{name}{k}", "votes", part, k) for k in tests["votes"][part]]
    if "also" in tests:
        found.append(Quantity("pass_at_1_also", "also", "success", str(budget)))
    return found


SCALARS: dict[str, Callable[[Content], float | None]] = {
    "arithmetic": lambda c: _share(c, "right_steps", "steps"),
    "false_claims": lambda c: _share(c, "false_claims", "claims"),
    "tokens": lambda c: c["tests"]["curves"]["tokens"],
    "steps": lambda c: c["cost"]["steps"],
    "generated_tokens": lambda c: c["cost"]["generated_tokens"],
    "computed_tokens": lambda c: c["cost"]["computed_tokens"],
    "minutes": lambda c: None if c["cost"]["step_seconds"] is None else c["cost"]["step_seconds"] / 60,
}


def table(cells: Cells, *, budget: int, baseline: str, reference: str | None = None) -> dict[str, Any]:
    """The content of table.json: a record for each setting, method and quantity.

    Methods are compared with the baseline and, where there is one, with a second method, the `reference`.
    """
    rows: list[Record] = []
    for setting, methods in cells.items():
        for method, by_seed in methods.items():
            about = {"setting": setting, "method": method}
            first = next(iter(by_seed.values()))
            for quantity in quantities(first, budget):
                record = alone(quantity, by_seed, methods.get(START))
                for part, other in (("against_baseline", baseline), ("against_reference", reference)):
                    if other is not None and other in methods and method not in (START, other):
                        record[part] = against(quantity, by_seed, methods[other], methods.get(START))
                rows.append(about | {"quantity": quantity.name} | record)
            for name, read in SCALARS.items():
                found = [float(x) for x in map(read, by_seed.values()) if x is not None]
                rows.append(about | {"quantity": name} | over_seeds(found))
            if method not in (START, baseline) and baseline in methods:
                found_tokens = tokens_at_equal_accuracy(by_seed, methods[baseline])
                rows.append(about | {"quantity": "tokens_at_equal_maj"} | found_tokens)
    return {"budget": budget, "baseline": baseline, "reference": reference, "rows": rows}


Seeds = Mapping[int, Content]


def alone(quantity: Quantity, own: Seeds, start: Seeds | None) -> Record:
    """A quantity of a method, and its gain over the start, unless it is the start."""
    x = stacked(quantity, own, list(own))
    record = entry(crossed.mean(_whole(x)[0]), len(own))
    if start and own is not start:
        record["gain"] = entry(crossed.mean(_whole(x - _begun(quantity, start))[0]), len(own))
    return record


def against(quantity: Quantity, own: Seeds, other: Seeds, start: Seeds | None) -> Record:
    """The difference of a method to another and the ratio of their gains, over the seeds that both have."""
    seeds = [seed for seed in own if seed in other]
    if not seeds:
        return {}
    ours, theirs = _whole(stacked(quantity, own, seeds), stacked(quantity, other, seeds))
    record = {"difference": entry(crossed.mean(ours - theirs), len(seeds))}
    if start:
        begun = _begun(quantity, start)
        gains = _whole(*(stacked(quantity, cells, seeds) - begun for cells in (own, other)))
        ratio = crossed.ratio_of_means(*gains)
        record["ratio"] = {
            "value": _known(ratio.value), "ci95": [_known(x) for x in ratio.ci95], "n_seeds": ratio.n_seeds,
            "n_problems": ratio.n_problems, "bounded": ratio.bounded,
        }  # fmt: skip
    return record


def _begun(quantity: Quantity, start: Seeds) -> Float[np.ndarray, " P"]:
    """The start's mean of each problem, over all seeds of its measurement."""
    return stacked(quantity, start, list(start)).mean(axis=0)


def stacked(quantity: Quantity, cells: Mapping[int, Content], seeds: Sequence[int]) -> Table:
    """A quantity of cells, a row for each of the seeds."""
    return np.array([quantity.read(cells[seed]) for seed in seeds])


def _whole(*tables: Table) -> list[Table]:
    """Tables restricted to the problems that are known in all of them."""
    known = ~np.any([np.isnan(t).any(axis=0) for t in tables], axis=0)
    return [t[:, known] for t in tables]


def over_seeds(values: Sequence[float]) -> Record:
    """The mean of a number of each seed, with its error over seeds only; one seed has none."""
    x = np.array(values, dtype=float)
    n = len(x)
    centre = float(x.mean()) if n else np.nan
    stderr = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    half = stderr * float(scipy_stats.t.ppf(0.975, n - 1)) if n > 1 else np.nan
    return entry(Estimate(centre, stderr, (centre - half, centre + half), n, 0), n)


def tokens_at_equal_accuracy(ours: Mapping[int, Content], theirs: Mapping[int, Content]) -> Record:
    """Our tokens per token of theirs at the highest maj@k that both reach, and its 95% interval.

    Mean curves of maj@k against k times the tokens of a trace, over seeds and problems. The interval is of resamples
    of seeds (paired) and of problems; each has its own highest level.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return {"value": None, "stderr": None, "ci95": [None, None], "n_seeds": 0, "n_problems": 0}
    curves = [_maj_curves([cells[seed] for seed in seeds]) for cells in (ours, theirs)]
    S, P = len(seeds), curves[0][0].shape[1]
    weights = crossed.resampled(S, P)
    whole = np.full((1, S), 1 / S), np.full((1, P), 1 / P)
    value = float(_efficiency(curves, *whole)[0])
    found = _efficiency(curves, *weights)
    known = found[~np.isnan(found)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) > 1 else (np.nan, np.nan)
    spread = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    return entry(Estimate(value, spread, (float(low), float(high)), S * P, P), S)


def _maj_curves(cells: Sequence[Content]) -> tuple[Float[np.ndarray, "S P"], Float[np.ndarray, "S P k"], list[int]]:
    votes = [cell["tests"]["votes"] for cell in cells]
    ks = votes[0]["k"]
    accuracy = np.array([[unpack(v["maj_at"][str(k)]) for k in ks] for v in votes])
    return np.array([v["tokens"] for v in votes], dtype=float), np.moveaxis(accuracy, 1, 2), ks


def _efficiency(
    curves: Sequence[tuple[Float[np.ndarray, "S P"], Float[np.ndarray, "S P k"], list[int]]],
    seeds: Float[np.ndarray, "R S"],
    problems: Float[np.ndarray, "R P"],
) -> Float[np.ndarray, " R"]:
    drawn = []
    for tokens, accuracy, ks in curves:
        spent = np.einsum("rs,sp,rp->r", seeds, tokens, problems, optimize=True)
        drawn.append(
            (
                spent[:, None] * np.array(ks, dtype=float),
                np.einsum("rs,spk,rp->rk", seeds, accuracy, problems, optimize=True),
            )
        )
    level = np.minimum(*(accuracy.max(axis=1) for _, accuracy in drawn)) - 1e-12
    ours, theirs = (tokens_to_reach(tokens, accuracy, level) for tokens, accuracy in drawn)
    return ours / theirs


def _share(content: Content, part: str, whole: str) -> float | None:
    counts = content["tests"]["curves"]
    return counts[part] / counts[whole] if counts.get(whole) else None


def entry(estimate: Estimate, n_seeds: int) -> Record:
    """An estimate as table.json writes it."""
    return {
        "value": _known(estimate.value), "stderr": _known(estimate.stderr),
        "ci95": [_known(x) for x in estimate.ci95], "n_seeds": n_seeds, "n_problems": estimate.n_problems,
    }  # fmt: skip


def _known(x: float) -> float | None:
    return None if np.isnan(x) else round(float(x), 5)
