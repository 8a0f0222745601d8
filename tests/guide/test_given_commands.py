"""The commands that the README, docs/ and the stages' pages give: each script exists and knows each of its options.
What needs a trained model is run by a test that is named here, or is marked as needing GPUs."""

import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from alignxplore.guide.site import tracked
from tests import ROOT

PAGES = ["README.md", *sorted(name for name in tracked() if name.startswith("docs/") and name.endswith(".md"))]
STAGES = ["sft/README.md", "verl/README.md", "eval/README.md", "studies/README.md"]
MARK = re.compile(r"# (needs|after|takes|downloads) ")  # the first line of a block that is not run as it stands
# What a block that is marked asks for, and the test that runs the same script.
RUN_BY = {
    "quickstart.sh": "tests/quickstart/test_quickstart.py",
    "alignxplore.ask": "tests/ask/test_ask.py",
    "alignxplore.demo": "tests/demo/test_browser.py",
    "alignxplore.bundle": "tests/test_bundle.py",
    "alignxplore.guide.one_number": "tests/guide/test_one_number.py",
    "gen_preference.py": "tests/evaluation/test_updates.py",
    "compare.py": "tests/evaluation/test_training_runs.py",
    "run_streaming_8p.sh": "tests/rl/test_presets.py",
    "sft.sh": "tests/sft/test_check.py",
    "films_seeds.sh": "tests/studies/test_films_seeds.py",
}


class Block(NamedTuple):
    page: str
    text: str

    @property
    def mark(self) -> str:
        return self.text.splitlines()[0] if MARK.match(self.text) else ""

    def commands(self) -> list[tuple[Path, list[str]]]:
        """(folder, words) of each command."""
        found, folder = [], ROOT / Path(self.page).parent if self.page in STAGES else ROOT
        lines = self.text.replace("\\\n", " ").splitlines()
        for line in lines:
            here = folder
            for part in re.split(r"&&|;|\|(?!\|)", re.sub(r"\s+#\s.*$|^#.*$", "", line)):
                words = shlex.split(part.replace("...", "").replace("…", ""))
                words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
                if words[:1] == ["cd"]:
                    here = ROOT / words[1]
                    folder = here if "&&" not in line else folder
                elif words:
                    found.append((here, words))
        return found


def blocks(pages: list[str]) -> list[Block]:
    return [
        Block(page, text)
        for page in pages
        for text in re.findall(r"^ *```bash\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    ]


def script_of(folder: Path, words: list[str]) -> tuple[str, list[str]] | None:
    """(path from the root, arguments) of a script of ours; None of any other program."""
    if words[0] in ("python", "bash", "sbatch") and len(words) > 1:
        rest = words[1:]
        if rest[0] == "-m":
            return rest[1], rest[2:]
        if rest[0].endswith((".py", ".sh", ".sbatch")):
            return os.path.relpath(folder / rest[0], ROOT), rest[1:]
    if words[0].endswith(".sh"):
        return os.path.relpath(folder / words[0], ROOT), words[1:]
    return None


@pytest.fixture(scope="module")
def known(shown) -> dict[str, str]:
    """Script, or module, → all its help."""
    return {
        (one.command.removeprefix("python -m ") if "-m " in one.command else one.path.as_posix()): "\n".join(texts)
        for one, texts in shown.items()
    }


def test_each_command_of_the_texts_names_a_script_that_is_there_and_options_that_it_knows(known):
    wrong, count = [], 0
    for block in blocks(PAGES + STAGES):
        for folder, words in block.commands():
            if (asked := script_of(folder, words)) is None or asked[0] in ("mkdocs", "http.server"):
                continue
            script, arguments = asked
            count += 1
            if script not in known and not (ROOT / script).is_file():
                wrong.append(f"{block.page}: no {script}: {' '.join(words)}")
            elif script in known and not script.endswith(".sh") and script != "sft/sft.py":
                named = {word.partition("=")[0] for word in arguments if re.match(r"--\w", word)}
                lacking = [name for name in named if not re.search(rf"(?<![\w-]){name}(?![\w-])", known[script])]
                wrong += [f"{block.page}: {script} has no {name}" for name in lacking]
    assert count > 60 and wrong == []


def test_a_marked_command_needs_gpus_or_is_run_by_a_test_that_is_named():
    for block in blocks(PAGES):
        if not block.mark or block.mark.startswith("# needs"):
            continue
        for folder, words in block.commands():
            if (asked := script_of(folder, words)) is None:
                continue
            name = Path(asked[0]).name if "/" in asked[0] else asked[0]
            assert name in RUN_BY, f"{block.page}: {block.mark}: {' '.join(words)}"
            stem = Path(name).stem if name.endswith((".py", ".sh")) else name.rpartition(".")[2]
            text = (ROOT / RUN_BY[name]).read_text()
            assert stem in text, f"{RUN_BY[name]} does not run {name}"
