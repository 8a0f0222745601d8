"""serve_judge.sh and the Slurm template, with stand-ins for what they start: what is started where, what is printed,
what ends when."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT

SERVE = ROOT / "verl/serve_judge.sh"
SLURM = ROOT / "verl/examples/grpo_trainer/slurm_streaming.sbatch"

# A Python whose modules only say what they were asked for: a server says that it is ready and stays, a run ends with
# $RUN_CODE. A program on its standard input is run, with the stand-in RAY_MODULE, and what starts the servers.
PYTHON = (
    f"""#!/bin/bash
[[ $1 != - && $* != *alignxplore.serving.judges* ]] || exec {sys.executable} "$@"
"""
    + """[[ $* != *alignxplore.rl.train* ]] || trap 'sleep 1; echo "$$ saved" >>"$SEEN"; exit 3' TERM
echo "$$ gpus=${CUDA_VISIBLE_DEVICES-} ray=${RAY_ADDRESS-} $*" >>"$SEEN"
case "$*" in
    *"alignxplore.serving bad"*) echo "no such model"; exit 1 ;;
    *"alignxplore.serving silent"*) trap 'exit 0' TERM; while :; do sleep 0.1; done ;;
    *"alignxplore.serving brief"*) echo "ready: brief at http://127.0.0.1/v1"; kill -KILL $$ ;;
    *alignxplore.serving*) trap 'exit 0' TERM; echo "ready: $3 at http://127.0.0.1/v1"; while :; do sleep 0.1; done ;;
    *alignxplore.rl.train*) for ((i = 0; i < ${RUN_TICKS:-1}; i++)); do sleep 0.1; done; exit "${RUN_CODE:-0}" ;;
esac
"""
)
SCONTROL = "#!/bin/bash\nprintf '%s\\n' $SLURM_JOB_NODELIST\n"
# One task on the named node, whose name comes first in what is seen, then all other options.
SRUN = """#!/bin/bash
options=()
while [[ $1 == --* ]]; do
    if [[ $1 == --nodelist=* ]]; then node=${1#*=}; else options+=("$1"); fi
    shift
done
echo "$$ node=$node [${options[*]}] $*" >>"$SEEN"
exec "$@"
"""
# As many nodes as `ray start` was called for, but for $LOST of them.
RAY_MODULE = """
import os, re
def init(address, log_to_driver):
    assert address == "127.0.0.1:6379"
def nodes():
    started = sum(re.match(r"\\d+ ray start", line) is not None for line in open(os.environ["SEEN"]))
    return [{"Alive": i >= int(os.environ.get("LOST", 0))} for i in range(started)]
"""
GETENT = '#!/bin/bash\necho "127.0.0.1 STREAM $2"\n'  # every node is this machine
RAY = """#!/bin/bash
echo "$$ ray $*" >>"$SEEN"
trap 'exit 0' TERM
for ((i = 0; i < ${RAY_TICKS:-9999}; i++)); do sleep 0.1; done
exit 1
"""


@pytest.fixture
def stage(tmp_path):
    """stage(script, *arguments, **variables) → the running process; stage.seen() → what the stand-ins were asked
    for."""
    tools, record, started = tmp_path / "bin", tmp_path / "seen", []
    tools.mkdir()
    for name, text in {"python": PYTHON, "scontrol": SCONTROL, "srun": SRUN, "ray": RAY, "getent": GETENT}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "ray.py").write_text(RAY_MODULE)
    record.touch()

    def start(script, *arguments, **variables):
        left_out = ("DEVICE", "JUDGES", "VAL_JUDGES", "PRESET", "RAY_ADDRESS", "CUDA_VISIBLE_DEVICES", "OUT", "MODEL")
        clean = {k: v for k, v in os.environ.items() if k not in left_out}
        paths = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(tools),
            "SEEN": str(record),
            "LOGS": str(tmp_path / "logs"),
            "OUT": str(tmp_path / "out"),
        }
        # All in one group of its own, so that nothing of a failed test stays behind.
        started.append(
            subprocess.Popen(
                ["bash", str(script), *arguments],
                env=clean | paths | variables,
                text=True,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        return started[-1]

    start.seen = lambda: [line.split(" ", 1) for line in record.read_text().splitlines()]
    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def first_line(process, pattern):
    for line in process.stdout:
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"ended with {process.wait(10)} and never said {pattern}")


def texts(stage):
    return [text for _, text in stage.seen()]


def alive(stage, word):
    """Ids of the stand-ins asked for `word` that still run."""
    pids = {pid for pid, text in stage.seen() if word in text}
    return [
        pid for pid in pids if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    ]


def wait_for_run(stage):
    deadline = time.monotonic() + 20
    while not alive(stage, "rl.train"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def gone(stage, word):
    for _ in range(100):
        if not alive(stage, word):
            return True
        time.sleep(0.1)
    return False


def test_judges_share_the_gpus_and_end_with_the_script(stage, tmp_path):
    process = stage(
        SERVE,
        "--max-num-seqs",
        "64",
        MODELS="a=org/A b=org/B",
        CUDA_VISIBLE_DEVICES="4,5,6,7,2",
        PORT="7000",
        JUDGES_FILE=str(tmp_path / "urls"),
    )
    line = first_line(process, r'^JUDGES="(.*)"$').group(1)
    assert line == "a=http://127.0.0.1:7000/v1 b=http://127.0.0.1:7001/v1"
    first, second = sorted(text for _, text in stage.seen())
    assert (
        first.startswith("gpus=4,5 ")
        and "serving org/A --port 7000" in first
        and "--data-parallel-size 2 --max-num-seqs 64" in first
    )
    assert second.startswith("gpus=6,7 ") and "--served-model-name b" in second
    time.sleep(0.2)
    assert (tmp_path / "urls").read_text().strip() == line and len(alive(stage, "serving")) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143 and gone(stage, "serving")


def test_a_judge_that_cannot_start_is_named_and_takes_the_others_down(stage):
    process = stage(SERVE, DEVICE="cpu", MODELS="good=org/A bad")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and "no such model" in output and "JUDGES=" not in output and gone(stage, "serving")


def test_a_judge_that_ends_later_ends_the_script(stage):
    process = stage(SERVE, DEVICE="cpu", MODELS="a=org/A b=org/B")
    first_line(process, "^JUDGES=")
    os.kill(int(alive(stage, "org/A")[0]), signal.SIGKILL)
    assert process.wait(20) == 1 and gone(stage, "serving")


def test_a_judge_that_ends_as_soon_as_it_is_ready_ends_the_script(stage):
    process = stage(SERVE, DEVICE="cpu", MODELS="brief good=org/A")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and gone(stage, "serving"), output


def test_copies_that_do_not_fit_are_refused(stage):
    process = stage(SERVE, MODELS="a=org/A b=org/B", CUDA_VISIBLE_DEVICES="0,1", TP="2")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and "do not fit" in output and not stage.seen()


def submit(stage, nodes="n0 n1 n2 j0 j1", **variables):
    settings = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": nodes,
        "NNODES": "3",
        "GPUS": "4",
        "JUDGE_MODELS": "a=org/A b=org/B",
        "HEAD_IP": "127.0.0.1",
        "CUDA_VISIBLE_DEVICES": "0,1,2,3",
        "ENVIRONMENT": "/dev/null",
        "STEPS": "5",
    }
    return stage(SLURM, "trainer.save_freq=7", **settings | variables)


def test_a_first_node_that_resolves_to_itself_is_said_at_once(stage):
    output, _ = (process := submit(stage, nodes="localhost n1 n2 j0 j1", HEAD_IP="")).communicate(timeout=30)
    assert (
        process.returncode == 2
        and "localhost is 127.0.0.1 to itself" in output
        and "set HEAD_IP" in output
        and not stage.seen()
    )


def test_a_job_starts_judges_ray_and_the_run_and_ends_them(stage):
    process = submit(stage, LIMIT="77")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    calls = texts(stage)
    placed = {match.group(1): text for text in calls if (match := re.match(r"node=(\w+) ", text))}
    assert set(placed) == {"n0", "n1", "n2", "j0", "j1"}
    step = "[--nodes=1 --ntasks=1 --gpus-per-node=4 --cpu-bind=none --overlap] "
    assert all(step in text for text in placed.values()), placed
    assert (
        "ray start --head" in placed["n0"]
        and "--address=127.0.0.1:6379" in placed["n1"]
        and "--num-gpus=4" in placed["n2"]
    )
    assert all("--limit 77" in text for text in calls if "alignxplore.serving" in text)
    assert "MODELS=a=org/A" in placed["j0"] and "MODELS=b=org/B" in placed["j1"]
    run = next(text for text in calls if "alignxplore.rl.train" in text)
    assert "ray=127.0.0.1:6379" in run and "streaming.judges='a=http://j0:8000/v1 b=http://j1:8000/v1'" in run
    assert (
        "trainer.nnodes=3" in run
        and "trainer.n_gpus_per_node=4" in run
        and "total_training_steps=5" in run
        and run.endswith("save_freq=7")
    )
    assert gone(stage, "serving") and gone(stage, "ray start")


def test_judges_that_only_validate_have_nodes_of_their_own_and_stand_apart(stage):
    process = submit(stage, JUDGE_MODELS="a=org/A", VAL_JUDGE_MODELS="b=org/B", VAL_JUDGES="c=http://else/v1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert 'JUDGES="a=http://j0:8000/v1"\nVAL_JUDGES="c=http://else/v1 b=http://j1:8000/v1"' in output
    run = next(text for text in texts(stage) if "alignxplore.rl.train" in text)
    assert "streaming.judges='a=http://j0:8000/v1' " in run
    assert "streaming.val_judges='c=http://else/v1 b=http://j1:8000/v1'" in run


def test_a_node_that_ray_misses_is_waited_for_and_then_named(stage):
    output, _ = (process := submit(stage, LOST="1", LIMIT="1")).communicate(timeout=60)
    assert process.returncode == 1 and "no Ray on 3 nodes after 1 s" in output
    assert gone(stage, "ray start") and gone(stage, "serving") and not alive(stage, "rl.train")


def test_judges_of_folders_with_blanks_are_each_one(stage, tmp_path):
    process = submit(stage, JUDGE_MODELS=f"a={tmp_path}/my judge\nb={tmp_path}/other judge")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    served = [text for text in texts(stage) if "alignxplore.serving" in text]
    assert len(served) == 2 and sum(f"serving {tmp_path}/my judge --port" in text for text in served) == 1


def test_the_job_ends_as_the_run_ends(stage):
    process = submit(stage, RUN_CODE="3")
    process.communicate(timeout=60)
    assert process.returncode == 3 and gone(stage, "serving")


def test_a_lost_node_ends_the_job_and_the_run(stage):
    process = submit(stage, RAY_TICKS="150", RUN_TICKS="900")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1 and "a node of Ray ended" in output
    assert gone(stage, "rl.train") and gone(stage, "serving")


def test_a_job_whose_time_is_up_lets_the_run_end_in_order_and_leaves_nothing(stage):
    process = submit(stage, RUN_TICKS="900")
    first_line(process, "^JUDGES=")
    wait_for_run(stage)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    counts = (2, 3)
    while "saved" not in texts(stage):  # looked for after they were counted: they end as soon as it is there
        assert counts == (2, 3), "the run still needs them"
        assert time.monotonic() < deadline
        counts = len(alive(stage, "serving")), len(alive(stage, "ray start"))
    assert process.wait(20) == 3 and gone(stage, "rl.train") and gone(stage, "ray start") and gone(stage, "serving")


def test_a_job_that_is_ended_while_it_waits_leaves_nothing(stage):
    process = submit(stage, JUDGE_MODELS="a=org/A b=silent")
    first_line(process, "^Ray on 3 nodes: there")
    process.send_signal(signal.SIGTERM)
    assert (
        process.wait(20) == 143
        and gone(stage, "ray start")
        and gone(stage, "serving")
        and not alive(stage, "rl.train")
    )


def test_a_lost_judge_ends_the_job_and_the_run_in_order(stage):
    process = submit(stage, RUN_TICKS="900")
    first_line(process, "^JUDGES=")
    wait_for_run(stage)
    (judge,) = alive(stage, "alignxplore.serving org/A")
    os.kill(int(judge), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "saved" in texts(stage)
    assert "a judge of the reward or a node of Ray ended" in output
    assert gone(stage, "rl.train") and gone(stage, "serving") and gone(stage, "ray start")


def test_jobs_get_the_memory_of_their_nodes():
    """Slurm's default is a share for each CPU that was asked for, and none is."""
    for script in (SLURM, ROOT / "sft/slurm_sft.sbatch"):
        assert "\n#SBATCH --mem=0\n" in script.read_text()


@pytest.mark.parametrize("script", [SLURM, ROOT / "sft/slurm_sft.sbatch"])
def test_outside_a_job_settings_are_looked_at_and_nothing_is_started(stage, script):
    none = {name: "" for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES")}
    process = stage(script, ENVIRONMENT="/dev/null", **none)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and "no Slurm job: submit it with sbatch" in output and not stage.seen()
    process = stage(script, "--check", ENVIRONMENT="/dev/null", NNODES="3", NPROC="2", **none)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    if script == SLURM:
        (run,) = texts(stage)
        assert "check_only=true" in run and "trainer.nnodes=3" in run
    else:
        assert "NNODES=3 nodes of NPROC=2 processes each" in output
        process = stage(script, "--check", ENVIRONMENT="/dev/null", **none)
        output, _ = process.communicate(timeout=30)
        assert "NNODES=8 nodes of NPROC=8 processes each" in output, "as the file asks for"


def test_a_wrong_number_of_nodes_is_named(stage):
    process = submit(stage, nodes="n0 n1 n2")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and "need --nodes=5" in output and not stage.seen()
