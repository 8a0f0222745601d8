"""What the user of a script can mend is said in one sentence; what only we can mend keeps its traceback."""

import copy
import errno
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from alignxplore.benchmark_files import read_users
from alignxplore.command import Plain, option, run, say_what_matters
from alignxplore.errors import naming, one_sentence
from alignxplore.journal import Journal
from alignxplore.prompts import PromptSet
from alignxplore.records import write_json, write_jsonl
from alignxplore.serving.models import ModelSpec
from tests import ROOT


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda: list(read_users("mind.jsonl")), "mind.jsonl: no such file"),
        (
            lambda: ModelSpec.parse("t=127.0.0.1:8000/v1"),
            "'127.0.0.1:8000/v1' has no scheme; write http://127.0.0.1:8000/v1",
        ),
        (lambda: PromptSet("nowhere"), "nowhere"),
        (lambda: ModelSpec.parse("t=./nowhere"), "no such model folder"),
    ],
)
def test_what_says_itself_what_is_wrong_is_shown_without_a_traceback(fault, sentence):
    with pytest.raises(SystemExit, match=sentence), one_sentence():
        fault()


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(KeyError), one_sentence():
        {}["absent"]


def test_an_interrupted_script_says_how_to_go_on(capsys):
    with pytest.raises(SystemExit) as ended, one_sentence():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and "interrupted; run the same command again" in capsys.readouterr().err


def test_a_process_that_fails_alone_is_heard(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")  # as torchrun says
    with pytest.raises(SystemExit) as ended, one_sentence():
        raise OSError(28, "No space left on device", "shard-1")
    assert "(process 1 of this machine): [Errno 28] No space left on device: 'shard-1'" in ended.value.code


def test_a_process_that_lost_another_leaves_the_word_to_it(monkeypatch):
    """Or its traceback would bury the sentence of the one whose disk is full."""
    lost = "[pair.cc:553] Connection closed by peer [127.0.0.1]:34205. This is typically caused by a remote worker"
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(RuntimeError, match="closed by peer"), one_sentence():  # of a process without others
        raise RuntimeError(lost)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"\(process 1 of this machine\): another process has ended"), one_sentence():
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="shape"), one_sentence():
        raise RuntimeError("shape mismatch")


MISTAKES = {
    "-m alignxplore.world --out out --prompt-set nodir": "nodir",
    "-m alignxplore.world --out out --test-users 0": "--test_users 0: at least 1",
    "-m alignxplore.world.tiny --out out --prompt-set nodir": "nodir",
    "-m alignxplore.serving ./nowhere": "./nowhere: no such model folder",
    "-m alignxplore.world.lessons --base nowhere --data d.jsonl --out out": "nowhere: no such folder",
    "eval/compare.py --report nowhere": "no such file",
    "eval/report.py --out nowhere": "nowhere",
    "eval/robustness.py --out nowhere": "no such file",
    "figures/plots.py --results nowhere.json --out out": "nowhere.json",
    "studies/shuffle_targets.py --data nowhere.jsonl --out out.jsonl": "no such file",
}


def test_scripts_say_what_is_wrong_and_show_no_traceback():
    started = {
        words: subprocess.Popen(
            [sys.executable, *words.split()], cwd=ROOT, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for words in MISTAKES
    }
    for words, process in started.items():
        _, error = process.communicate(timeout=300)
        assert process.returncode in (1, 2) and MISTAKES[words] in error and "Traceback" not in error, (
            f"{words}: {process.returncode}\n{error}"
        )


def test_a_reader_that_has_seen_enough_ends_a_script_without_a_word():
    command = f"{sys.executable} -m alignxplore.datasets list | true; exit ${{PIPESTATUS[0]}}"  # gone before it writes
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_without_utf8_a_script_says_so(tmp_path):
    """Or a policy called modèle would be judged, and then could not be written."""
    script = tmp_path / "script.py"
    script.write_text(
        "from dataclasses import dataclass\nfrom alignxplore.command import Plain, option, run\n\n\n"
        "@dataclass\nclass Options(Plain):\n    name: str = option('a name', 'x')\n\n\n"
        "run(lambda options: print('worked'), Options, 'doc')\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = os.environ | ascii_only | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 1 and "set PYTHONUTF8=1" in ran.stderr and "Traceback" not in ran.stderr
    environment["PYTHONUTF8"] = "1"
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout == "worked\n", ran.stderr


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    for write in (lambda: write_jsonl(path, [{"a": 1}]), lambda: write_json(path, {"a": 1})):
        (tmp_path / f".rows.jsonl.{socket.gethostname()}.{os.getpid()}.partial").symlink_to("/dev/full")
        with pytest.raises(SystemExit, match=f"No space left on device: '{path}'"), one_sentence():
            write()
        assert not list(tmp_path.iterdir()), "neither half a file nor its beginning"
    with Journal(path) as journal:
        journal.append("a", {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(SystemExit, match=f"No space left on device: '{path}'"), one_sentence():
                journal.append("b", {})
        assert "b" not in journal
        journal.append("b", {})
    with Journal(path) as journal:
        assert journal.finished() == {"a", "b"}


def test_a_librarys_own_word_for_a_full_disk_is_a_sentence(capsys):
    class SafetensorError(Exception):
        pass

    with (
        pytest.raises(SystemExit, match="I/O error: No space left on device .*; what is done is kept"),
        one_sentence(),
    ):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="shape"), one_sentence():
        raise RuntimeError("shape mismatch")
    cut = "[enforce fail at inline_container.cc:672] . unexpected pos 3790016 vs 3789908"  # torch.save on a full disk
    message = r"\[Errno 28\] .*unexpected pos .*: '/out/checkpoint-3'; what is done is kept: make space"
    with pytest.raises(SystemExit, match=message), one_sentence(), naming("/out/checkpoint-3"):
        raise RuntimeError(cut)
    with pytest.raises(RuntimeError, match="shape"), naming("/out"):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("below", [[], ["logs"]])
def test_a_file_in_a_folders_place_says_what_to_do(tmp_path, below):
    out = tmp_path / "out"
    out.touch()
    with pytest.raises(SystemExit, match=f"^.*: {out.joinpath(*below)}: a file, .* stands where .* name another"):
        with one_sentence():
            out.joinpath(*below).mkdir(parents=True, exist_ok=True)


def test_a_folder_in_a_files_place_says_what_to_do(tmp_path):
    for use in (lambda: write_jsonl(tmp_path, []), tmp_path.read_text):
        with pytest.raises(SystemExit, match=f"^.*: {tmp_path}: a folder stands where a file is needed; name a file$"):
            with one_sentence():
                use()


def test_what_a_system_says_of_a_path_is_a_sentence(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name, words in (("gone", "no such file or folder"), ("loop", "a link .* to itself"), ("n" * 300, "too long")):
        path = tmp_path / name
        with pytest.raises(SystemExit, match=f"^[^[]*: {path}: .*{words}[^[]*$"), one_sentence():
            path.read_text()
    with pytest.raises(SystemExit, match="^[^[]*: /d/x: this user has no right to it; change"), one_sentence():
        raise PermissionError(errno.EACCES, "Permission denied", "/d/x")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_change_nothing(closed, tmp_path):
    """The first file that is opened would stand in their place."""
    script = tmp_path / "eval" / "script.py"
    script.parent.mkdir()
    for name in ("__init__.py", "errors.py"):  # a script of this folder is one of our commands
        (tmp_path / "alignxplore").mkdir(exist_ok=True)
        shutil.copy(ROOT / "alignxplore" / name, tmp_path / "alignxplore")
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom alignxplore import errors\n"
        f"with open('{tmp_path}/rows', 'w') as rows, errors.one_sentence():\n"
        "    print('out'), print('err', file=sys.stderr), os.write(1, b'raw'), os.write(2, b'raw')\n"
        "    rows.write('row')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = f"'{sys.executable}' '{script}' {closed}"
    ran = subprocess.run(["bash", "-c", code], env=environment, capture_output=True, text=True)
    assert (ran.returncode, (tmp_path / "rows").read_text()) == (0, "row"), ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_is_gone_is_said(tmp_path):
    code = f"mkdir '{tmp_path}/gone'; cd '{tmp_path}/gone'; rmdir ../gone; '{sys.executable}' '{ROOT}/eval/report.py'"
    ran = subprocess.run(
        ["bash", "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ran.returncode == 1 and ran.stderr.endswith("is gone; change to one that is there\n"), ran.stderr


def test_what_no_writer_named_is_in_the_folder_of_the_script(tmp_path):
    @dataclass
    class Options(Plain):
        out: Path = option("where", tmp_path)

    with pytest.raises(SystemExit, match=f"No space left on device: '{tmp_path}'; what is done is kept"):
        run(full, Options, "doc", [])


def test_a_long_prompt_is_no_error_whatever_transformers_says(tokenizer, capfd):
    short = copy.deepcopy(tokenizer)
    short.model_max_length = 2
    say_what_matters()
    short("one two three four five six")
    assert "indexing errors" not in capfd.readouterr().err
