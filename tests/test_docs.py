"""The documentation against the code: names, links, flags, fields and code blocks. Reads source as text: no torch."""

import ast
import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from headway import cli
from headway.core.star import REASONS, RULES
from headway.procedures.select import selection_metrics
from headway.report.numbers.comparison import markdown_table
from headway.runs.measure import Measurement
from headway.runs.settings import PART_OF, Settings
from headway.runs.star_recipe import OTHERS

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
DOCS = sorted([ROOT / "README.md", ROOT / "AGENTS.md", *ROOT.glob("docs/*.md")])
PURE = sorted(
    ".".join(file.relative_to(SRC / "headway").with_suffix("").parts)
    for room in ("core", "credit")
    for file in (SRC / "headway" / room).glob("*.py")
    if file.stem != "__init__"
)
AUTHORS = {"Qu", "Yang", "Setlur", "Tunstall", "Beeching", "Salakhutdinov", "Kumar"}


def each(files: list[Path]) -> Any:
    return pytest.mark.parametrize("file", files, ids=lambda file: str(file.relative_to(ROOT)))


def fenced(file: Path, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for named, block in blocks if named == language]


def prose(file: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# -- names in the source, without importing it ------------------------------------------------------------------------


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=targets):
                found.update({t.id: node for t in targets if isinstance(t, ast.Name)})
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                found.update({(a.asname or a.name): node for a in names})
    return found


@functools.cache
def parsed(file: Path) -> dict[str, ast.stmt]:
    return names_in(ast.parse(file.read_text(encoding="utf-8")).body)


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of the package, or something defined or imported in one."""
    place, parts = SRC, dotted.split(".")
    while parts and (place / parts[0]).is_dir():
        place, parts = place / parts[0], parts[1:]
    file = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").is_file():
        file, parts = place / f"{parts[0]}.py", parts[1:]
    stub = file.with_suffix(".pyi")  # names that are loaded when first used
    names = parsed(file) | (parsed(stub) if stub.is_file() else {})
    for part in parts:
        if part not in names:
            return False
        node = names[part]
        names = names_in(node.body) if isinstance(node, ast.ClassDef) else {}
    return True


def fields_of(file: str, kind: str) -> set[str]:
    node = parsed(SRC / "headway" / file)[kind]
    assert isinstance(node, ast.ClassDef)
    return {name for name, child in names_in(node.body).items() if isinstance(child, ast.AnnAssign)}


def public_functions(module: str) -> list[str]:
    file = SRC / "headway" / module.replace(".", "/")
    names = parsed(file / "__init__.py" if file.is_dir() else file.with_suffix(".py"))
    return [n for n, node in names.items() if isinstance(node, ast.FunctionDef) and not n.startswith("_")]


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", PURE)
def test_every_function_of_the_pure_core_is_in_the_paper_map(module: str) -> None:
    named = set(re.findall(r"`(headway[\w.]+)`", (ROOT / "docs/paper_map.md").read_text(encoding="utf-8")))
    assert public_functions(module)
    assert [name for name in public_functions(module) if f"headway.{module}.{name}" not in named] == []


@each(MARKDOWN)
def test_every_dotted_name_exists(file: Path) -> None:
    named = set(re.findall(r"(?<![\w./-])headway(?:\.[A-Za-z_]\w*)+", file.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not exists(name)] == []


def test_a_name_that_is_not_there_is_noticed() -> None:
    assert exists("headway.credit.centred") and exists("headway.types.Trace.thought") and exists("headway.regret")
    assert not exists("headway.credit.centered") and not exists("headway.nowhere.at_all")
    assert not exists("headway.types.Trace.suffix")


@each(MARKDOWN)
def test_every_named_test_exists(file: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", file.read_text(encoding="utf-8"))
    assert [(path, name) for path, name in named if not (ROOT / path).is_file()] == []
    assert [(path, name) for path, name in named if name and name not in parsed(ROOT / path)] == []


def test_contributing_shows_every_module() -> None:
    [tree] = [block for block in fenced(ROOT / "CONTRIBUTING.md", "") if "src/headway/" in block]
    things = [p for p in (SRC / "headway").iterdir() if not p.name.startswith("_")]
    modules = [p.name for p in things if p.is_dir() or p.suffix == ".py"]
    assert [name for name in sorted(modules) if name not in tree] == []


# -- links ------------------------------------------------------------------------------------------------------------


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each(MARKDOWN)
def test_relative_links_resolve(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), f"{file.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(there), f"{file.name} links to {target}: no such heading"


# -- code, flags, fields ----------------------------------------------------------------------------------------------


@each([file for file in DOCS if fenced(file, "python")])
def test_python_blocks_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": file.stem}
    for number, block in enumerate(fenced(file, "python"), start=1):
        exec(compile(block, f"{file.name}, python block {number}", "exec"), namespace)


def recipe_names() -> set[str]:
    """What a recipe may hold, as far as Headway or its own recipes say it."""
    ours = fields_of("training/config.py", "MRTConfig") | fields_of("training/recipe.py", "TrainArguments")
    recipes = [yaml.safe_load(file.read_text()) for file in (SRC / "headway/builtin").glob("*.yaml")]
    trl = {"config", "output_dir", "resume_from_checkpoint", "save_steps", "seed", "dtype"}
    lora = {"use_peft", "lora_r", "lora_alpha", "lora_target_modules"}
    return ours | trl | lora | {name for recipe in recipes for name in recipe}


def star_names() -> set[str]:
    """What a recipe of STaR may hold beside TRL's options."""
    return fields_of("runs/star_recipe.py", "StarOptions") | {*PART_OF} - OTHERS


@each(DOCS)
def test_the_flags_of_every_command_exist(file: Path) -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    text = file.read_text(encoding="utf-8")
    for name, rest in re.findall(r"(?:^|`|bin/)headway (\w+)([^`\n]*)", text, re.MULTILINE):
        assert name in commands, f"{file.name}: no command 'headway {name}'"
        known = {flag for parameter in commands[name].params for flag in parameter.opts} | {"--help"}
        if name == "train":
            known = {f"--{field}" for field in recipe_names()}
        if name == "star":
            known = {f"--{field}" for field in recipe_names() | star_names()}
        for flag in re.findall(r"(?<!\S)--?[a-z][\w-]*", rest):
            assert flag in known, f"{file.name}: 'headway {name}' has no {flag}"


def test_every_flag_of_measure_is_explained() -> None:
    page = (ROOT / "docs/measuring.md").read_text(encoding="utf-8")
    left_to_help = {"dtype", "trust_remote_code", "extended"}
    flags = [f"--{field.replace('_', '-')}" for field in {*PART_OF, "author"} - left_to_help]
    assert [flag for flag in flags if f"`{flag}`" not in page] == []


def test_every_flag_of_import_is_explained() -> None:
    page = (ROOT / "docs/measuring.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    flags = {p.opts[0] for p in commands["import"].params} - {"file", "--dtype", "--trust-remote-code"}
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in page] == []


def test_every_entry_of_the_report_is_explained(tmp_path: Path) -> None:
    settings = Settings.of(model="scripted", problems="countdown", limit=2, traces=1, branches=2)
    with Measurement.create(tmp_path / "run", settings) as measurement:
        measurement.all()
    report = json.loads((tmp_path / "run/report.json").read_text())
    entries = {*report, *report["pass_at_1"], *report["budget_curve"][0], *report["progress"][0]}
    entries |= {
        *report["counts"],
        *report["branches"],
        *report["authors"],
        *report["overthinking"],
        *report["settled"],
    }
    page = (ROOT / "docs/measuring.md").read_text(encoding="utf-8")
    assert [entry for entry in sorted(entries) if f"`{entry}`" not in page] == []


def test_every_option_metric_and_reason_of_star_is_explained() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("## MRT as STaR")[2]
    options = fields_of("runs/star_recipe.py", "StarOptions")
    metrics = selection_metrics([], [], [], []).keys() | {"round", "rule", "sampled_from", "start"}
    metrics |= fields_of("training/sft.py", "FineTuned")
    assert [name for name in sorted({*options, *metrics, *REASONS, *RULES}) if f"`{name}`" not in page] == []


def test_every_option_and_metric_of_training_is_explained() -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    options = fields_of("training/config.py", "MRTConfig") | fields_of("training/recipe.py", "TrainArguments")
    assert [option for option in sorted(options) if f"`{option}`" not in page] == []
    logs = parsed(SRC / "headway/training/logs.py")
    functions = [node for name in ("metrics", "group_metrics") for node in ast.walk(logs[name])]
    returned = [node.value for node in functions if isinstance(node, ast.Return)]
    keys = {
        k.value for node in returned if isinstance(node, ast.Dict) for k in node.keys if isinstance(k, ast.Constant)
    }
    assert keys
    others = {"competence", "value/coverage", "generated_tokens", "computed_tokens", "seconds", "steps_without_values"}
    assert {f"mrt/{key}" for key in keys | others} == set(re.findall(r"`(mrt/[\w/]+)`", page))


def test_recipes_in_the_docs_are_recipes() -> None:
    blocks = [yaml.safe_load(block) for file in DOCS for block in fenced(file, "yaml")]
    assert blocks and all(set(block) <= recipe_names() for block in blocks)


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_agents_can_read_their_page_at_a_glance() -> None:
    assert len((ROOT / "AGENTS.md").read_text(encoding="utf-8").splitlines()) <= 120
    assert (ROOT / "CLAUDE.md").read_text(encoding="utf-8") == "@AGENTS.md\n"


def test_the_citation_names_the_authors_of_the_method() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and {"title", "message", "authors"} <= citation.keys()
    [paper] = citation["references"]
    assert "2503.07572" in paper["url"]
    assert {author["family-names"] for author in paper["authors"]} == AUTHORS


def test_the_formatter_of_commits_is_that_of_the_tests() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [rev] = [repo["rev"] for repo in hooks["repos"] if "ruff" in repo["repo"]]
    assert f"ruff=={rev.removeprefix('v')}" in (ROOT / "requirements.lock").read_text().splitlines()


def test_the_lock_has_versions_only() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_nothing_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = {ROOT / name for name in listed.stdout.split("\0") if name} | set(MARKDOWN) | {Path(__file__)}
    place = re.compile(rb"(?<![\w.-])/(?:home|work|root|Users)/\w|pypi[.]org|pythonhosted[.]|download[.]pytorch[.]")
    found = [file for file in files if file.is_file() and place.search(file.read_bytes())]
    assert [str(file.relative_to(ROOT)) for file in found] == []


def test_the_readmes_table_is_the_committed_result() -> None:
    compared = json.loads((ROOT / "results" / "quickstart" / "compare.json").read_text())
    text = (ROOT / "README.md").read_text()
    assert all(line in text for line in markdown_table(compared).splitlines() if line)
