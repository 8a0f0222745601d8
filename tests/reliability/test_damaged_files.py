"""Fuzzing of every reader: whatever a file holds, it is read whole, or refused by file and line; nothing crashes,
hangs, or is passed over in silence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.benchmark_files import read_users
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.journal import Journal
from alignxplore.rl.rows import read_rows as read_rl_rows
from alignxplore.sft.tokenised_set import tokenised_rows
from alignxplore.synthesis.streams import read_behaviours
from alignxplore.synthesis.streams import read_scores as read_signals
from tests.conftest import make_row
from tests.reliability.damage import DERANDOMIZED, damaged_bytes, damaged_lines, dropped_last, lines_of, outcome

PAIR = {"query": "which?", "chosen": "a film", "rejected": "another film"}
USERS = [
    {"userid": f"u{n}", "history": [PAIR, PAIR | {"chosen": f"film {n}"}], "target": PAIR | {"chosen": "the last"}}
    for n in range(3)
]
USERS[1] |= {"ground_truth_persona": "likes films", "question_type": "recall"}
USERS[2]["target"] |= {"rejected": ["one", "two"]}
RL = [
    {"uid": f"u{n}", "history": [PAIR | {"chosen": f"film {i}"} for i in range(4)], "mid_position": 2}
    for n in range(3)
]
RL[1] = RL[1] | {"mid_position": None, "positions": [1, 3]}
SIGNALS = [{"id": f"r{n}", "uid": f"u{n}", "dropped": 0, "scores": [{"position": 0, "p": 0.9}]} for n in range(3)]


@DERANDOMIZED
@given(content=damaged_lines(USERS))
@pytest.mark.parametrize("reader", ["evaluation", "synthesis"])
def test_users(reader, content, tmp_path):
    path = tmp_path / "users.jsonl"
    path.write_bytes(content)
    read = read_users if reader == "evaluation" else lambda file: read_behaviours(file, None)
    records, messages = outcome(lambda: list(read(path)), path)
    if records is not None and reader == "evaluation":
        assert len(records) == lines_of(path) - dropped_last(messages)
        assert all(record.history and record.target.chosen.strip() for record in records)


@DERANDOMIZED
@given(content=damaged_lines(RL), stages=st.sampled_from([1, 2, 3]))
def test_rl_rows(content, stages, tmp_path):
    path = tmp_path / "rl.jsonl"
    path.write_bytes(content)
    rows, messages = outcome(lambda: list(read_rl_rows(path, stages)), path)
    if rows is not None:
        assert len(rows) == lines_of(path) - dropped_last(messages)
        assert all(len(row["positions"]) == stages for row, _ in rows)


@DERANDOMIZED
@given(content=damaged_lines([make_row(n) for n in range(3)]))
def test_sft_rows(content, tokenizer, tmp_path):
    path, counts = tmp_path / "sft.jsonl", {}
    path.write_bytes(content)
    rows, messages = outcome(lambda: list(tokenised_rows([str(path)], tokenizer, 4096, None, counts)), path)
    if rows is not None:
        dropped = counts["dropped_too_long"] + counts["dropped_control_token"]
        assert len(rows) + dropped == lines_of(path) - dropped_last(messages)


@DERANDOMIZED
@given(content=damaged_lines(SIGNALS))
def test_scores_of_the_signal_model(content, tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(content)
    signals, messages = outcome(lambda: list(read_signals(path, "p")), path)
    assert signals is None or len(signals) == lines_of(path) - dropped_last(messages)


STAGE = {"text": "x", "reasoning": "r", "summary": "s", "problem": None, "dropped": 0, "cut": False, "seconds": 1.0}
ROWS = [
    {"id": f"{n}", "status": "ok", "run": "r", "record": f"c{n}", "user": f"u{n}", "stages": [STAGE]} for n in range(3)
]


@DERANDOMIZED
@given(content=damaged_lines(ROWS))
def test_journals(content, tmp_path):
    """A journal that is taken goes on: its rows can be read, and another one appended."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)

    def use() -> tuple[int, list[dict]]:
        with Journal(path) as journal:
            rows = list(journal.rows())
            journal.append("another", {"status": "ok"})
        with Journal(path) as journal:
            assert "another" in journal
        return len(rows), rows

    contents, messages = outcome(use, path)
    if contents is not None:
        units = {str(json.loads(line)["id"]) for line in path.read_bytes().splitlines()[:-1]}
        assert contents[0] == len(units) >= lines_of(path) - 1 - content.count(b"\n") // 2


@DERANDOMIZED
@given(content=damaged_lines(ROWS))
def test_summaries(content, tmp_path):
    summaries = SummarySet(tmp_path, "p", "b", "full", 0)
    summaries.journal_path.parent.mkdir(parents=True, exist_ok=True)
    summaries.meta_path.write_text(json.dumps({"run": "r"}))
    summaries.journal_path.write_bytes(content)
    outcome(lambda: [row["status"] for row in summaries.by_record().values()], summaries.journal_path)


@DERANDOMIZED
@given(content=damaged_bytes(json.dumps({"run": "r", "recipe": "x"}).encode()))
def test_what_made_summaries(content, tmp_path):
    summaries = SummarySet(tmp_path, "p", "b", "full", 0)
    summaries.meta_path.parent.mkdir(parents=True, exist_ok=True)
    summaries.meta_path.write_bytes(content)
    meta, _ = outcome(summaries.meta, summaries.meta_path, whole=True)
    assert meta is None or isinstance(meta, dict)
