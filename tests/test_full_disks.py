"""A disk that is full, or that cannot be written to, under every stage that writes: one sentence that names a file or
folder of that disk, what was there stays whole, and with more space the same command comes to what an undisturbed run
does, asking nothing twice."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, write_json, write_jsonl
from tests import ROOT
from tests.judging.test_letters import LetterServer
from tests.reliability.disks import LARGE, Disk, size_of
from tests.synthesis.teachers import ITEMS, Models

THINKS = "<think>\nI read\n</think>\n\nfilms " + "and more films " * 40


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    new_disk = Disk(tmp_path / "disk")
    yield new_disk
    new_disk.close()


async def ended(command: Sequence[object], environment: dict[str, str]) -> tuple[int, str]:
    """(exit code, what it said); the server of a test goes on answering."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, command),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def goes_on_with_more_space(
    disk: Disk, command: Sequence[object], environment: dict[str, str], needed: int, shares: Sequence[float]
) -> None:
    """Fail on a disk that cannot be written to, and on disks of shares of what the command needs; then succeed."""
    disk.remount("ro")
    code, output = await ended(command, environment)
    assert code == 1 and "Traceback" not in output and f"Read-only file system: '{disk.path}" in output, output
    disk.remount("rw")
    for share in shares:
        disk.remount(f"size={max(8192, disk.used(), int(share * needed))}")
        code, output = await ended(command, environment)
        last = output.strip().splitlines()[-1]
        assert code == 1 and "Traceback" not in output, output
        assert "[Errno 28]" in last and f"'{disk.path}" in last and last.endswith("run the same command again"), last
    disk.remount(f"size={LARGE}")
    code, output = await ended(command, environment)
    assert code == 0, output


def lines(path: Path) -> dict[str, dict]:
    return {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}


async def test_building(disk, environment, tmp_path):
    command = ["-m", "alignxplore.datasets", "build", "movielens", "--raw", "data/movielens/ml-latest-small"]
    command += ["--min_interactions", "60", "--out"]
    source, target = tmp_path / "whole", disk.path / "out"
    assert (await ended([*command, source / "a_upi.jsonl"], environment))[0] == 0
    await goes_on_with_more_space(
        disk, [*command, target / "a_upi.jsonl"], environment, size_of(source), [0, 0.2, 0.9]
    )
    for path in source.iterdir():
        if not path.name.endswith(".build.json"):  # which says how long it took
            assert (target / path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in target.iterdir()} == {path.name for path in source.iterdir()}


@pytest.fixture
def users(tmp_path, tokenizer) -> Path:
    """A benchmark of 40 users, beside a tokenizer."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    history = tuple(Interaction(f"film {i}", f"other {i}", "which?") for i in range(6))
    records = [UserRecord(f"u{n}", history, Interaction(f"good film {n}", "a bad one", "which?")) for n in range(40)]
    write_jsonl(tmp_path / "world_films_upi.jsonl", map(user_row, records))
    return tmp_path / "world_films_upi.jsonl"


@pytest.mark.slow
async def test_summaries_judgements_reports_and_exports(
    disk, environment, users, tokenizer, fake_server, say, tmp_path
):
    def in_folder(out: Path, url: str, judge: str) -> dict[str, list]:
        shared = ["--data", users, "--out", out, "--concurrency", 4]
        policy, reader = (f"{name}={at}#{tmp_path}/tokenizer" for name, at in (("ours", url), ("reader", judge)))
        return {
            "summaries": ["eval/gen_preference.py", "--model", policy, "--settings", "full", *shared],
            "judgements": ["eval/evaluate.py", "--judge", reader, "--cues", "first item", *shared],
            "report": ["eval/report.py", "--out", out],
            "export": ["eval/export.py", "--out", out],
        }

    judge = LetterServer(tokenizer, lambda a, b: (0.9, 0.08) if "good" in a else (0.08, 0.9))
    async with fake_server(lambda body: say(THINKS), max_model_len=16384) as policy, fake_server(judge) as reader:
        needs_of: dict[str, list] = {}
        for out in (tmp_path / "whole", disk.path / "out"):
            for stage, command in in_folder(out, policy.url, reader.url).items():
                before, requests = disk.used(), len(policy.bodies) + len(reader.bodies)
                if out.is_relative_to(disk.path):
                    await goes_on_with_more_space(disk, command, environment, *needs_of[stage][:1], [0.5])
                else:
                    was = size_of(out)
                    code, output = await ended(command, environment)
                    assert code == 0, output
                    needs_of[stage] = [size_of(out) - was + before, len(policy.bodies) + len(reader.bodies) - requests]
                    continue
                more = len(policy.bodies) + len(reader.bodies) - requests - needs_of[stage][1]
                # What was in flight, and what each connection asks at its start.
                assert more <= 4 * 12, f"{stage}: {more} of {needs_of[stage][1]} asked twice"
    summaries = [lines(folder / "summaries/ours/world_films.full.s0.jsonl") for folder in (tmp_path / "whole", out)]
    assert summaries[0].keys() == summaries[1].keys() and len(summaries[0]) == 40
    scored = [(folder / "results.json").read_text() for folder in (tmp_path / "whole", out)]
    assert scored[0] == scored[1]
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
async def test_synthesis(disk, environment, tokenizer, model_folder, fake_server, tmp_path):
    records = [UserRecord(f"u{n}", tuple(ITEMS[:17]), replace(ITEMS[17], query=f"{n}?")) for n in range(12)]
    write_jsonl(tmp_path / "users.jsonl", map(user_row, records))
    async with fake_server(Models(tokenizer)) as server:
        command = [
            "sft/synthesize.py",
            "--data",
            tmp_path / "users.jsonl",
            "--teacher",
            f"m={server.url}#{model_folder}",
        ]
        command += ["--max_tokens", 64, "--concurrency", 2, "--requests", 4, "--out"]
        code, output = await ended([*command, tmp_path / "whole"], environment)
        assert code == 0, output
        requests = len(server.bodies)
        needed = size_of(tmp_path / "whole")
        await goes_on_with_more_space(disk, [*command, disk.path / "out"], environment, needed, [0.5])
        assert len(server.bodies) - 2 * requests <= 2 * (4 + 10)  # in flight, and the judge's check at the start
    for name in ("sft.jsonl", "funnel.json"):
        assert (disk.path / "out" / name).read_text() == (tmp_path / "whole" / name).read_text()


@pytest.mark.slow
async def test_preparing_training_and_scoring(disk, environment, rows_file, model_folder, tmp_path):
    train = ["sft/sft.py", "--config", "sft/configs/tiny.yaml", "--model_name_or_path", model_folder]
    train += ["--train_data", rows_file, "--max_steps", 6, "--logging_steps", 1, "--save_steps", 2]
    train += ["--use_cpu", "true", "--output_dir"]
    histories = [
        {"userid": f"u{n}", "history": [vars(x) for x in ITEMS[:9]], "target": vars(ITEMS[n])} for n in range(12)
    ]
    write_jsonl(tmp_path / "users.jsonl", histories)
    score = ["sft/signal_model.py", "score", "--model", model_folder, "--data", tmp_path / "users.jsonl", "--out"]
    prepare = ["sft/prepare_dataset.py", "--model", model_folder, "--data", rows_file, "--out"]
    for stage, command in {"prepare": prepare, "train": train, "score": score}.items():
        target = tmp_path / stage
        code, output = await ended([*command, target], environment)
        assert code == 0, output
        needed = size_of(target)
        await goes_on_with_more_space(disk, [*command, disk.path / stage], environment, needed, [0.5])
    assert (disk.path / "train/model.safetensors").read_bytes() == (tmp_path / "train/model.safetensors").read_bytes()
    assert (disk.path / "score/scores.jsonl").read_text() == (tmp_path / "score/scores.jsonl").read_text()


async def test_a_picture_that_cannot_be_written_leaves_the_earlier_one(environment, tmp_path):
    """As where the disk is full; the picture and its form beside it."""
    for name in ("plot.png", "plot.svg"):
        (tmp_path / name).write_text("earlier")
    command = f"""
import resource
from pathlib import Path
import matplotlib.pyplot as plt
from alignxplore.errors import one_sentence
from alignxplore.plotting import save
with one_sentence():
    figure, axes = plt.subplots()
    axes.plot(range(9))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    save(figure, Path({str(tmp_path / "plot.png")!r}))
"""
    code, output = await ended(["-c", command], environment)
    assert code == 1 and f"File too large: '{tmp_path}/plot.png'; what is done is kept" in output, output
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("plot.png", "plot.svg"), "earlier"
    )


async def test_a_file_that_may_not_grow_is_the_same(environment, tmp_path):
    """Where no file system can be mounted: the kernel refuses to make a file larger (`ulimit -f`)."""
    write_json(tmp_path / "small.json", "x")
    command = f"""
import resource, signal
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from alignxplore.errors import one_sentence
from alignxplore.records import write_json
with one_sentence():
    write_json({str(tmp_path / "small.json")!r}, "x" * 9000)
"""
    code, output = await ended(["-c", command], environment)
    assert code == 1 and f"File too large: '{tmp_path}/small.json'; what is done is kept" in output, output
    assert json.loads((tmp_path / "small.json").read_text()) == "x" and len(list(tmp_path.iterdir())) == 1
