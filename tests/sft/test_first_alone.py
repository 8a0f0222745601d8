"""The first process prepares rows while the others wait, longer than those of training would."""

import subprocess
import sys

import pytest

from tests import ROOT

WORK = """
import os, sys, time
from datetime import timedelta
from torch import distributed
from alignxplore.sft.rows import first_alone

distributed.init_process_group("gloo", timeout=timedelta(seconds=8))
rank, folder, fails = distributed.get_rank(), sys.argv[1], len(sys.argv) > 2
with first_alone("prepare rows"):
    if rank == 0:
        time.sleep(12)
        if fails:
            raise SystemExit("rows.jsonl:7: no row")
        open(f"{folder}/rows", "w").close()
    with open(f"{folder}/rank{rank}", "w") as seen:
        print(os.path.exists(f"{folder}/rows"), file=seen)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fails", [[], ["fails"]], ids=["it prepares", "it fails"])
def test_the_others_wait_for_the_first_process_longer_than_in_training(fails, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    launch = [sys.executable, "-m", "alignxplore.torchrun", "--standalone", "--nproc_per_node", "3"]
    words = [*launch, str(tmp_path / "work.py"), str(tmp_path), *fails]
    process = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if fails:
        assert process.returncode == 1 and "rows.jsonl:7: no row" in process.stderr
    else:
        assert process.returncode == 0, process.stderr
        assert [(tmp_path / f"rank{rank}").read_text() for rank in range(3)] == ["True\n"] * 3


def test_one_process_alone_waits_for_nobody():
    from alignxplore.sft.rows import first_alone

    with first_alone("prepare rows"):
        pass
