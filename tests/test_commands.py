"""What a person runs: every command explains itself, and every YAML file says what was published."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from trl import ModelConfig, TrlParser

from alignxplore.command import option, run
from alignxplore.evaluation.perturbations import PerturbOptions
from alignxplore.sft.configuration import DataArguments, TrainArguments
from tests import ROOT

# Started by run_streaming_8p.sh, and by sft.sh and synthesize.sh, whose --help is their documentation.
EXPLAINED_ELSEWHERE = {"alignxplore/rl/train.py", "alignxplore/torchrun.py"}
# Runs each script with --help in a copy of a process that has already imported what takes seconds; the project's
# modules are new in each. Arguments: the folder for the texts, then "name=script" or "name=-m module".
HELP = """
import os, runpy, sys, traceback
import datasets, peft, transformers, trl, trl.trainer.sft_trainer
texts, *scripts = sys.argv[1:]
for script in scripts:
    name, _, target = script.partition("=")
    child = os.fork()
    if not child:
        sys.stdout.flush()
        out = os.open(os.path.join(texts, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.argv = [target, "--help"]
        code = 1
        try:
            if target.startswith("-m "):
                runpy.run_module(target[3:], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(target, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)  # without the second that it takes to tear the frameworks down
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def scripts() -> dict[str, str]:
    """Name → script, or "-m module", of all that a person can run."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    target_of = {}
    for name in listed.splitlines():
        if name in EXPLAINED_ELSEWHERE or name.startswith("tests/") or not (ROOT / name).is_file():
            continue
        if '\nif __name__ == "__main__":' in (ROOT / name).read_text(encoding="utf-8"):
            module = name.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
            target_of[module] = f"-m {module}" if name.startswith("alignxplore/") else str(ROOT / name)
    return target_of


def test_every_script_explains_itself(tmp_path):
    runnable = scripts()
    words = [sys.executable, "-c", HELP, str(tmp_path), *(f"{name}={target}" for name, target in runnable.items())]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    codes = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert list(codes) == list(runnable), ran.stdout + ran.stderr
    texts = {name: (tmp_path / name).read_text() for name in codes}
    unexplained = [
        f"{name}: exit code {codes[name]}\n{text[-2000:]}"
        for name, text in texts.items()
        if codes[name] != "0" or len(text) < 200 or not text.startswith("usage: ")
    ]
    assert len(runnable) > 30 and unexplained == [], "\n\n".join(unexplained)


def test_a_script_is_a_docstring_and_one_line():
    """What it does is a function of the library, which tests and other scripts call."""
    for path in sorted((ROOT / "sft").glob("*.py")):
        _, *statements = ast.parse(path.read_text(encoding="utf-8")).body
        *imports, guard = statements
        assert all(isinstance(statement, ast.ImportFrom) for statement in imports), path
        assert isinstance(guard, ast.If) and len(guard.body) == 1, path


# File of sft/configs → what was published, or is a deliberate choice of the tiny models.
PUBLISHED = {
    "qwen3_8b": {
        "model_name_or_path": "Qwen/Qwen3-8B",
        "num_train_epochs": 4,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "effective_batch_size": 1024,
        "published_steps": 2116,
        "per_device_train_batch_size": 1,
        "max_length": 16384,
        "bf16": True,
        "tf32": True,
        "longest_first": True,
        "save_minutes": 30,
        "packing": None,  # on where there is FlashAttention; it changes nothing but speed
        "use_peft": False,
    },
    "tallrec_qwen3_8b": {
        "model_name_or_path": "Qwen/Qwen3-8B",
        "use_peft": True,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "learning_rate": 1e-4,
        "max_length": 8192,
        "bf16": True,
    },
    "signal_qwen3_1p7b": {
        "model_name_or_path": "Qwen/Qwen3-1.7B",
        "learning_rate": 1e-4,
        "max_length": 8192,
        "num_train_epochs": 1,
        "loss_type": "chunked_nll",
        "bf16": True,
    },
    "tiny": {"learning_rate": 2e-3, "effective_batch_size": 8, "num_train_epochs": 1, "max_length": 2048},
    "judge_tiny": {"learning_rate": 2e-3, "effective_batch_size": 64, "num_train_epochs": 1, "max_length": 2048},
    "signal_tiny": {"learning_rate": 1e-3, "effective_batch_size": 16, "num_train_epochs": 2, "max_length": 2048},
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "sft/configs").glob("*.yaml")))
def test_a_configuration_is_read_by_its_parser_and_says_what_was_published(name, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainArguments, "_use_cpu", lambda self: setattr(self, "use_cpu", True))  # it turns bf16 off
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.enable_tf32", lambda on: None)
    monkeypatch.chdir(tmp_path)
    parser = TrlParser((DataArguments, TrainArguments, ModelConfig))
    words = ["--config", str(ROOT / f"sft/configs/{name}.yaml"), "--out", str(tmp_path / "out")]
    data, args, model = parser.parse_args_and_config(words)
    read = vars(data) | vars(model) | vars(args)
    values = PUBLISHED[name]
    assert {key: read[key] for key in values} == values
    assert args.output_dir == str(tmp_path / "out"), "the line wins, under its short name too"
    steps = args.per_device_train_batch_size * args.gradient_accumulation_steps
    assert steps == args.effective_batch_size


# Scripts whose work is long and whose --check is not tested with that work, each with the options that it cannot do
# without; FILE is a file of RL rows, FOLDER a folder that holds no model.
CHECKS = {
    "benchmarks/dataset_builder.py": ("--users", "10", "20"),
    "benchmarks/eval_suite.py": (),
    "benchmarks/judge_throughput.py": (),
    "benchmarks/letter_logits.py": (),
    "benchmarks/packing.py": (),
    "benchmarks/persons_scale.py": (),
    "benchmarks/ranking_tokens.py": (),
    "benchmarks/rl_overlap.py": (),
    "benchmarks/server_start.py": (),
    "benchmarks/synthesis_pipeline.py": (),
    "benchmarks/tokenize_streams.py": (),
    "benchmarks/update_balance.py": (),
    "verl/examples/data_preprocess/upi_streaming_dataset.py": ("--data", "FILE", "--out", "OUT"),
    "-m alignxplore.serving": ("owner/model", "--log", "OUT", "--max-model-len", "9"),
    "-m alignxplore.world": ("--out", "OUT"),
}


@pytest.mark.parametrize("script", CHECKS)
def test_a_check_prints_what_would_be_done_and_writes_nothing(script, tmp_path):
    interaction = {"query": None, "chosen": "a", "rejected": "b"}
    (tmp_path / "rl.jsonl").write_text(
        json.dumps({"uid": "u", "history": [interaction] * 4, "mid_position": 2}) + "\n"
    )
    names = {"FILE": str(tmp_path / "rl.jsonl"), "FOLDER": str(tmp_path), "OUT": str(tmp_path / "out")}
    words = script.split() if script.startswith("-m ") else [str(ROOT / script)]
    command = [sys.executable, *words, *(names.get(word, word) for word in CHECKS[script]), "--check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0 and ran.stdout.endswith("check: nothing was started\n"), ran.stdout + ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rl.jsonl"]


def test_an_option_that_there_is_not_is_named_in_our_words():
    command = [sys.executable, str(ROOT / "eval/report.py"), "--out", "x", "--bogus"]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    message = "report.py: unknown options: ['--bogus'] (--help explains all options)\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", message)


@dataclass
class Options:
    name: str = option("a name", "x")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [1\n", "expected ',' or ']'"),
        (b"\xff\xfe", "the file of --config: byte 1 is not UTF-8"),
        (b"", "mapping"),
    ],
)
def test_a_yaml_file_that_cannot_be_read_is_a_sentence(tmp_path, capsys, content, sentence):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run(print, Options, "doc", ["--config", str(path)])
    output = capsys.readouterr().err
    assert ended.value.code == 2 and sentence in output and output.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", "gone.yaml"], "--config gone.yaml: no such file"),
        (["--config=gone.yaml"], "--config gone.yaml: no such file"),
        (["--config"], "--config names no file"),
        (["--config", "--name", "y"], "--config names no file"),
        (["--config", "a.yaml", "--config=b.yaml"], "--config names 2 files (a.yaml, b.yaml); name one"),
    ],
)
def test_a_yaml_file_that_is_not_there_is_a_sentence(capsys, words, sentence):
    with pytest.raises(SystemExit) as ended:
        run(print, Options, "doc", words)
    output = capsys.readouterr().err
    assert ended.value.code == 2 and sentence in output and output.count("\n") == 1


@pytest.mark.parametrize("words", [["--out", ""], ["--out="]])
def test_an_empty_place_to_write_to_is_refused(words, capsys):
    """It would be the current folder."""
    with pytest.raises(SystemExit):
        run(print, PerturbOptions, "x", ["--data", "x", *words])
    assert "--out is empty; name a place to write to" in capsys.readouterr().err


@dataclass(kw_only=True)
class Places:
    data: list[str] = option("benchmark files")
    raw: Path = option("folder")
    out: str = option("folder to write")
    report: str | None = option("another folder", None)
    text: str = option("no path", "x")


@pytest.mark.parametrize("name", ["data", "raw", "out", "report"])
@pytest.mark.parametrize("value", ["''", "['']", "", "null"])
def test_an_empty_path_is_a_sentence_in_yaml_and_on_the_line(name, value, tmp_path, capsys):
    values = {"data": "[a]", "raw": "b", "out": "c", "text": "''"} | {name: value}
    (tmp_path / "x.yaml").write_text("".join(f"{key}: {text}\n" for key, text in values.items()))
    if name == "report" and value in ("", "null"):
        return run(print, Places, "x", ["--config", str(tmp_path / "x.yaml")])
    for words in (
        ["--config", str(tmp_path / "x.yaml")],
        ["--data", "a", "--raw", "b", "--out", "c", f"--{name}", ""],
    ):
        with pytest.raises(SystemExit) as ended:
            run(print, Places, "x", words)
        sentence = capsys.readouterr().err
        assert ended.value.code == 2 and f"{name} is empty; name a" in sentence and sentence.count("\n") == 1
