"""All that a person can run, and what each says of itself: the page "Options" of the documentation.

python -m alignxplore.guide.commands --out options.md
"""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from alignxplore.command import Plain, option, run
from alignxplore.environment import ROOT
from alignxplore.records import write_text

FOLDERS = ("alignxplore", "sft", "verl", "eval", "figures", "benchmarks", "studies")
WIDTH = "100"  # columns of the help
_COMMANDS = re.compile(r"usage: [^{\n]*\{([\w, -]+)\} \[options\]")


@dataclass(kw_only=True)
class PageOptions(Plain):
    """Where to."""

    out: str = option("Markdown file; default: it is printed", "")


@dataclass(frozen=True)
class Runnable:
    """A script or module. `command` is how it is run from the root of the repository."""

    path: Path

    @property
    def command(self) -> str:
        name = self.path.as_posix()
        if self.path.suffix in (".sh", ".sbatch"):
            return f"./{name}" if "/" not in name else f"bash {name}"
        if self.path.parts[0] != "alignxplore":
            return f"python {name}"
        return f"python -m {name.removesuffix('.py').removesuffix('/__main__').replace('/', '.')}"


def runnables() -> list[Runnable]:
    """Every script and module that explains itself, in the order of `FOLDERS`."""
    scripts = sorted(path for path in ROOT.glob("*.sh"))
    for folder in FOLDERS:
        paths = sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".sh"))
        scripts += [path for path in paths if path.suffix == ".sh" or _is_run(path)]
    return [Runnable(path.relative_to(ROOT)) for path in scripts if path.name != "train.py"]  # explained by its shell


def _is_run(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")


def helps(runnable: Runnable) -> list[str]:
    """What it prints when it is asked for help, and what each of its commands prints, where it has commands."""
    path = ROOT / runnable.path
    if path.suffix == ".sh":
        return [subprocess.run(["bash", path, "--help"], capture_output=True, text=True, check=True).stdout.rstrip()]
    text = _help(runnable)
    inner = _COMMANDS.match(text)
    return [text, *(_help(runnable, name) for name in inner[1].split(", "))] if inner else [text]


def _help(runnable: Runnable, *words: str) -> str:
    """Folders of this machine are written as from the repository."""
    path = ROOT / runnable.path
    output = io.StringIO()
    arguments, columns = sys.argv, os.environ.get("COLUMNS")
    sys.argv, os.environ["COLUMNS"] = [str(path), *words, "--help"], WIDTH
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a module that is imported already is run anew
            if runnable.command.startswith("python -m "):
                runpy.run_module(runnable.command.removeprefix("python -m "), run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = arguments
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return output.getvalue().replace(f"{ROOT}/", "").rstrip()


def options_page() -> str:
    """Every command with its help, by folder."""
    lines, folder = [], ""
    for runnable in runnables():
        if (parent := runnable.path.parts[0] if len(runnable.path.parts) > 1 else ".") != folder:
            folder = parent
            lines += [f"## {'The whole path' if folder == '.' else folder}", ""]
        lines += [f"### {runnable.command}", ""]
        for text in helps(runnable):
            lines += ["```text", text, "```", ""]
    return "\n".join(lines)


def write_page(options: PageOptions) -> str | None:
    """Print the page, or write it."""
    page = options_page()
    if not options.out:
        return page
    write_text(Path(options.out), page + "\n")
    return None


if __name__ == "__main__":
    run(write_page, PageOptions, __doc__)
