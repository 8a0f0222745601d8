"""RL rows of persons' windows: two stages each, the first of a third or of two thirds of what is read."""

from collections import Counter

import pytest

from alignxplore.benchmark_files import parse_history, user_row
from alignxplore.films.rows import RowOptions, rl_rows, write_rows
from alignxplore.records import RecordError, write_jsonl
from alignxplore.rl.rows import read_rows, target_positions


def test_an_rl_row_has_two_stages_and_targets_after_them(windows):
    thirds = Counter()
    for record, row in zip(windows, rl_rows(windows, 9)):
        history = parse_history(row, "rows", 1)
        assert history == (*record.history, record.target)
        first, second = target_positions(row, len(history), 2, "rows", 1)
        assert second == 9, "three choices and the window's target follow, all targets"
        assert row["uid"] == record.user
        thirds[first] += 1
    assert set(thirds) == {3, 6} and min(thirds.values()) > len(windows) // 4, "of nine choices"


def test_the_trainer_of_rl_takes_the_rows(windows, tmp_path):
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("data", "out")}
    write_jsonl(files["data"], map(user_row, windows))
    with pytest.raises(RecordError, match="--data and --out are the same file"):
        write_rows(RowOptions(data=files["data"], out=files["data"], length=12))
    assert write_rows(RowOptions(**files, length=12)) == f"{files['out']}: 60 RL rows"
    rows = [row for row, _ in read_rows(files["out"], stages=2)]
    assert len(rows) == 60 and {tuple(row["positions"]) for row in rows} == {(4, 12), (8, 12)}
