"""A GPU that nvidia-smi names and torch cannot use is said before anything is loaded; it is no CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore import environment
from alignxplore.baselines.embeddings import Encoder
from alignxplore.devices import refuse_unusable_gpu, unusable_gpu, visible_gpus
from alignxplore.errors import UserError
from alignxplore.serving.judges import JudgesOptions, placed
from alignxplore.sft.configuration import DataArguments, ModelConfig, TrainArguments
from alignxplore.sft.training import sft
from alignxplore.synthesis.signal_model import ScoreOptions, score_users
from tests import ROOT

# What torch 2.11.0 for CUDA 13 says beside a driver of CUDA 12.
OLD_DRIVER = """
__version__ = "2.11.0+cu130"
class version: cuda = "13.0"
class cuda:
    def is_available(): return {usable}
    def init(): raise RuntimeError(
        "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by "
        "downloading and installing a new\\nversion from the URL: http://www.nvidia.com/Download/index.aspx"
    )
"""
SENTENCE = (
    "torch 2.11.0+cu130 (CUDA 13.0) cannot use the GPU of this machine: The NVIDIA driver on your system is too old "
    "(found version 12020); install its driver 580 or newer, or "
)


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A machine on which nvidia-smi names a GPU, and no variable hides it."""
    script = tmp_path / "bin/nvidia-smi"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\ncase "$*" in *query-gpu=index*) echo 0;; *memory.total*) echo "A, 81559";; esac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return script


def with_torch(folder: Path, usable: bool = False) -> str:
    """An interpreter with another torch: that of a GPU machine."""
    (folder / "library").mkdir(exist_ok=True)
    (folder / "library/torch.py").write_text(OLD_DRIVER.format(usable=usable))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/library" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_it_is_one_sentence_with_the_reason_of_torch(gpu, tmp_path):
    with pytest.raises(UserError) as error:
        refuse_unusable_gpu("--use_cpu true", with_torch(tmp_path))
    assert str(error.value) == SENTENCE + "--use_cpu true"
    assert unusable_gpu("x", with_torch(tmp_path, usable=True)) is None


def test_where_no_gpu_is_to_be_used_nothing_is_refused(gpu, tmp_path, monkeypatch):
    python = with_torch(tmp_path)
    for name, value in (("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1"), ("DEVICE", "cpu")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert unusable_gpu("x", python) is None
    gpu.write_text("#!/bin/sh\necho NVIDIA-SMI has failed because it could not communicate with the driver\nexit 9\n")
    assert unusable_gpu("x", python) is None and visible_gpus() == []


def test_a_torch_for_cpus_alone_is_refused_only_where_a_gpu_is_meant(gpu):
    """The tests' own torch is one."""
    assert "is built for CPUs alone" in str(unusable_gpu("x"))
    assert unusable_gpu("x", needs_cuda=False) is None


def test_judges_and_the_check_of_the_environment_say_it(gpu, tmp_path, monkeypatch):
    with pytest.raises(UserError) as error:
        placed(JudgesOptions(models="a=org/A", python=with_torch(tmp_path)))
    assert str(error.value) == SENTENCE + "--device cpu"
    assert placed(JudgesOptions(models="a=org/A", device="cpu", python=with_torch(tmp_path)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/library")  # of the interpreter that is asked
    assert any(text.startswith(SENTENCE) for text in environment.check(device="gpu").errors)
    assert not any("cannot use the GPU" in text for text in environment.check(device="cpu").errors)


def test_what_goes_to_a_gpu_if_there_is_one_does_not_go_to_the_cpu(gpu, tmp_path, monkeypatch):
    with_torch(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/library")  # of the interpreter that is asked
    scores = ScoreOptions(data=str(tmp_path / "data.jsonl"), model=str(tmp_path), out=str(tmp_path / "out"))
    for work in (lambda: score_users(scores), lambda: Encoder(str(tmp_path))):
        with pytest.raises(UserError, match="install its driver 580 or newer, or DEVICE=cpu"):
            work()
    args = TrainArguments(output_dir=str(tmp_path / "run"), report_to=[])
    assert args.unusable_gpu() == SENTENCE + "--use_cpu true"
    args = TrainArguments(output_dir=str(tmp_path / "run"), report_to=[], use_cpu=True, bf16=False)
    assert args.unusable_gpu() is None


def test_a_check_of_sft_says_it_and_goes_on(gpu, tmp_path, monkeypatch, capsys):
    with_torch(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/library")
    args = TrainArguments(output_dir=str(tmp_path / "run"), report_to=[], bf16=True)
    data = DataArguments(train_data=str(tmp_path / "rows.jsonl"), check=True)
    with pytest.raises(UserError, match="no model is named"):
        sft(data, args, ModelConfig())
    assert f"warning: {SENTENCE}--use_cpu true" in capsys.readouterr().out


def started(*words: object, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=300)


def test_sft_that_is_meant_for_a_gpu_ends_at_once(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "run.yaml").write_text("bf16: true\nreport_to: none\nmodel_name_or_path: nowhere\n")
    words = (ROOT / "sft/sft.py", "--config", "run.yaml", "--train_data", "rows.jsonl", "--out", "out")
    process = started(*words, folder=tmp_path)
    assert process.returncode == 1 and process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("sft.py: torch ") and process.stderr.endswith("or --use_cpu true\n")
    assert not (tmp_path / "out").exists()


def test_the_smoke_run_says_it_before_its_steps(gpu, tmp_path, monkeypatch):
    with_torch(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{tmp_path}/library")
    words = ("-m", "alignxplore.quickstart.card", "--out", tmp_path / "runs", "--check")
    process = started(*words, folder=tmp_path)
    assert process.returncode == 1 and process.stdout == "" and process.stderr.count("\n") == 1
    assert f"{SENTENCE}--rehearse" in process.stderr
