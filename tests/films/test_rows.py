"""RL rows of persons' windows: two targets each, the first after a third or after two thirds."""

from collections import Counter

from alignxplore.films.rows import RowOptions, rl_rows, write_rows
from alignxplore.records import parse_history, user_row, write_jsonl
from alignxplore.rl.rows import read_rows, target_positions


def test_an_rl_row_has_two_targets(windows):
    thirds = Counter()
    for record, row in zip(windows, rl_rows(windows)):
        history = parse_history(row, "rows", 1)
        assert history == (*record.history, record.target)
        first, second = target_positions(row, len(history), 2, "rows", 1)
        assert history[second] == record.target, "after the rest"
        assert row["uid"] == record.user
        thirds[first] += 1
    assert set(thirds) == {4, 8} and min(thirds.values()) > len(windows) // 4, "of twelve choices"


def test_the_trainer_of_rl_takes_the_rows(windows, tmp_path):
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("data", "out")}
    write_jsonl(files["data"], map(user_row, windows))
    assert write_rows(RowOptions(**files)) == f"{files['out']}: 60 RL rows"
    rows = [row for row, _ in read_rows(files["out"], stages=2)]
    assert len(rows) == 60 and {tuple(row["positions"]) for row in rows} == {(4, 12), (8, 12)}
