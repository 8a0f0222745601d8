"""How the house is built: imports run downward only, in no circle; each module stands by itself; types and form."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

# From the ground up. What stands in one line does not know of each other; nothing knows of a line below it.
LAYERS = (
    ("errors",),
    ("texts", "places", "model_folders", "locks", "devices"),
    ("records",),
    ("benchmark_files",),
    (
        *("command", "environment", "history", "journal", "plotting", "processes", "same_run", "statistics"),
        *("saved_files", "step_log", "torchrun", "wandb_login"),
    ),
    ("work", "bundle"),
    ("prompts",),
    ("serving",),
    ("judging", "summarize"),
    ("datasets",),
    ("world", "sft"),
    ("synthesis",),
    ("baselines", "rl"),
    ("evaluation",),
    ("films",),
    ("quickstart",),
    ("ask",),
    ("demo",),
    ("guide",),
)
LAYER_OF = {room: place for place, rooms in enumerate(LAYERS) for room in rooms}
FILES = sorted((ROOT / "alignxplore").rglob("*.py"))


def module_of(path: Path) -> str:
    name = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(module of ours, line, whether it is imported at once) for each import of a file, those in functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] == "alignxplore":
                yield name, node.lineno, id(node) in at_import


def test_imports_run_downward_only():
    upward = []
    for name, path in MODULES.items():
        room = name.split(".")[1] if "." in name else None
        for target, line, _ in imported(path):
            other = target.split(".")[1] if "." in target else None
            if room is None or other is None or other == room:
                continue
            if LAYER_OF[other] >= LAYER_OF[room]:
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert upward == []


def test_no_module_imports_itself_by_way_of_others():
    edges = {
        name: {target for target, _, now in imported(path) if now and target != name} for name, path in MODULES.items()
    }
    visited: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in visited:
            for target in edges.get(name, ()):
                walk(target, (*trail, name))
            visited.add(name)

    for name in edges:
        walk(name, ())


def test_every_module_can_be_imported_from_an_empty_folder(tmp_path):
    names = [name for name in MODULES if not name.endswith("__main__")]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *names], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert not list(tmp_path.iterdir())


def tracked_python() -> list[str]:
    command = ["git", "ls-files", "*.py"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_nothing_is_imported_by_folder():
    word = ".".join(("sys", "path"))
    assert [name for name in tracked_python() if word in read(name)] == []


MOST_LINES = 400


def test_a_file_is_a_subject_and_not_longer_than_one():
    command = ["git", "ls-files", "*.py", "*.sh", "*.js", "*.css", "*.jinja"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    lines = {name: len(read(name).splitlines()) for name in names if (ROOT / name).is_file()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


SCRIPTS = ("benchmarks", "studies", "figures", "eval", "sft", "verl")
GIVEN = ("arg-type", "union-attr", "operator", "misc")
# A variable is called by a noun that says what it holds. These say nothing of it.
NO_NOUNS = frozenset("able asked done found given heard kept known left mine said seen shown told wanted".split())
NOUNS_IN = ("alignxplore", *SCRIPTS, "tests")
# How many of them a folder still has, at most: numbers only go down, and a folder without any goes.
NOT_YET = {
    "alignxplore/evaluation": 7,  # fields that stand in files, and options
}


def without_a_noun(path: Path) -> Iterator[str]:
    """file:line: name of each variable, parameter and field that is called by one of `NO_NOUNS`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = None
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.ExceptHandler):
            name = node.name
        if name in NO_NOUNS:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {name}"


def test_variables_are_called_by_nouns():
    names = {folder: list[str]() for folder in (*NOT_YET, "elsewhere")}
    for path in sorted(path for folder in NOUNS_IN for path in (ROOT / folder).rglob("*.py")):
        folder = "/".join(path.relative_to(ROOT).parts[:2])
        names[folder if folder in NOT_YET else "elsewhere"] += without_a_noun(path)
    assert names["elsewhere"] == []
    assert {folder: len(names[folder]) for folder in NOT_YET if len(names[folder]) > NOT_YET[folder]} == {}


SUFFIX = re.compile(r"_?[a-z][a-z0-9_]*_([A-Z]{1,4})")
IN_THE_GLOSSARY = re.compile(r"^\| `([A-Z])` \|", re.MULTILINE)


def suffixes(path: Path) -> set[str]:
    """The dimensions that names of arrays in a file end in: `N` and `C` of `weights_NC`."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [node.arg for node in nodes if isinstance(node, ast.arg)]
    names += [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    return set("".join(match[1] for name in names if (match := SUFFIX.fullmatch(name))))


def test_a_suffix_of_an_array_is_explained_in_the_module_or_the_glossary():
    glossary = set(IN_THE_GLOSSARY.findall(read("docs/reference/glossary.md")))
    unexplained, count = [], 0
    for path in FILES:
        letters = suffixes(path)
        intro = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        own = set(re.findall(r"`([A-Z])` [a-z]", intro)) if "uffix" in intro else set()
        unexplained += [f"{path.relative_to(ROOT)}: {letter}" for letter in sorted(letters - glossary - own)]
        count += len(letters)
    assert unexplained == [] and count > 20 and len(glossary) >= 5


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "--diff", "."),
        ("mypy", "--no-error-summary"),
        # Of scripts, that what they name is there; they take much as given that an empty option would not be.
        ("mypy", "--no-error-summary", *(f"--disable-error-code={code}" for code in GIVEN), *SCRIPTS),
    ],
    ids=["lint", "form", "types", "types of scripts"],
)
def test_a_checker_finds_nothing(command):
    process = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, (process.stdout + process.stderr)[-4000:]
