"""The smoke run on one GPU: its list, what it says without a GPU, its last line, and the whole of it on a CPU."""

import json
import os
import subprocess
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from alignxplore.quickstart import card
from alignxplore.quickstart.card import CardSettings
from alignxplore.quickstart.card_report import Card, Watch, report
from alignxplore.quickstart.folder import RunFolder
from alignxplore.quickstart.steps import order
from tests import ROOT
from tests.quickstart.test_lists import not_made

H100 = Card("0", "NVIDIA H100 80GB HBM3", 85.5)


def listed(out: Path, card_found: Card | None = None, flash: bool = True):
    return card.steps(CardSettings(out=out, card=card_found, flash=card_found is not None and flash))


def commands(steps):
    return {step.name: one for step in steps for row in step.rows for one in row}


@pytest.mark.parametrize("gpu", [None, H100])
def test_what_a_step_reads_is_made_before_and_the_same_steps_are_rehearsed(gpu, tmp_path):
    steps = listed(tmp_path, gpu)
    assert not_made(steps, tmp_path) == []
    assert order(steps) == order(listed(tmp_path))


def test_what_fails_leaves_the_other_parts(tmp_path):
    """SFT of the large model needs neither judge nor RL; what needs both comes after both."""
    before = order(listed(tmp_path))

    def needs(name):
        return {name}.union(*(needs(other) for other in before[name]))

    assert needs("large_packed") == {"large_packed", "large", "blank", "data"}
    assert "rl" not in needs("large_rl") and {"judge", "sft", "rl_data"} < needs("scores")


def test_on_a_gpu_all_of_it_is_told_so_and_stays_within_40_gb(tmp_path):
    for flash in (True, False):
        steps = listed(tmp_path, H100, flash)
        for variable in (("DEVICE", "cuda"), ("CUDA_VISIBLE_DEVICES", "0")):
            assert all(variable in one.environment for one in commands(steps).values())
        rl, packed = commands(steps)["large_rl"], commands(steps)["large_packed"]
        assert dict(rl.environment)["PRESET"] == "solo" and "--bf16" in packed.words
        assert ("sdpa" in " ".join(rl.words)) == ("sdpa" in packed.words) == (not flash)
        server = steps[-1].servers[0].command
        judge = float(server.words[server.words.index("--gpu-memory-utilization") + 1])
        writing = float(dict(rl.environment)["GPU_MEMORY"])
        states = 0.6 * 16  # GB of the trainer of 0.6B parameters
        assert (judge + writing) * H100.memory_gb + states < 36, "some GB for CUDA itself, three times"


def test_on_a_gpu_nothing_is_compiled_that_is_hardly_asked_and_the_judge_starts_once(tmp_path):
    steps = listed(tmp_path, H100)
    (judge,) = {server for step in steps for server in step.servers}
    eager = {name for name, one in commands(steps).items() if "enforce" in " ".join(one.words)}
    assert "--enforce-eager" in judge.command.words and eager == {"rl", "summaries"}
    assert judge.url in " ".join(commands(steps)["scores"].words)
    assert [step.name for step in steps if judge in step.servers] == ["rl", "scores", "large_rl"]


@pytest.mark.slow
@pytest.mark.parametrize("flash", [True, False])
def test_the_rl_settings_of_a_gpu_are_sound(flash, model_folder, tmp_path):
    """verl's own checks take them; nothing is started."""
    for name in ("rl", "large_rl"):
        one = commands(listed(tmp_path, H100, flash))[name].with_urls({"judge": "http://127.0.0.1:1/v1"})
        environment = os.environ | {key: value for key, value in one.environment if value is not None}
        for key in ("MODEL", "JUDGE_TOKENIZER"):
            Path(environment[key]).parent.mkdir(parents=True, exist_ok=True)
            Path(environment[key]).unlink(missing_ok=True)
            Path(environment[key]).symlink_to(model_folder)
        for key, split in (("TRAIN", "train"), ("VAL", "val")):
            Path(environment[key]).parent.mkdir(parents=True, exist_ok=True)
            item = {"query": None, "chosen": "a", "rejected": "b"}
            rows = [{"user": f"{split}{i}", "history": [item] * 3, "positions": [1, 2]} for i in range(64)]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), environment[key])
        process = subprocess.run(
            [*one.words], cwd=ROOT, env=environment | {"CHECK": "1"}, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr[-2000:]
        assert json.loads(process.stdout.splitlines()[-1])["updates_per_step"] == 1


def test_without_a_gpu_it_says_so_and_runs_nothing(tmp_path):
    nowhere = tmp_path / "bin"
    nowhere.mkdir()
    for name in ("bash", "dirname", "env"):
        (nowhere / name).symlink_to(f"/usr/bin/{name}")
    ran = subprocess.run(
        ["bash", str(ROOT / "test.sh"), "--gpu"], env={"PATH": str(nowhere)}, capture_output=True, text=True
    )
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith("test.sh: there is no GPU here") and ran.stderr.count("\n") == 1


def test_the_card_is_the_one_that_may_be_used_and_its_memory_is_watched(tmp_path, monkeypatch):
    script = tmp_path / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\ncase "$*" in "-i 3 "*memory.total*) echo "A, B, 40000";; "-i 3 "*) echo 1234;; '
        '"-i 0 "*) echo "C, 9";; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    gpu = card.find_card()
    assert gpu == Card("3", "A, B", pytest.approx(41.9, abs=0.1))
    monkeypatch.setattr("alignxplore.quickstart.card_report.LOOK_SECONDS", 0.01)
    with Watch(gpu) as watch:
        time.sleep(0.5)
    assert watch.peak_gb == pytest.approx(1.29, abs=0.01)
    for hidden in ("7", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert card.find_card() is None


def test_the_last_line_says_what_is_missing_and_why(tmp_path):
    steps = listed(tmp_path, H100)
    folder = RunFolder(tmp_path)
    with folder.claimed():
        for step in steps[:2]:
            folder.note_done(step, 3)
    facts = report(tmp_path, H100, False, steps, {"judge": "step 'judge' failed"}, 33.5)
    assert facts["card"] == H100.name and not facts["rehearsal"] and facts["attention"] == "sdpa"
    assert facts["failed"] == {"judge": "step 'judge' failed"} and facts["seconds"] == {"data": 3, "blank": 3}
    assert facts["not_done"] == [step.name for step in steps[2:]] and facts["peak_memory_gb"] == 33.5
    assert facts["sft"] == facts["rl"] == {} and facts["accuracy"] is None


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    out = tmp_path_factory.mktemp("card") / "out"
    words = ["bash", str(ROOT / "test.sh"), "--gpu", "--rehearse", "--no-install", "--out", str(out)]

    def run(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run([*words, *more], capture_output=True, text=True, timeout=1200)

    return run, run()


@pytest.mark.slow
def test_the_rehearsal_runs_every_step_and_ends_with_its_figures(rehearsed):
    run, process = rehearsed
    assert process.returncode == 0, (process.stdout + process.stderr)[-4000:]
    facts = json.loads(process.stdout.splitlines()[-1])
    assert facts["rehearsal"] and facts["card"] is None and facts["failed"] == {} and facts["not_done"] == []
    for kind in ("zero2", "zero3_packed"):
        assert facts["sft"][kind]["tokens_per_second"] > 0
    for kind in ("taught", "large"):
        figures = facts["rl"][kind]
        assert figures["written_per_second"] > 0 and figures["trained_per_second"] > 0
        assert 0 <= figures["probability_difference_mean"] <= figures["probability_difference_max"] < 1e-3
    assert 0 <= facts["accuracy"]["sft+rl, streaming"] <= 1
    again = run()
    assert again.returncode == 0 and "-- large_rl: done before" in again.stdout
    assert json.loads(again.stdout.splitlines()[-1]) == facts


def test_check_makes_no_environment(tmp_path):
    """Steps are printed by any Python, before anything is installed."""
    words = ["bash", "test.sh", "--gpu", "--rehearse", "--check", "--out", str(tmp_path / "runs")]
    environment = os.environ | {"VENV": str(tmp_path / "venv")}
    process = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "-- large_rl: about" in process.stdout and "nothing was started" in process.stdout
    assert not any(tmp_path.iterdir())


def test_what_was_done_is_told_when_it_is_interrupted_and_its_time_is_no_promise(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> str:
        raise SystemExit(130)

    monkeypatch.setattr(card, "find_card", lambda: H100)
    monkeypatch.setattr(card, "refuse_unusable_gpu", lambda remedy: None)
    monkeypatch.setattr(card, "carry_out", interrupted)
    with pytest.raises(SystemExit) as end:
        card.smoke(card.CardOptions(out=str(tmp_path)))
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end.value.code == 130 and facts["card"] == H100.name and "data" in facts["not_done"]
    plan = card.smoke(card.CardOptions(out=str(tmp_path), check=True))
    assert "8 to 15 minutes on a GPU, not measured" in plan and "two cores" not in plan
