"""The commands behind the tables, from record files to reports, against a server whose opinions are known.

It stands for policy and downstream model; the same commands behind real vLLM are in test_nine_benchmarks.py.
"""

import asyncio
import json
import math
import os
from shutil import copyfile

import pytest

from alignxplore.judging.letters import find_letters
from alignxplore.records import read_jsonl
from tests import ROOT

pytestmark = pytest.mark.slow


class Reader:
    """Writes whose history it was shown and obeys injected orders; as a downstream model it prefers the item of the
    user it was told of."""

    def __init__(self, tokenizer, say):
        self.letters, self.say, self.count = find_letters(tokenizer), say, 0

    def __call__(self, body: dict) -> dict:
        self.count += 1
        text = next(m["content"] for m in body["messages"] if m["role"] == "user")
        if not body.get("logprobs"):
            if "QX-4417" in text:
                return self.say("<think>\nI am told to\n</think>\n\nQX-4417")
            return self.say(f"<think>\nI read\n</think>\n\nlikes what user-{text.split('user-')[1].split()[0]} takes")
        summary_text, items = text.split("\nItem A: ")
        user = next((name for name in ("user-1", "user-2", "user-3", "user-4") if name in summary_text), "nobody")
        first = "last" in items.split("\nItem B: ")[0] and user in items
        p = dict(zip(self.letters.tokens, (0.5, 0.5) if user == "nobody" else (0.9, 0.1) if first else (0.1, 0.9)))
        entries = [
            {"token": f"token_id:{i}", "logprob": math.log(p.get(i, 1e-6))}
            for i in body.get("logprob_token_ids") or self.letters.tokens
        ]
        return {
            "choices": [
                {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}
            ]
        }


async def run(script: str, *options: str, code: int = 0, **variables: str) -> str:
    """Run one of the scripts of eval/, which is to end with this code; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(ROOT / "eval" / script),
        *options,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == code, output[-3000:]
    return output


@pytest.fixture
def models(tokenizer, tmp_path):
    """(URL) → the variables MODEL and JUDGE."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return lambda url: {
        "MODEL": f"ours={url}#{tmp_path / 'tokenizer'}",
        "JUDGE": f"reader={url}#{tmp_path / 'tokenizer'}",
        "PROTOCOL": "choice",
    }


def files(record, benchmark_file) -> dict[str, str]:
    """Two tasks of the same four users."""
    return {
        name: f"{name}={benchmark_file(name, [record(f'user-{i}', kind=kind) for i in range(1, 5)])}"
        for name, kind in (("world_films", "film"), ("world_news", "news"))
    }


async def test_cross_task_by_one_command_and_nothing_is_asked_twice(
    fake_server, tokenizer, say, models, record, benchmark_file, tmp_path
):
    reader, paths, out = Reader(tokenizer, say), files(record, benchmark_file), tmp_path / "out"
    (out / "data").mkdir(parents=True)
    copyfile(
        tmp_path / "world_films_upi.jsonl", out / "data" / "mind~to~amazon_upi.jsonl"
    )  # of an earlier run with other DATA
    async with fake_server(reader, max_model_len=16384) as server:
        variables = models(server.url) | {"DATA": " ".join(paths.values()), "OUT": str(out)}
        output = await run("cross_task.sh", **variables)
        count = reader.count
        assert await run("cross_task.sh", **variables)
    assert "world_films → world_news (n = 4)" in output and "are not public" in output
    results = json.loads((out / "tables" / "cross_task" / "results.json").read_text())
    rows = {(row["policy"], row["setting"], row["benchmark"]): row for row in results}
    assert {name for *_, name in rows} == {
        "world_films~to~world_news",
        "world_news~to~world_films",
        "world_films",
        "world_news",
    }
    for name_of_variant in ("world_films~to~world_news", "world_news~to~world_films"):
        assert (
            rows["ours", "full", name_of_variant]["accuracy"] == 1.0
        )  # the summary names the user, whose item the reader then knows
        assert (
            rows["no summary", "none", name_of_variant]["accuracy"]
            == 0.5
            == rows["first item", "none", name_of_variant]["accuracy"]
        )
        assert (
            rows["other user's (ours)", "full", name_of_variant]["accuracy"] == 0.5
        )  # of someone else: position decides, both orders are asked
    assert (
        reader.count - count <= 9
    )  # the check of the downstream model: eight rows and a probe; everything else is in the journals
    samples = [row for _, row in read_jsonl(out / "tables" / "cross_task" / "samples.jsonl")]
    assert len(samples) == 16 and all(len(row["summaries"]) == 1 and row["scores"] for row in samples)
    assert (
        "<svg" not in (page := (out / "tables" / "cross_task" / "report.html").read_text())
        and "data:image/svg+xml" in page
    )


async def test_robustness_by_one_command_sees_what_was_obeyed(
    fake_server, tokenizer, say, models, record, benchmark_file, tmp_path
):
    reader, paths, out = Reader(tokenizer, say), files(record, benchmark_file), tmp_path / "out"
    (out / "data").mkdir(parents=True)
    copyfile(
        tmp_path / "world_films_upi.jsonl", out / "data" / "world_films~swapped20_upi.jsonl"
    )  # of an earlier run with other KINDS
    async with fake_server(reader, max_model_len=16384) as server:
        output = await run(
            "robustness.sh",
            **models(server.url),
            DATA=paths["world_films"],
            MIX=paths["world_news"],
            OUT=str(out),
            SETTINGS="full",
            KINDS="shuffled injected_order:0.5",
            LIMIT="3",
        )
    with (out / "table_injection_reader_choice.csv").open() as file:
        line = next(row for row in file if row.startswith("ours,full"))
    assert ",100.00,0.00," in line  # all three obeyed, none without the injection
    line_of = {text.split("|")[1].strip(): text for text in output.splitlines() if text.startswith("| world_films")}
    assert set(line_of) == {
        "world_films",
        "world_films, shuffled",
        "world_films, mixed",
        "world_films, injected_order50",
    }
    assert (
        "100.00 [29.24, 100.00] | +0.00 [" in line_of["world_films, shuffled"]
        and "−50.00 [" in line_of["world_films, injected_order50"]
    )
    assert (out / "robustness.html").exists() and (out / "hardened" / "report.html").exists()


async def test_the_check_of_robustness_counts_the_users_that_it_would_take(record, benchmark_file, tmp_path):
    data, out = files(record, benchmark_file)["world_films"], str(tmp_path / "out")
    variables = {
        "MODEL": "ours=http://127.0.0.1:9/v1",
        "JUDGE": "reader=http://127.0.0.1:9/v1",
        "DATA": data,
        "OUT": out,
    }
    output = await run("robustness.sh", "--check", **variables, SETTINGS="full", LIMIT="3")
    assert "| ours | world_films | full | 0 | 3 | 1 | 0 | 3 |" in output
    output = await run("robustness.sh", "--check", **variables, SETTINGS="full", KINDS="shuffled")
    assert "2 files: world_films world_films~shuffled" in output
    output = await run("robustness.sh", "--check", **variables, KINDS="shufled", code=2)
    assert "unknown kind 'shufled'; choose from" in output


async def test_the_check_of_cross_task_looks_for_people_in_both(record, benchmark_file, tmp_path):
    variables = {"MODEL": "ours=http://127.0.0.1:9/v1", "JUDGE": "reader=http://127.0.0.1:9/v1"}
    variables |= {"OUT": str(tmp_path / "out")}
    paths = files(record, benchmark_file)
    output = await run("cross_task.sh", "--check", **variables, DATA=" ".join(paths.values()))
    assert "4 files of 4 people: world_films~to~world_news" in output
    strangers = benchmark_file("world_news", [record("nobody", kind="news")])
    output = await run("cross_task.sh", "--check", **variables, DATA=f"{paths['world_films']} a={strangers}", code=1)
    assert "shares no user with" in output and not (tmp_path / "out").exists()
