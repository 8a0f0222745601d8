"""A disk that fills up under a run: one sentence that names a file of that disk, the last whole checkpoint stays, and
with more space the same command comes to what an undisturbed run does.

The console's part takes seconds. The real run takes minutes, and belongs to the kill suite:

    KILLS=1 ./test.sh --kill -k fills_up
"""

import subprocess
import sys

import pytest

pytest.importorskip("verl")

from tests import ROOT  # noqa: E402
from tests.reliability.disks import LARGE, Disk  # noqa: E402
from tests.reliability.kills import WHOLE  # noqa: E402
from tests.rl.test_kills import made  # noqa: E402
from tests.rl.test_run import checkpointed, metrics, wait_until  # noqa: E402

ENDS = """
import sys
from pathlib import Path
from omegaconf import OmegaConf
from alignxplore.rl import train as module

folder = Path(sys.argv[1])

def fills_up(config):
    with module.quiet_console(folder / "train.log", folder / "progress.txt"):
        with open(folder / "ballast", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        print("what a library prints " * 9)
        try:
            raise OSError(28, "No space left on device", str(folder / "checkpoints" / "global_step_2"))
        except OSError as error:
            module.into_the_log()
            raise module.TrainingEnded from error

module.run = fills_up
module.main.__wrapped__(OmegaConf.create({"streaming": {"out": str(folder)}}))
"""


@pytest.fixture
def disk(tmp_path):
    new_disk = Disk(tmp_path / "disk")
    yield new_disk
    new_disk.close()


def test_a_full_log_does_not_hide_why_a_run_ended(disk, environment):
    """Neither is what could not be written to the log shown on the console."""
    command = [sys.executable, "-c", ENDS, str(disk.path)]
    environment = environment | {"PYTHONUNBUFFERED": ""}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 1 and not process.stdout
    sentence, remedy = process.stderr.splitlines()
    assert sentence.startswith(f"stopped: [Errno 28] No space left on device: '{disk.path}/checkpoints/global_step_2'")
    assert sentence.endswith("make space, and run the same command again") and "no checkpoint was saved" in remedy


def fill_up(disk, process, out, step, room):
    """Once a step is saved, leave so many bytes; with more space again, it is still the last that was saved."""
    wait_until(lambda: checkpointed(out) == step, process)
    disk.remount(f"size={disk.used() + room}")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and "Traceback" not in output, output
    sentence = output.strip().splitlines()[-2]
    assert sentence.startswith("stopped: [Errno 28]") and f"'{out}/" in sentence, output
    assert "the same command continues after the last checkpoint" in output
    disk.remount(f"size={LARGE}")
    assert checkpointed(out) == step and not (out / "checkpoints" / f"global_step_{step + 1}").exists()


@pytest.mark.slow
@pytest.mark.kill
@WHOLE
def test_a_disk_that_fills_up_takes_no_step_that_was_saved(launch, judge, disk, tmp_path):
    """First there is room for a step's row and not for its checkpoint, then for nothing at all."""
    url, sizes = judge("words"), {"STEPS": "4", "SAVE_EVERY": "1", "TEST_EVERY": "-1"}
    out, option = disk.path / "out", "trainer.val_before_train=false"
    for step, room in ((1, 256 << 10), (2, 0)):
        fill_up(disk, launch.start(out, url, option, **sizes), out, step, room)
    process = launch(out, url, option, **sizes)
    assert process.returncode == 0 and "continuing after step 2 of 4" in process.stdout, process.stdout
    assert launch(tmp_path / "whole", url, option, **sizes).returncode == 0
    assert made(out) == made(tmp_path / "whole") and sorted(metrics(out)) == [1, 2, 3, 4]
