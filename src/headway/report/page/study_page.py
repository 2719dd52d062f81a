"""The page of a study: tables in Markdown, of table.json alone, between two markers; the prose around is by hand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headway.report.numbers.comparison import markdown
from headway.report.numbers.study import START, Record
from headway.report.text import UNKNOWN, interval, is_known, number, plus_minus
from headway.types import HeadwayError

BEGIN, END = "<!-- study: generated from here -->", "<!-- study: generated up to here -->"
Cell = Callable[["Rows", str, str], str]  # from setting and method


class Rows:
    """The records of a table by setting, method and quantity."""

    def __init__(self, table: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        self.table, self.labels = table, {START: "start"} | dict(labels)
        self._rows = {(r["setting"], r["method"], r["quantity"]): r for r in table["rows"]}
        self.settings = list(dict.fromkeys(r["setting"] for r in table["rows"]))

    def methods(self, setting: str) -> list[str]:
        """The methods of a setting: its start first, then as configured."""
        there = {r["method"] for r in self.table["rows"] if r["setting"] == setting}
        return [name for name in self.labels if name in there]

    def get(self, setting: str, method: str, quantity: str, *parts: str) -> Record | None:
        """A record, or a part of one such as `gain`, or `against_baseline`, `ratio`; None without it."""
        found = self._rows.get((setting, method, quantity))
        for part in parts:
            found = found.get(part) if found else None
        return found

    def named(self, prefix: str) -> list[str]:
        """The quantities whose names begin so, in order."""
        return list(dict.fromkeys(r["quantity"] for r in self.table["rows"] if r["quantity"].startswith(prefix)))


def estimate(quantity: str, digits: int = 3) -> Cell:
    """A cell with an estimate and its standard error."""

    def cell(rows: Rows, setting: str, method: str) -> str:
        record = rows.get(setting, method, quantity)
        return plus_minus(record, digits) if record and is_known(record["value"]) else UNKNOWN

    return cell


def plain(quantity: str, digits: int, scale: float = 1.0) -> Cell:
    """A cell with a mean alone."""

    def cell(rows: Rows, setting: str, method: str) -> str:
        record = rows.get(setting, method, quantity)
        return UNKNOWN if record is None or record["value"] is None else number(record["value"] * scale, digits)

    return cell


def ratio(quantity: str, part: str) -> Cell:
    """A cell with a ratio of gains and its interval; says where the denominator may be 0."""

    def cell(rows: Rows, setting: str, method: str) -> str:
        record = rows.get(setting, method, quantity, part, "ratio")
        if record is None or not is_known(record["value"]):
            return UNKNOWN
        within = interval(record) if record["bounded"] else "that gain may be 0"
        return f"{number(record['value'], 2)} ({within})"

    return cell


def with_interval(quantity: str, *parts: str, digits: int = 3) -> Cell:
    """A cell with an estimate and its 95% interval; a part, such as a gain, with its sign."""

    def cell(rows: Rows, setting: str, method: str) -> str:
        record = rows.get(setting, method, quantity, *parts)
        if record is None or not is_known(record["value"]):
            return UNKNOWN
        signed = bool(parts)
        return f"{number(record['value'], digits, signed=signed)} ({interval(record, digits, signed=signed)})"

    return cell


def counts(rows: Rows, setting: str, method: str) -> str:
    """How many seeds and problems stand behind a line."""
    record = rows.get(setting, method, "pass_at_1")
    return UNKNOWN if record is None else f"{record['n_seeds']}, {record['n_problems']}"


def columns_of(rows: Rows) -> dict[str, dict[str, Cell]]:
    """The tables of a setting: their titles, and their columns."""
    base, other = rows.labels[rows.table["baseline"]], rows.labels.get(rows.table["reference"], "")
    at = {name: rows.named(f"{name}@") for name in ("accuracy", "regret", "own_answer", "pass", "maj")}
    return {
        "Success at the trained budget": {
            "seeds, problems": counts, "pass@1": estimate("pass_at_1"),
            "gain": with_interval("pass_at_1", "gain"), f"× gain of {base}": ratio("pass_at_1", "against_baseline"),
            f"− {base}": with_interval("pass_at_1", "against_baseline", "difference"),
            f"× gain of {other}": ratio("pass_at_1", "against_reference"),
            f"tokens per token of {base} at equal maj@k": with_interval("tokens_at_equal_maj", digits=2),
            "other problems": estimate("pass_at_1_also"),
        },
        "Accuracy of an answer forced within a budget of completion tokens": {
            name.partition("@")[2]: estimate(name) for name in at["accuracy"]
        },
        "Normalized regret up to a budget of completion tokens (lower is better)": {
            name.partition("@")[2]: estimate(name) for name in at["regret"]
        },
        "Own answers within other thinking budgets": {
            name.partition("@")[2]: estimate(name) for name in at["own_answer"]
        },
        "Several traces": {name: estimate(name) for name in (*at["pass"], *at["maj"])},
        "What it does to the text, and what it costs": {
            "steps": plain("steps", 0), "sampled tokens (M)": plain("generated_tokens", 2, 1e-6),
            "computed tokens (M)": plain("computed_tokens", 2, 1e-6), "minutes": plain("minutes", 1),
            "tokens of a trace": plain("tokens", 0), "arithmetic right": estimate("arithmetic", digits=4),
            "false among claims": estimate("false_claims"),
        },
    }  # fmt: skip


def generated(rows: Rows, figures: Iterable[tuple[str, str]], progress: str) -> str:
    """The generated part of the page: how much is done, and the tables of each setting; figures are title and path."""
    lines = [progress, ""]
    for title, path in figures:
        lines += [f"![{title}]({path})", ""]
    for setting in rows.settings:
        lines += [f"### Setting `{setting}`", ""]
        for title, columns in columns_of(rows).items():
            made = [["", *columns]]
            for method in rows.methods(setting):
                cells = [cell(rows, setting, method) for cell in columns.values()]
                if any(cell != UNKNOWN for cell in cells):
                    made.append([rows.labels[method], *cells])
            if len(made) > 1:
                lines += [f"**{title}**", "", markdown(filled(made))]
    return "\n".join(lines)


def filled(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """A table without the columns in which nothing is known."""
    kept = [i for i, column in enumerate(zip(*rows, strict=True)) if i == 0 or any(c != UNKNOWN for c in column[1:])]
    return [[row[i] for i in kept] for row in rows]


def put_between(page: str, made: str) -> str:
    """A page with the generated part put between its markers; a HeadwayError where it does not have both, once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise HeadwayError(f"the page needs the lines '{BEGIN}' and '{END}', each once and in this order")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made.rstrip()}\n\n{END}{rest.partition(END)[2]}"
