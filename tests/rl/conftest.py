"""What the training tests share: a tiny policy that already answers in the right form, RL rows, a judge, and the
launcher."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.conftest import CHATML

SCRIPT = ROOT / "verl/examples/grpo_trainer/run_streaming_8p.sh"
WORDS = (
    "red blue green tea coffee jazz opera chess rugby tango "
    "poker yoga soup curry maps trains ships planes novels poems"
).split()
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "CXX": "/no/compiler"}  # none is needed
ITEM = {"query": None, "chosen": "a", "rejected": "b"}
SERVED = {"streaming.judges (j: what is served)": "Qwen/Qwen3-8B"}


def user_row(name, length=7):
    """A user who likes two of the words; items are two words each."""
    rng = random.Random(name)
    liked = rng.sample(WORDS, 2)
    other_words = [word for word in WORDS if word not in liked]
    history = [
        {
            "query": None,
            "chosen": f"{rng.choice(liked)} {rng.choice(other_words)}",
            "rejected": " ".join(rng.sample(other_words, 2)),
        }
        for _ in range(length)
    ]
    return {"uid": name, "history": history, "mid_position": 3}


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """A Qwen3 of 0.2 M parameters, taught for some seconds to answer `<think>` something `</think>` some words."""
    import torch

    from alignxplore.prompts import PromptSet
    from alignxplore.records import Interaction
    from alignxplore.world.tiny import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("policy")
    torch.set_num_threads(1)
    prompts, rng = PromptSet("default"), random.Random(0)
    tokenizer = make_tokenizer(1, 800, prompts)
    model = make_model(tokenizer, 1, 64, 2)
    model.resize_token_embeddings(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(240):
        # Without the decay two answers of three are in bad format.
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 240)
        rows = []
        for _ in range(8):
            history = [Interaction(x["chosen"], x["rejected"]) for x in user_row(str(rng.random()))["history"][:3]]
            ids = tokenizer.apply_chat_template(
                prompts.infer(history, rng.choice([None, "tea"])),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
            answer = f"<think>\n{rng.choice(WORDS)}\n</think>\n\n{' '.join(rng.sample(WORDS, 3))}<|im_end|>"
            rows.append((ids, tokenizer.encode(answer, add_special_tokens=False)))
        width = max(len(p) + len(a) for p, a in rows)
        ids = torch.tensor([p + a + [0] * (width - len(p) - len(a)) for p, a in rows])
        labels = torch.tensor([[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in rows])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Parquet files of 8 training users (two steps make an epoch) and 4 validation users, made by the project's own
    script: of two stages, and of three in the folder `three`."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "rl.jsonl").write_text("".join(json.dumps(user_row(f"u{i}")) + "\n" for i in range(12)))
    for stages, out in (("2", folder), ("3", folder / "three")):
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "verl/examples/data_preprocess/upi_streaming_dataset.py"),
                "--data",
                str(folder / "rl.jsonl"),
                "--out",
                str(out / "train.parquet"),
                "--val-out",
                str(out / "val.parquet"),
                "--val-users",
                "4",
                "--stages",
                stages,
            ],
            check=True,
            env=os.environ | ENVIRONMENT,
            timeout=300,
        )
    return folder


@pytest.fixture(scope="session")
def judge_process(policy):
    """A judge in a process of its own (tests/rl/fake_judge.py): its address."""
    from alignxplore.serving.server import free_port

    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).parent / "fake_judge.py"),
            "--port",
            str(port),
            "--tokenizer",
            str(policy),
        ],
        env=os.environ | ENVIRONMENT,
    )
    for _ in range(1200):
        try:
            get(f"http://127.0.0.1:{port}/v1/models")
            break
        except OSError:
            assert process.poll() is None, "the judge did not start"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def get(url):
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()


@pytest.fixture
def judge(judge_process):
    """judge(mode) → URL of the judge, which behaves like that from now on. Two tests' runs never overlap."""

    def behave(mode):
        get(f"{judge_process}/mode/{mode}")
        return f"{judge_process}/v1"

    return behave


# A small step of PRESET=tiny.
SIZES = {
    "BATCH": "4",
    "MINI_BATCH": "4",
    "LR": "3e-4",
    "STEPS": "3",
    "SAVE_EVERY": "2",
    "TEST_EVERY": "2",
    "RESPONSE_LENGTH": "32",
    "PROMPT_LENGTH": "256",
    "LOGGER": "[console]",
    "PYTHON": sys.executable,
}


class Launcher:
    """launch(out, judge, *arguments, **variables) → the finished process of run_streaming_8p.sh, PRESET=tiny, a small
    step; launch.start(...) → the same, running."""

    def __init__(self, model: Path, rows: Path):
        self.paths = {
            "PRESET": "tiny",
            "MODEL": str(model),
            "TRAIN": str(rows / "train.parquet"),
            "VAL": str(rows / "val.parquet"),
        }
        self.started: list[subprocess.Popen] = []

    def __call__(self, out: Path, judge: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        process = self.start(out, judge, *arguments, **variables)
        output, _ = process.communicate(timeout=1500)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, out: Path, judge: str, *arguments: str, **variables: str) -> subprocess.Popen:
        run = {"JUDGES": f"judge={judge}", "OUT": str(out)}
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=os.environ | ENVIRONMENT | SIZES | self.paths | run | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


@pytest.fixture
def launch(policy, rows):
    launcher = Launcher(policy, rows)
    yield launcher
    launcher.stop()


def make_model(folder):
    """A folder that has a configuration, a tokenizer, and what stands for weights."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    Qwen3Config(num_hidden_layers=1).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    save_weights(folder, 0)


def save_weights(folder, value: float):
    """A file of weights that is as long whatever the value."""
    from safetensors.numpy import save_file

    save_file({"w": np.full(4, value, np.float32)}, folder / "model.safetensors")


@pytest.fixture
def config(tmp_path):
    """8 training and 2 validation users, 2 of them a step, 3 steps; what only verl reads is left out."""
    import pyarrow.parquet
    from omegaconf import OmegaConf

    from alignxplore.rl.settings import Streaming

    make_model(tmp_path / "sft")
    for name, users in (("train", range(8)), ("val", range(8, 10))):
        rows = [{"user": f"u{i}", "history": [ITEM] * 3, "positions": [1, 2]} for i in users]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    settings = OmegaConf.create(
        {
            "data": {
                "train_files": str(tmp_path / "train.parquet"),
                "val_files": str(tmp_path / "val.parquet"),
                "train_batch_size": 2,
                "max_prompt_length": 64,
                "max_response_length": 8,
                "seed": 0,
                "train_max_samples": -1,
                "val_max_samples": -1,
            },
            "actor_rollout_ref": {
                "nccl_timeout": 60,
                "model": {"path": str(tmp_path / "sft"), "override_config": {}},
                "actor": {
                    "optim": {"lr": 1e-6},
                    "ppo_mini_batch_size": 2,
                    "ppo_max_token_len_per_gpu": 72,
                    "ppo_epochs": 1,
                    "use_kl_loss": False,
                    "fsdp_config": {"fsdp_size": -1},
                },
                "rollout": {
                    "tensor_model_parallel_size": 1,
                    "gpu_memory_utilization": 0.5,
                    "max_num_seqs": 4,
                    "val_kwargs": {"top_p": 0.95},
                    "agent": {"num_workers": 1},
                },
            },
            "algorithm": {"use_kl_in_reward": False},
            "trainer": {
                "total_training_steps": 3,
                "total_epochs": 1,
                "device": "cpu",
                "nnodes": 1,
                "n_gpus_per_node": 2,
                "save_freq": 1,
                "test_freq": 1,
                "logger": ["console"],
                "default_local_dir": "${streaming.out}/checkpoints",
            },
        }
    )
    settings.streaming = OmegaConf.create(
        asdict(Streaming(judges="j=http://127.0.0.1:9/v1", out=str(tmp_path / "out"), judge_patience=0.1))
    )
    return settings


@pytest.fixture
def finished(config, tmp_path):
    """The folder of a finished run of `config`."""
    from alignxplore.rl.same_run import fixed_settings

    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model" / "config.json").write_text("{}")
    (out / "finished.json").write_text(json.dumps({"steps": 3}))
    (out / "run.json").write_text(json.dumps(fixed_settings(config, 3) | SERVED))
    return out


@pytest.fixture
def served(monkeypatch):
    """What the servers of judges say; `served["error"]` is raised if it is there."""
    says = dict(SERVED)

    async def ask(settings, patience):
        if "error" in says:
            raise says["error"]
        return dict(says)

    monkeypatch.setattr("alignxplore.rl.train.served_by_judges", ask)
    return says
