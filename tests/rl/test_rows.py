"""The data script: RL rows to parquet and back, and what each kind of bad row is told."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from alignxplore import datasets
from alignxplore.records import Interaction, RecordError
from alignxplore.rl.dataset import StreamingDataset, parse_row
from tests import ROOT

MIND = datasets.get("mind").default_query
SCRIPT = ROOT / "verl/examples/data_preprocess/upi_streaming_dataset.py"


def rl_row(uid="u1", length=6, **fields):
    history = [
        {"query": None if i % 2 else f"ask {i}", "chosen": f"chosen {i}", "rejected": f"passed {i}"}
        for i in range(length)
    ]
    return {"uid": uid, "history": history, "mid_position": 2} | fields


def convert(tmp_path, rows, *options):
    data = tmp_path / "rl.jsonl"
    data.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    command = [sys.executable, SCRIPT, "--data", data, "--out", tmp_path / "rl.parquet", *options]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)


def message(tmp_path, rows, *options):
    process = convert(tmp_path, rows, *options)
    assert process.returncode == 1 and not (tmp_path / "rl.parquet").exists() and "Traceback" not in process.stderr
    assert not list(tmp_path.glob(".*.partial"))
    return process.stderr


def test_each_history_is_stored_once_and_comes_back_as_stages(tmp_path):
    process = convert(
        tmp_path, [rl_row("a"), rl_row("b", length=9, mid_position=4, signal_gap=0.3, mid_record={"x": 1})]
    )
    assert process.returncode == 0, process.stderr
    table = pq.read_table(tmp_path / "rl.parquet")
    assert table.column_names == ["user", "history", "positions"]
    data = StreamingDataset(str(tmp_path / "rl.parquet"))
    assert len(data) == 2
    row = data[1]
    assert row["raw_prompt"] == [] and row["index"] == 1
    user, (first, second) = parse_row(row["extra_info"])
    assert user == "b" and len(first.interactions) == 4 and len(second.interactions) == 4
    assert first.targets == (Interaction("chosen 4", "passed 4", "ask 4"),) == second.interactions[:1]
    assert second.targets == (Interaction("chosen 8", "passed 8", "ask 8"),)


@pytest.mark.parametrize(("name", "options"), [("mind_rl.jsonl", ()), ("rl.jsonl", ("--default_query", MIND))])
def test_a_null_query_is_what_sft_and_evaluation_read(name, options, tmp_path):
    data, out = tmp_path / name, tmp_path / "rl.parquet"
    data.write_text(json.dumps(rl_row()) + "\n")
    subprocess.run([sys.executable, SCRIPT, "--data", data, "--out", out, *options], check=True)
    (history,) = pq.read_table(out)["history"].to_pylist()
    assert [x["query"] for x in history[:3]] == ["ask 0", MIND, "ask 2"]


def test_three_stages_from_positions_or_spread_evenly(tmp_path):
    """`mid_position` is of two stages: for another number it is not read, and that is said."""
    rows = [rl_row("a", 9, positions=[1, 4, 7]), rl_row("b", 10), rl_row("c", 10, mid_position=None)]
    process = convert(tmp_path, rows, "--stages", "3")
    assert process.returncode == 0, process.stderr
    assert pq.read_table(tmp_path / "rl.parquet")["positions"].to_pylist() == [[1, 4, 7], [3, 6, 9], [3, 6, 9]]
    assert "of rows without 'positions' the targets are spread evenly, 'mid_position' is not read" in process.stdout
    assert "spread" not in convert(tmp_path, [rl_row()]).stdout


def test_users_are_held_out_by_hash_whatever_the_order(tmp_path):
    rows = [rl_row(f"u{i}") for i in range(20)]
    out = []
    for order in (rows, rows[::-1]):
        assert convert(tmp_path, order, "--val-out", str(tmp_path / "val.parquet"), "--val-users", "5").returncode == 0
        held_out = set(pq.read_table(tmp_path / "val.parquet")["user"].to_pylist())
        assert len(held_out) == 5 and not held_out & set(pq.read_table(tmp_path / "rl.parquet")["user"].to_pylist())
        out.append(held_out)
    assert out[0] == out[1]


def test_all_rows_of_a_person_are_held_out_together(tmp_path):
    rows = [rl_row(f"u{i}#{row}") for i in range(8) for row in range(3)]
    assert convert(tmp_path, rows, "--val-out", str(tmp_path / "val.parquet"), "--val-users", "3").returncode == 0
    train, val = (pq.read_table(tmp_path / f"{name}.parquet")["user"].to_pylist() for name in ("rl", "val"))
    assert (len(train), len(val)) == (15, 9) and not {user.partition("#")[0] for user in train} & {
        user.partition("#")[0] for user in val
    }


def test_rows_of_one_user_get_names_of_their_own(tmp_path):
    rows = [rl_row(name) for name in ("a", "a#2", "a", "b", "a")]
    assert convert(tmp_path, rows, "--allow-duplicates").returncode == 0
    assert pq.read_table(tmp_path / "rl.parquet")["user"].to_pylist() == ["a", "a#2", "a#3", "b", "a#4"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [rl_row("a") | {"history": [*rl_row("a")["history"][:5], {"chosen": "x", "rejected": "x "}]}],
            ["rl.jsonl:1", "history[5].rejected", "the same as 'chosen', so there is no right answer; drop the row"],
        ),
        ([rl_row("a\ud83d")], ["rl.jsonl:1", "field 'uid': half a character"]),
        ([rl_row("a"), rl_row("a")], ["rl.jsonl:2", "uid", "'a' already stands at line 1", "--allow-duplicates"]),
        ([rl_row(length=2)], ["rl.jsonl:1", "history", "too few"]),
        ([rl_row(history=[])], ["rl.jsonl:1", "history", "empty"]),
        ([rl_row(mid_position=0)], ["rl.jsonl:1", "mid_position", "between 1 and 5"]),
        ([rl_row(mid_position=5)], ["mid_position", "must rise"]),
        ([rl_row(mid_position=True)], ["mid_position", "whole numbers"]),
        ([rl_row(mid_position="2")], ["mid_position", "whole numbers"]),
        ([rl_row(positions=[1, 2, 5])], ["positions", "3 places for 2 stages", "--stages 3"]),
        ([{k: v for k, v in rl_row().items() if k != "mid_position"}], ["mid_position", "missing"]),
        ([{k: v for k, v in rl_row().items() if k != "uid"}], ["rl.jsonl:1", "missing"]),
        ([rl_row("a"), '{"uid": "b", "his', rl_row("c")], ["rl.jsonl:2", "not JSON"]),
        (["[1]"], ["rl.jsonl:1", "expected an object"]),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, expected):
    error = message(tmp_path, rows)
    assert all(part in error for part in expected), error


def test_a_target_without_alternative_is_named(tmp_path):
    row = rl_row()
    row["history"][2]["rejected"] = None
    assert "history[2].rejected" in message(tmp_path, [row])


def test_no_rows_and_too_many_held_out(tmp_path):
    assert "nothing to train on" in message(tmp_path, [])
    assert "leave nobody" in message(
        tmp_path, [rl_row()], "--val-out", str(tmp_path / "v.parquet"), "--val-users", "5"
    )


def test_a_leaked_target_is_flagged(tmp_path):
    for number, change in enumerate(
        ({}, {"query": "other words"}, {"rejected": None})
    ):  # asked in any way, and alone on the page
        row = rl_row()
        row["history"][0] = row["history"][5] | change
        (tmp_path / str(number)).mkdir()
        process = convert(tmp_path / str(number), [row])
        assert process.returncode == 0 and "leakage" in process.stderr, change


def test_a_torn_last_line_is_dropped(tmp_path):
    (tmp_path / "x").mkdir()
    data = tmp_path / "rl.jsonl"
    data.write_text(json.dumps(rl_row("a")) + "\n" + '{"uid": "b", "hist', encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(SCRIPT), "--data", str(data), "--out", str(tmp_path / "rl.parquet")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0 and "1 rows" in process.stdout


def test_a_parquet_file_of_something_else_is_named(tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(RecordError, match="no column 'user'; make the file with upi_streaming_dataset.py"):
        StreamingDataset(str(tmp_path / "other.parquet"))


def test_two_outputs_of_one_name_leave_what_is_there(tmp_path):
    rows = [rl_row(f"u{i}") for i in range(6)]
    assert convert(tmp_path, rows).returncode == 0
    before = (tmp_path / "rl.parquet").read_bytes()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "rl.parquet")
    for name in ("rl.parquet", "link.parquet"):
        process = convert(tmp_path, rows, "--val_out", tmp_path / name, "--val_users", 2)
        assert process.returncode == 1 and "Traceback" not in process.stderr
        assert f"{name}: --out and --val_out are the same file; name another one for --val_out" in process.stderr
    assert (tmp_path / "rl.parquet").read_bytes() == before and not list(tmp_path.glob(".*.partial"))


def test_rows_are_never_written_over_what_they_are_made_of(tmp_path):
    process = convert(tmp_path, rows := [rl_row("a"), rl_row("b")], "--out", tmp_path / "rl.jsonl")
    assert process.returncode == 1 and "--data and --out are the same file" in process.stderr
    assert (tmp_path / "rl.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)


def test_a_second_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    rows = [rl_row(f"u{i}") for i in range(6)]
    assert "file" in message(tmp_path, rows, "--val_out", tmp_path / "file" / "val.parquet", "--val_users", 2)
    (tmp_path / "folder").mkdir()
    assert "folder" in message(tmp_path, rows, "--val_out", tmp_path / "folder", "--val_users", 2)
