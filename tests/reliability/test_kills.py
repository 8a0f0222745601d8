"""Building, scoring, synthesis, summaries and judgements, killed and continued (kills.py). SFT and RL: tests/sft and
tests/rl."""

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, read_jsonl, write_jsonl
from tests import ROOT
from tests.reliability.kills import Stage, Suite
from tests.reliability.served import Served
from tests.synthesis.teachers import MERGED, MERGING, Models

pytestmark = [pytest.mark.slow, pytest.mark.kill]
USERS, AT_ONCE, SECONDS = 40, 4, 0.1  # users, units in flight, and how long a reply takes


def say(text: str) -> str:
    return MERGED if MERGING in text else "<think>\nchooses red\n</think>\n\nLikes red."


def records(count: int) -> list[UserRecord]:
    return [
        UserRecord(
            f"u{n}",
            tuple(Interaction(f"red thing {i} of u{n}.", f"blue thing {i} of u{n}.") for i in range(17)),
            Interaction(f"red thing 17 of u{n}.", f"blue thing 17 of u{n}."),
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def server(tokenizer):
    """Policy, judge and teacher, who take their time; counts what it is asked."""
    models = Models(tokenizer, say)

    def slowly(body: dict) -> Awaitable[dict]:
        return asyncio.sleep(SECONDS, models(body))

    with Served(slowly, max_model_len=16384) as served:
        yield served


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    tokenizer.save_pretrained(folder / "tokenizer")
    write_jsonl(folder / "world_films_upi.jsonl", map(user_row, records(USERS)))
    write_jsonl(folder / "few_upi.jsonl", map(user_row, records(10)))
    write_jsonl(folder / "many_upi.jsonl", map(user_row, records(400)))
    return folder


def journal(path: Path) -> dict[str, dict]:
    """Unit → its row, of those that are done; a torn last line is none."""
    rows = {}
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if line.endswith(b"\n"):
            row = json.loads(line)
            rows[row["id"]] = row
    return {unit: row for unit, row in rows.items() if row.get("status") == "ok"}


def rows_of(out: Path, pattern: str) -> dict[str, dict]:
    return {unit: row for path in sorted(out.glob(pattern)) for unit, row in journal(path).items()}


def timeless(value: Any) -> Any:
    """Without the seconds that something took."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in ("seconds", "created")}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def building(data: Path) -> Stage:
    raw = ROOT / "data/movielens/ml-latest-small"
    return Stage(
        "building",
        lambda out: [
            *(sys.executable, "-m", "alignxplore.datasets", "build", "movielens", "--raw", raw),
            *("--min-interactions", "5", "--windows", "8", "--out", out / "movielens_upi.jsonl"),
        ],
        begun=lambda out: any(out.iterdir()),
        made=lambda out: {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix == ".jsonl" else path.name
            for path in out.iterdir()
        },
    )


def summaries(data: Path, server: Served) -> Stage:
    return Stage(
        "summaries",
        lambda out: [
            *(sys.executable, ROOT / "eval/gen_preference.py", "--model", f"m={server.url}#{data / 'tokenizer'}"),
            *("--data", data / "world_films_upi.jsonl", "--out", out, "--concurrency", AT_ONCE, "--max_tokens", "64"),
        ],
        begun=lambda out: bool(rows_of(out, "summaries/*/*.jsonl")),
        made=lambda out: timeless(dict(sorted(rows_of(out, "summaries/*/*.jsonl").items()))),
        finished=lambda out: {unit: len(row["stages"]) for unit, row in rows_of(out, "summaries/*/*.jsonl").items()},
        requests=server.asked.total,
        in_flight=2 * AT_ONCE,
    )


def judgements(data: Path, server: Served, written: Path) -> Stage:
    def prepare(out: Path) -> None:
        out.mkdir(parents=True)
        for path in written.glob("summaries/*/*"):
            (out / path.relative_to(written)).parent.mkdir(parents=True, exist_ok=True)
            (out / path.relative_to(written)).write_bytes(path.read_bytes())

    return Stage(
        "judgements",
        lambda out: [
            *(sys.executable, ROOT / "eval/evaluate.py", "--judge", f"m={server.url}#{data / 'tokenizer'}"),
            *("--data", data / "world_films_upi.jsonl", "--out", out, "--concurrency", AT_ONCE),
        ],
        begun=lambda out: bool(rows_of(out, "judgements/*/*.jsonl")),
        made=lambda out: ([row for _, row in read_jsonl(out / "scores.jsonl")], (out / "results.json").read_text()),
        finished=lambda out: dict.fromkeys(rows_of(out, "judgements/*/*.jsonl"), 2),
        requests=server.asked.total,
        in_flight=2 * AT_ONCE,
        prepare=prepare,
    )


def synthesis(data: Path, server: Served) -> Stage:
    return Stage(
        "synthesis",
        lambda out: [
            *(sys.executable, ROOT / "sft/synthesize.py", "--teacher", f"m={server.url}#{data / 'tokenizer'}"),
            *("--data", data / "few_upi.jsonl", "--out", out, "--concurrency", 2, "--max_tokens", "64"),
        ],
        begun=lambda out: bool(journal(out / "calls.jsonl")),
        made=lambda out: ((out / "sft.jsonl").read_text(), (out / "funnel.json").read_text()),
        finished=lambda out: {
            unit: 2 if "judgement" in row else 1 for unit, row in journal(out / "calls.jsonl").items()
        },
        requests=server.asked.total,
        in_flight=2 * 2 * 5,  # of each user the drafts of a round are asked at once, or both orders of each
    )


def scoring(data: Path, model_folder: Path) -> Stage:
    def parts(out: Path) -> list[str]:
        rows = [row["id"] for path in sorted(out.glob("part-*.jsonl")) for row in journal(path).values()]
        lines = sum(path.read_bytes().count(b"\n") for path in out.glob("part-*.jsonl"))
        assert lines == len(rows) == len(set(rows)), "a user was scored twice"
        return sorted(rows)

    return Stage(
        "scoring",
        lambda out: [
            *(sys.executable, ROOT / "sft/signal_model.py", "score", "--model", model_folder),
            *("--data", data / "many_upi.jsonl", "--out", out),
        ],
        begun=lambda out: (out / "part-0.jsonl").exists() and (out / "part-0.jsonl").stat().st_size > 0,
        made=lambda out: (parts(out), (out / "scores.jsonl").read_bytes(), (out / "foresight.json").read_text()),
        finished=lambda out: rows_of(out, "part-*.jsonl") and dict.fromkeys(rows_of(out, "part-*.jsonl"), 1),
    )


def test_building(data, tmp_path):
    Suite(building(data), tmp_path).all()


def test_summaries(data, server, tmp_path):
    Suite(summaries(data, server), tmp_path).all()


def test_judgements(data, server, tmp_path):
    suite = Suite(summaries(data, server), tmp_path / "summaries")
    Suite(judgements(data, server, suite.place / "whole" / "out"), tmp_path / "judgements").all()


def test_synthesis(data, server, tmp_path):
    Suite(synthesis(data, server), tmp_path).all()


def test_scoring(data, model_folder, tmp_path):
    Suite(scoring(data, model_folder), tmp_path).all()
