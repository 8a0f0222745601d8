"""The commands that the README, docs/ and the stages' pages give: each script exists and knows each of its options.
A block of the README and of docs/ without a mark is run here, as it stands. What needs a trained model, or long, is
run by a test that is named here. What needs GPUs or a network is marked so."""

import ast
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
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
    name: f"tests/{file}.py::test_{test}"
    for name, file, test in (
        ("quickstart.sh", "quickstart/test_quickstart", "the_second_run_goes_on_where_the_first_was_killed"),
        ("quickstart.sh --world", "quickstart/test_lists", "a_check_of_each_list_says_its_steps_and_writes_nothing"),
        ("quickstart.sh --evaluate", "quickstart/test_lists", "another_edition_is_evaluated_as_the_own_one"),
        (
            "alignxplore.ask",
            "quickstart/test_quickstart",
            "one_of_its_persons_is_asked_about_with_no_more_than_the_folder",
        ),
        ("alignxplore.ask --person", "ask/test_ask", "a_finished_run_gives_what_is_not_said"),
        ("alignxplore.ask --items", "ask/test_ask", "a_summary_is_written_and_a_model_chooses_with_it_and_without"),
        ("alignxplore.demo", "demo/test_browser", "a_summary_is_watched_its_evidence_lights_up_and_models_choose"),
        ("alignxplore.guide.one_number", "guide/test_one_number", "the_judgement_and_the_cell_of_the_page_agree"),
        (
            "gen_preference.py --data",
            "evaluation/test_updates",
            "a_stream_goes_on_for_persons_with_new_interactions_only",
        ),
        ("gen_preference.py --diff", "evaluation/test_updates", "all_versions_of_a_person_are_shown_word_by_word"),
        ("gen_preference.py --forget", "evaluation/test_updates", "a_person_and_a_file_can_be_forgotten"),
        ("compare.py", "evaluation/test_training_runs", "a_comparison_is_over_runs_too"),
        (
            "forget_statements.py",
            "studies/test_forget_statements",
            "gone_is_what_the_summary_derived_anew_does_not_say",
        ),
        ("run_streaming_8p.sh", "rl/test_presets", "the_script_itself_checks_and_starts_nothing"),
        ("films_seeds.sh", "studies/test_films_seeds", "the_control_is_the_same_run_with_other_rewards"),
    )
}


class Block(NamedTuple):
    page: str
    text: str

    @property
    def mark(self) -> str:
        return self.text.splitlines()[0] if MARK.match(self.text) else ""

    def commands(self) -> list[tuple[Path, list[str]]]:
        """(folder, words) of each command."""
        pairs, folder = [], ROOT / Path(self.page).parent if self.page in STAGES else ROOT
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
                    pairs.append((here, words))
        return pairs


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
def help_of(helps_of) -> dict[str, str]:
    """Script, or module, → all its help."""
    return {
        (one.command.removeprefix("python -m ") if "-m " in one.command else one.path.as_posix()): "\n".join(texts)
        for one, texts in helps_of.items()
    }


def test_each_command_of_the_texts_names_a_script_that_is_there_and_options_that_it_knows(help_of):
    wrong, count = [], 0
    for block in blocks(PAGES + STAGES):
        for folder, words in block.commands():
            if (call := script_of(folder, words)) is None or call[0] in ("mkdocs", "http.server"):
                continue
            script, arguments = call
            count += 1
            if script not in help_of and not (ROOT / script).is_file():
                wrong.append(f"{block.page}: no {script}: {' '.join(words)}")
            elif script in help_of and not script.endswith(".sh") and script != "sft/sft.py":
                named = {word.partition("=")[0] for word in arguments if re.match(r"--\w", word)}
                lacking = [name for name in named if not re.search(rf"(?<![\w-]){name}(?![\w-])", help_of[script])]
                wrong += [f"{block.page}: {script} has no {name}" for name in lacking]
    assert count > 60 and wrong == []


def test_a_marked_command_needs_gpus_or_is_run_by_a_test_that_is_named():
    for block in blocks(PAGES):
        if not block.mark or block.mark.startswith(("# needs", "# downloads")):
            continue
        for folder, words in block.commands():
            if (call := script_of(folder, words)) is None:
                continue
            name = Path(call[0]).name if "/" in call[0] else call[0]
            options = [word for word in call[1] if f"{name} {word}" in RUN_BY]
            key = f"{name} {options[-1]}" if options else name
            assert key in RUN_BY, f"{block.page}: {block.mark}: {' '.join(words)}"
            file, _, test = RUN_BY[key].partition("::")
            text = (ROOT / file).read_text()
            tests = {one.name for one in ast.walk(ast.parse(text)) if isinstance(one, FUNCTIONS)}
            assert test in tests, f"{RUN_BY[key]} is not there, and was to run {key}"


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder that looks like the repository; what commands write there goes nowhere else."""
    for name in {name.partition("/")[0] for name in tracked()} - {"outputs", "runs"}:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def python(words: list[str]) -> None:
    """What `python WORDS` does, in a child that has imported already what the tests have."""
    sys.argv = words
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def run_line(line: str, folder: Path) -> int:
    """Status of one line of a block."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["python"]:
        environment = os.environ | {"VENV": sys.prefix}
        return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True).returncode
    child = multiprocessing.get_context("fork").Process(target=python, args=(words[1:],))
    before = Path.cwd()
    os.chdir(folder)
    try:
        child.start()
    finally:
        os.chdir(before)
    child.join(timeout=120)
    return child.exitcode if child.exitcode is not None else -1


def test_every_block_without_a_mark_runs_as_it_stands(copy):
    """Page by page and line by line, in one folder: a lesson reads what an earlier one wrote."""
    failed, count = [], 0
    for block in blocks(PAGES):
        if block.mark:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                count += 1
                if status := run_line(line, copy):
                    failed.append(f"{block.page}: {' '.join(line.split())} ended with {status}")
    assert failed == [] and count > 15
    files = {"outputs/lesson1/movielens_upi.jsonl", "outputs/lesson3/books_rl.jsonl", "outputs/lesson3/train.parquet"}
    assert all((copy / name).is_file() for name in files)
    assert "at most five short" in (copy / "outputs/lesson4/mywords/infer.jinja").read_text()
