"""The shell scripts: they are sound, explain themselves, pass on every value as it is, and --check starts nothing."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore.command import items
from alignxplore.quickstart.films import FilmSettings
from tests import ROOT
from tests.shell import Recorder, values

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
SHELL = [
    name
    for name in TRACKED
    if (ROOT / name).is_file()
    and (
        name.endswith((".sh", ".bash", ".sbatch")) or (ROOT / name).read_bytes()[:30].split(b"\n")[0].endswith(b"bash")
    )
]
SCRIPTS = [name for name in SHELL if name.endswith((".sh", ".sbatch"))]
RL, SERVE = "verl/examples/grpo_trainer/run_streaming_8p.sh", "verl/serve_judge.sh"


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    folder = tmp_path / "a place"
    folder.mkdir()
    return Recorder(folder)


def bash(code: str, *words: str) -> str:
    command = ["bash", "-euo", "pipefail", "-c", f'source "{ROOT}/shell.bash"\n{code}', "script", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# --- all of them


def test_shellcheck_finds_nothing():
    ran = subprocess.run(["shellcheck", *SHELL], cwd=ROOT, capture_output=True, text=True)
    assert len(SHELL) > 20 and ran.returncode == 0, ran.stdout + ran.stderr
    allowed = [
        line for name in SHELL for line in (ROOT / name).read_text().splitlines() if "shellcheck disable" in line
    ]
    assert len(allowed) <= 6


@pytest.mark.parametrize("name", SHELL)
def test_lines_fit(name):
    assert [line for line in (ROOT / name).read_text().splitlines() if len(line) > 119] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_explains_itself_from_anywhere(name, tmp_path):
    assert (ROOT / name).stat().st_mode & 0o111, "not executable"
    for words in (["--help"], ["--limit", "2", "-h"]):
        ran = subprocess.run(["bash", str(ROOT / name), *words], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0 and ran.stderr == "" and Path(name).name in ran.stdout, ran.stdout + ran.stderr
        assert not any(line.startswith(("#", "set -")) for line in ran.stdout.splitlines())
    assigned = re.findall(r"^([A-Z_]+)=\$\{\1:-", (ROOT / name).read_text(), flags=re.M)
    assert [re.search(rf"^  {variable}=", ran.stdout, flags=re.M) is None for variable in assigned].count(True) == 0
    assert not list(tmp_path.iterdir())


# --- lists and Hydra's grammar


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a=b  c=d", ["a=b", "c=d"]),
        ("a=b c\n\n  d=e f\n", ["a=b c", "d=e f"]),
        ("a=no such path", ["a=no", "such", "path"]),
        ("a=no such path\n", ["a=no such path"]),
        ("HERE/x = y", ["HERE/x = y"]),
        ("name=HERE/x = y", ["name=HERE/x = y"]),
        ("org/model name=HERE/plain", ["org/model", "name=HERE/plain"]),
        ("*", ["*"]),
        ("a=~/plain ~/b m=http://x#~/t", ["a=HERE/plain", "HERE/b", "m=http://x#HERE/t"]),
        ("name=~/x = y", ["name=HERE/x = y"]),
        ("a=~/b c\n~/d e", ["a=HERE/b c", "HERE/d e"]),
        ("b~/c ~", ["b~/c", "~"]),
    ],
)
def test_a_list_is_words_or_lines_or_one_path(tmp_path, monkeypatch, text, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x = y").touch(), (tmp_path / "plain").touch()
    here = str(tmp_path)
    output = bash('items found "$1"; for one in "${found[@]}"; do echo "<$one>"; done', text.replace("HERE", here))
    assert output.splitlines() == [f"<{one}>".replace("HERE", here) for one in expected]
    assert items(text.replace("HERE", here)) == [one.replace("HERE", here) for one in expected]


@pytest.mark.parametrize(
    "value", ["/d/o'x", "a b=c,{d}", "ends\\", "ends\\\\", "a\\'b", "''", "${HOME}", "two\nlines", ""]
)
def test_hydra_reads_a_value_as_it_was(value):
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    from omegaconf import OmegaConf

    read = str(parser.parse_override(bash('hydra streaming.out "$1"', value)).value())
    assert OmegaConf.create({"out": read}).out == value


# --- values with blanks arrive whole


@pytest.fixture
def odd(recorder) -> dict[str, str]:
    """Variables whose values have blanks, a quote and an equals sign."""
    for name in ("my model", "o'x films=1.jsonl", "news b.jsonl"):
        (recorder.folder / name).touch()
    return {
        "OUT": f"{recorder.folder}/x y/rob x",
        "MODEL": f"ours={recorder.folder}/my model",
        "JUDGE": f"one={recorder.folder}/no such judge\ntwo=org/model",
        "DATA": f"films={recorder.folder}/o'x films=1.jsonl",
    }


@pytest.mark.parametrize(
    "script", ["gen_preference", "streaming_gen_preference", "evaluation", "hicupid", "main_table"]
)
def test_the_tables_get_values_with_blanks(recorder, odd, script):
    more = {"GENERATE": "--seeds 0 1", "EVALUATE": "--api_key_env\none=A B"}
    recorder.run(f"eval/{script}.sh", "--limit", "2 3", **odd, **more)
    assert recorder.commands
    for command in recorder.commands:
        writes = command[0] == "eval/gen_preference.py"
        assert values(command, "--out") == [odd["OUT"]] and values(command, "--data") == [odd["DATA"]]
        assert values(command, "--limit") == ["2 3"]
        assert values(command, *(("--model",) if writes else ("--judge",))) == (
            [odd["MODEL"]] if writes else odd["JUDGE"].splitlines()
        )
        if script == "main_table":
            assert values(command, "--seeds" if writes else "--api_key_env") == (["0", "1"] if writes else ["one=A B"])


def test_robustness_and_cross_task_get_values_with_blanks(recorder, odd):
    folder = Path(odd["OUT"]) / "data"
    folder.mkdir(parents=True)
    (folder / "copies.txt").write_text("films\nfilms~shuffled\nfilms~injected_order50\n")
    mix = f"news={recorder.folder}/news b.jsonl"
    recorder.run("eval/robustness.sh", **odd, MIX=mix, KINDS="shuffled injected_order:0.5", LIMIT="3")
    check, perturb, *steps, last = recorder.commands
    assert "--check" in check and last == ["eval/robustness.py", "--out", odd["OUT"]]
    assert perturb == [
        "eval/perturb.py",
        "--data",
        odd["DATA"],
        "--kinds",
        "shuffled",
        "injected_order:0.5",
        "--out",
        str(folder),
        "--mix",
        mix,
        "--limit",
        "3",
    ]
    assert [step[0] for step in steps] == ["eval/gen_preference.py", "eval/evaluate.py"] * 2
    assert [values(step, "--benchmarks") for step in steps[1::2]] == [
        ["films", "films~shuffled", "films~injected_order50"],
        ["films", "films~injected_order50"],
    ]
    assert values(steps[2], "--model") == [odd["MODEL"].replace("ours=", "ours-hardened=")]
    assert all(values(step, "--data") == [str(folder)] for step in steps)

    pair = f"{odd['DATA']}\n{mix}"
    recorder.run("eval/cross_task.sh", **odd | {"DATA": pair})
    assert recorder.commands[0] == ["eval/cross_task.py", "--data", *pair.splitlines(), "--out", str(folder)]
    assert values(recorder.commands[2], "--data") == [str(folder)]


def test_synthesis_and_sft_get_values_with_blanks(recorder):
    out = f"{recorder.folder}/x y"
    variables = {
        "DATA": "my users.jsonl",
        "OUT": out,
        "TEACHER": "t=/a b/teacher",
        "NPROC": "1",
        "DEFAULT_QUERY": "What next?",
    }
    recorder.run("sft/synthesize.sh", "--judge_arguments", "--max-model-len 2048", **variables)
    _, prepare, train, score, synthesize = recorder.commands
    assert prepare[:4] == ["sft/signal_model.py", "prepare", "--data", "my users.jsonl"]
    assert values(train, "--train_data") == [f"{out}/signal_set"] and train[0] == "sft/sft.py"
    assert values(score, "--default_query") == ["What next?"] and values(synthesize, "--teacher") == ["t=/a b/teacher"]
    assert synthesize[-2:] == ["--judge_arguments", "--max-model-len 2048"]


def test_training_gets_values_with_blanks(recorder):
    hydra = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    variables = {
        "OUT": "/d/o'x y",
        "MODEL": "/a b/model",
        "TRAIN": "/a b/t=1.parquet",
        "VAL": "v w.parquet",
        "JUDGE_TOKENIZER": "/a b/judge",
        "JUDGES": "a=http://x/v1 b=http://y/v1",
    }
    recorder.run(RL, "trainer.save_freq=7", PRESET="tiny", **variables)
    ((words, _),) = recorder.entries
    read = {o.key_or_group: o.value() for o in map(hydra.parse_override, words[words.index("streaming") + 1 :])}
    names = {
        "OUT": "streaming.out",
        "MODEL": "actor_rollout_ref.model.path",
        "TRAIN": "data.train_files",
        "VAL": "data.val_files",
        "JUDGE_TOKENIZER": "streaming.judge_tokenizer",
        "JUDGES": "streaming.judges",
    }
    assert {name: str(read[key]) for name, key in names.items()} == variables
    assert words[-1] == "trainer.save_freq=7"


# --- --check


def test_check_of_sft_waits_for_no_other_node(recorder):
    recorder.run("sft/sft.sh", "--config=my.yaml", NPROC="1")
    assert recorder.commands == [["sft/sft.py", "--config=my.yaml"]]
    process = recorder.run("sft/sft.sh", "--check", "--learning_rate", "1", NNODES="8", NPROC="4")
    assert "NNODES=8 nodes of NPROC=4 processes" in process.stdout
    ((*launch, _, _, _, _, _, processes, number, check, _, _),) = recorder.commands
    assert launch == ["-m", "alignxplore.torchrun", "--standalone", "--nproc_per_node", "1"] and check == "--check"
    assert (processes, number) == ("--processes", "32")


def test_check_of_synthesis_goes_as_far_as_the_steps_before(recorder):
    (recorder.folder / "users").touch()
    assert "no-users: no such file" in recorder.run("sft/synthesize.sh", "--check", expect=2, DATA="no-users").stderr
    assert recorder.commands == []
    recorder.run("sft/synthesize.sh", "--check", DATA="users", NPROC="1")
    assert [command[:2] for command in recorder.commands] == [["sft/signal_model.py", "prepare"]]
    for name in ("signal_set", "signal_model", "signal_scores"):
        (recorder.folder / "synthesis" / name).mkdir(parents=True)
    (recorder.folder / "synthesis/signal_scores/scores.jsonl").touch()
    (recorder.folder / "synthesis/signal_model/summary.json").touch()
    recorder.run("sft/synthesize.sh", "--check", DATA="users", NPROC="1")
    assert len(recorder.commands) == 4 and all("--check" in words for words in recorder.commands)


@pytest.mark.parametrize("script", ["main_table", "cross_model", "cross_task", "robustness"])
def test_check_of_a_table_checks_both_steps_and_starts_none(recorder, odd, script):
    pair = f"{odd['DATA']}\nnews={recorder.folder}/news b.jsonl"
    recorder.run(f"eval/{script}.sh", "--check", **odd | ({"DATA": pair} if script == "cross_task" else {}))
    copies = {"robustness": {"perturb"}, "cross_task": {"cross_task"}}.get(script, set())
    assert {Path(words[0]).stem for words in recorder.commands} == {"evaluate", "gen_preference"} | copies
    assert all("--check" in command for command in recorder.commands) and not Path(odd["OUT"]).exists()


@pytest.mark.parametrize("wrong", ["TRAIN=no rows.parquet", "MODEL=/no/model", "JUDGE_TOKENIZER=a=/no/one"])
def test_check_of_training_names_what_is_missing(recorder, wrong):
    message = recorder.run(RL, "--check", expect=1, **dict([wrong.split("=", 1)])).stderr
    assert f"{wrong} is not there\n" in message and recorder.commands == []


def test_check_of_training_composes_and_takes_what_is_no_path_for_a_hub_id(recorder):
    (recorder.folder / "rows").touch()
    process = recorder.run(RL, "--check", TRAIN="rows", VAL="rows", MODEL="Qwen/Qwen3-8B")
    assert process.stderr == "" and "streaming.check_only=true" in recorder.commands[0]
    assert "--check" not in recorder.commands[0]


def free_pair() -> int:
    """A port that is free with the one after it; below those that systems give out, so that nobody comes between."""
    for port in range(20000 + os.getpid() % 5000, 32000, 2):
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two ports are free")


def test_check_of_judges_looks_at_models_and_ports():
    with socket.create_server(("127.0.0.1", port := free_pair())):
        common = {"DEVICE": "cpu", "PORT": str(port), "PATH": os.environ["PATH"], "PYTHON": sys.executable}
        wrong = subprocess.run(
            ["bash", SERVE, "--check"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=common | {"MODELS": "a=/no/model"},
        )
    assert wrong.returncode == 1 and "no such model folder: /no/model" in wrong.stderr
    assert f"port {port} of 127.0.0.1: Address already in use" in wrong.stderr
    gpus = {"MODELS": "a=org/A b=org/B", "DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    fine = subprocess.run(["bash", SERVE, "--check"], cwd=ROOT, capture_output=True, text=True, env=common | gpus)
    assert fine.returncode == 0 and "b: org/B, 2 copies, GPUs 6,7" in fine.stderr
    assert fine.stdout == f'JUDGES="a=http://127.0.0.1:{port}/v1 b=http://127.0.0.1:{port + 1}/v1"\n'


STUDIES = ["quickstart.sh", *sorted(name for name in SCRIPTS if name.startswith("studies/"))]


@pytest.mark.parametrize("script", STUDIES)
def test_check_of_a_pipeline_prints_its_steps_and_writes_nothing(tmp_path, script):
    base, out = tmp_path / "base", tmp_path / "my out"
    (base / "models" / "sft").mkdir(parents=True)
    (base / "results.json").touch()
    (base / "settings").write_text("".join(f"{name}=7\n" for name in FilmSettings(out=base).deciding()))
    (out / "steps").mkdir(parents=True)
    bases = {"BASE": str(base), "BASES": str(base)}
    env = bases | {"PATH": "/usr/bin:/bin", "OUT": str(out), "VENV": str(tmp_path / "none")}
    words = ["--check", "--out", str(out)] if script == "quickstart.sh" else ["--check"]
    before = sorted(tmp_path.rglob("*"))
    ran = subprocess.run(["bash", str(ROOT / script), *words], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "would be made or completed" in ran.stdout and "-- summaries: about" in ran.stdout
    assert "-- scores: about" in ran.stdout and "nothing was started" in ran.stdout
    assert sorted(tmp_path.rglob("*")) == before


# --- SFT on a cluster

SRUN = """#!/bin/bash
for word in "$@"; do [[ $word == --* ]] || break; echo "$word" >>"$OPTIONS"; shift; done
for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done
"""


def test_slurm_starts_sft_on_every_node(recorder):
    tools = {
        "srun": SRUN,
        "scontrol": '#!/bin/bash\n[[ "$1 $2 $3" == "show hostnames n[0-1]" ]] && printf "n0\\nn1\\n"',
    }
    for name, text in tools.items():
        (recorder.folder / name).write_text(text)
        (recorder.folder / name).chmod(0o755)
    options = recorder.folder / "options"
    recorder.run(
        "sft/slurm_sft.sbatch",
        "--config",
        "my config.yaml",
        PATH=f"{recorder.folder}:/usr/bin:/bin",
        NPROC="8",
        SLURM_SUBMIT_DIR=str(ROOT / "sft"),
        SLURM_JOB_NODELIST="n[0-1]",
        SLURM_JOB_NUM_NODES="2",
        SLURM_JOB_ID="123",
        ENVIRONMENT="/dev/null",
        OPTIONS=str(options),
    )
    assert options.read_text().split() == ["--ntasks-per-node=1", "--cpu-bind=none", "--kill-on-bad-exit=1"]
    for rank, command in enumerate(recorder.commands):
        assert command == [
            "-m",
            "alignxplore.torchrun",
            "--nnodes",
            "2",
            "--node_rank",
            str(rank),
            "--master_addr",
            "n0",
            "--master_port",
            "20123",
            "--nproc_per_node",
            "8",
            "sft/sft.py",
            "--config",
            "my config.yaml",
        ]
    assert len(recorder.commands) == 2


def test_a_persons_own_shell_that_sources_setup_survives_a_failing_command():
    ran = subprocess.run(["bash", "-c", 'source "$1"; false; echo "still here"', "_", str(ROOT / "setup.sh")],
                         capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 0 and ran.stdout == "still here\n"


def test_each_task_of_a_slurm_array_writes_one_shard(recorder):
    """With a file and an endpoint of its own; a repeated task still belongs to all shards."""
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_SUBMIT_DIR": str(ROOT / "eval")}
    variables = array | {"ENVIRONMENT": "/dev/null", "DATA": "own=parts/%a.jsonl", "MODEL": "ours=folder"}
    recorder.run("eval/slurm_summaries.sbatch", "--limit", "3", **variables, SLURM_ARRAY_TASK_COUNT="8")
    (command,) = recorder.commands
    assert values(command, "--shard") == ["file:7/8"] and values(command, "--data") == ["own=parts/7.jsonl"]
    assert values(command, "--model") == ["ours=folder"] and values(command, "--limit") == ["3"]
    own = {"ENDPOINTS": "http://a/v1 http://b/v1 http://c/v1", "DATA": "own=persons.jsonl", "SHARDS": "64"}
    own["EVAL"] = os.path.relpath(ROOT / "eval", recorder.folder)
    recorder.run("eval/slurm_summaries.sbatch", **variables | own, SLURM_ARRAY_TASK_COUNT="2")
    (command,) = recorder.commands
    assert [command[0], *values(command, "--shard")] == ["eval/gen_preference.py", "7/64"]
    assert values(command, "--model") == ["ours=http://b/v1"]
    message = recorder.run("eval/slurm_summaries.sbatch", expect=2, **variables, SLURM_ARRAY_TASK_COUNT="2").stderr
    assert "set SHARDS" in message and not recorder.commands
