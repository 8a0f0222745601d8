"""The whole path, for real, on the tiniest sizes and a few persons of MovieLens: `./quickstart.sh` with TRL under
DeepSpeed ZeRO-3, verl on Ray, and vLLM.

It is killed once on the way; the same command then finishes, and a third time finds nothing left to do.
"""

import base64
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import ROOT

PERSONS = 200  # of the 610 of the edition; 63 of them are in the test
SIZES = {
    "TEST_WINDOWS": "1",
    "WINDOWS": "20",
    "JUDGE_WINDOWS": "20",
    "SFT_WINDOWS": "1",
    "RL_STEPS": "2",
    "NPROC": "2",
    "SFT_OPTIONS": "--deepspeed sft/configs/zero3.json",
}
SECRET = "canary-2b90c4e1"
KEYS = dict.fromkeys(("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "VLLM_API_KEY"), SECRET)
WORKING = {"logs", "log", "settings", "config.yaml", ".lock"}  # what a run keeps for itself, and names its folders in
FIELDS = set(
    "policy setting benchmark judge protocol n accuracy ci_low ci_high bad_format parse_failures coverage".split()
)

pytestmark = pytest.mark.slow


def write_edition(folder: Path) -> None:
    """The raw files of an edition with the first persons of latest-small."""
    folder.mkdir()
    whole = ROOT / "data/movielens/ml-latest-small"
    head, *ratings = (whole / "ratings.csv").read_text().splitlines(keepends=True)
    lines = (line for line in ratings if int(line.partition(",")[0]) <= PERSONS)
    (folder / "ratings.csv").write_text("".join([head, *lines]))
    (folder / "movies.csv").symlink_to(whole / "movies.csv")


def start(out: Path, log: Path, **sizes: str) -> subprocess.Popen:
    """The quick start in `out`, on the edition beside it."""
    with log.open("ab") as file:
        return subprocess.Popen(
            ["./quickstart.sh", "--no-install", "--out", str(out)],
            cwd=ROOT,
            env=os.environ | SIZES | KEYS | {"DATA": str(out.parent / "edition")} | sizes,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def wait_for(text: str, log: Path, process: subprocess.Popen, output: Path, limit: float = 900) -> None:
    """Until `text` stands in `log`; what the process said is shown if it ends first."""
    deadline = time.monotonic() + limit
    while not log.exists() or text not in log.read_text():
        assert process.poll() is None, output.read_text()[-3000:]
        assert time.monotonic() < deadline, output.read_text()[-3000:]
        time.sleep(0.2)


class Finished(NamedTuple):
    """A run that was killed while SFT trained, and finished by the same command, which a third run met at work."""

    out: Path
    log: Path  # what the second run said
    rival: tuple[int, str]  # exit status and words of the third


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("quickstart")
    out, first, second, third = folder / "out", folder / "first.log", folder / "second.log", folder / "third.log"
    write_edition(folder / "edition")
    killed = start(out, first)
    wait_for("[sft] step", out / "logs" / "sft.log", killed, first)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (out / "results.json").exists()
    again = start(out, second)
    wait_for("== sft", second, again, second)
    rival = start(out, third)
    assert again.wait(timeout=2400) == 0, second.read_text()[-4000:]
    return Finished(out, second, (rival.wait(timeout=120), third.read_text()))


def test_the_second_run_goes_on_where_the_first_was_killed(finished):
    text = finished.log.read_text()
    assert "-- reader: done before" in text and "-- synthesis: done before" in text and "== rl" in text
    assert "min" in text and "left in all" in text and "Where the time went" in text


def test_results_hold_a_row_for_each_policy_setting_and_judge(finished):
    out = finished.out
    rows = json.loads((out / "results.json").read_text())
    assert all(FIELDS <= set(row) and row["benchmark"] == "movielens" for row in rows)
    cells = {(row["policy"], row["setting"], row["judge"]): row for row in rows}
    persons = len((out / "data/movielens_upi.jsonl").read_text().splitlines())
    assert 40 < persons < 90
    for judge in ("judge", "judge2"):
        for setting in ("full", "streaming"):
            for policy in ("untrained", "sft", "sft+rl"):
                row = cells[policy, setting, judge]
                assert row["n"] == persons and row["coverage"] == 1
                assert 0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1
            assert ("other user's (sft+rl)", setting, judge) in cells
        assert (judge, "direct", judge) in cells
    untrained = cells["untrained", "full", "judge"]
    assert untrained["bad_format"] == 1 and untrained["accuracy"] == 0.5
    assert cells["chance", "bound", "none"]["accuracy"] == 0.5 < cells["content tally", "direct", "none"]["accuracy"]
    assert ("popularity", "none", "none") in cells


def test_one_of_its_persons_is_asked_about_with_no_more_than_the_folder(finished, run_script):
    words = [sys.executable, "-m", "alignxplore.ask", "--run", finished.out, "--logs", finished.out / "logs"]
    output = run_script(words).stdout
    record = json.loads((finished.out / "data/movielens_upi.jsonl").read_text().splitlines()[0])
    assert f"{record['userid']}: 12 choices" in output and "sft+rl: reads 12 choices" in output
    journal = finished.out / "eval/summaries/sft+rl/movielens.full.s0.jsonl"
    rows = (json.loads(line) for line in journal.read_text().splitlines())
    written = next(row for row in rows if row.get("user") == record["userid"])
    assert written["stages"][-1]["text"] in output  # as the evaluation has it
    assert re.search(r"judge  no summary +(A|B|neither) +\d+\.\d %", output)
    check = run_script([sys.executable, "-m", "alignxplore.demo", "--run", finished.out, "--check"]).stdout
    assert [line.partition(":")[0] for line in check.splitlines()[:4]] == ["sft", "sft+rl", "judge", "judge2"]


def test_report_and_figures_are_there(finished):
    out = finished.out
    report = (out / "report.md").read_text()
    assert "sft+rl" in report and "content tally" in report and "Paired comparisons" in report
    page = (out / "report.html").read_text()
    assert "data:image/svg+xml;base64," in page and "sft+rl" in page
    [packed] = re.findall(r'data-benchmark="movielens"[^>]*>([^<]+)<', page)
    assert gzip.decompress(base64.b64decode(packed)).count(b'"stages": [{') >= 12
    for name in ("accuracy_by_stage.png", "rl_curves.png"):
        assert (out / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_rl_synced_weights_and_left_a_model(finished):
    out = finished.out
    steps = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    agreement = [row["training/rollout_probs_diff_max"] for row in steps if "training/rollout_probs_diff_max" in row]
    assert len(agreement) == 2 and max(agreement) < 1e-4
    validated = [row for row in steps if "val/judge/coverage" in row]
    assert validated and all(row["val/judge2/coverage"] == 1 for row in validated), "the second judge watches"
    assert list((out / "rl" / "model").glob("*.safetensors"))


def left(out: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file of a run."""
    for path in (path for path in out.rglob("*") if path.is_file() and not path.is_symlink()):
        yield path.relative_to(out), path.read_bytes()


def test_keys_of_the_environment_are_in_nothing_that_is_left(finished):
    names = [str(path) for path, content in left(finished.out) if SECRET.encode() in content]
    logs = [log.name for log in finished.out.parent.glob("*.log") if SECRET in log.read_text()]
    assert not names and not logs


def test_what_is_made_to_be_shown_names_no_folder_of_this_machine(finished):
    """Models, tables, reports, scores and samples; journals and logs are a run's own."""
    out, own = finished.out, {"meta.json", "run.json"}
    content_of = {path: content for path, content in left(out) if not WORKING & set(path.parts)}
    content_of = {path: content for path, content in content_of.items() if not path.name.endswith(tuple(own))}
    assert {"results.json", "report.md", "report.html", "example.md"} <= {str(path) for path in content_of}
    assert sum(path.suffix == ".safetensors" for path in content_of) > 5
    here = (str(out).encode(), str(Path.home()).encode() + b"/", str(ROOT).encode() + b"/")
    assert [str(path) for path, content in content_of.items() if any(folder in content for folder in here)] == []


def test_a_third_run_finds_nothing_to_do(finished, tmp_path):
    out = finished.out
    before = (out / "results.json").read_bytes()
    third = start(out, tmp_path / "third.log")
    assert third.wait(timeout=120) == 0
    text = (tmp_path / "third.log").read_text()
    assert "== " not in text and "-- rl: done before" in text
    assert (out / "results.json").read_bytes() == before


def test_other_settings_need_another_folder(finished, tmp_path):
    out = finished.out
    before = (out / "results.json").read_bytes()
    assert start(out, tmp_path / "log", SEED="2").wait(timeout=120) == 1
    text = (tmp_path / "log").read_text()
    assert "other settings (SEED '1' → '2')" in text
    assert (out / "results.json").read_bytes() == before


def test_a_run_on_the_folder_of_another_is_refused(finished):
    status, output = finished.rival
    assert (
        status == 1 and "another run is writing" in output and "choose another --out" in output and "== " not in output
    )
