"""Two commands that write one tokenised set."""

import json
from collections.abc import Iterator

import pytest
from datasets import load_from_disk

from alignxplore.journal import RunLocked
from alignxplore.sft.stored_set import write_set


def rows(value: int) -> Iterator[tuple[list[int], list[int]]]:
    for _ in range(600):
        yield [value] * 5, [value] * 5


def test_a_second_command_that_would_write_the_same_set_says_so_and_stops(tmp_path):
    def disturbed_rows() -> Iterator[tuple[list[int], list[int]]]:
        for number, row in enumerate(rows(1)):
            if number == 300:
                with pytest.raises(RunLocked, match="set: process .* is writing here; wait for it or choose another"):
                    write_set(tmp_path / "set", {"who": 2}, {}, rows(2), {})
            yield row

    write_set(tmp_path / "set", {"who": 1}, {}, disturbed_rows(), {})
    assert [record["input_ids"] for record in load_from_disk(str(tmp_path / "set"))] == [[1] * 5] * 600
    assert json.loads((tmp_path / "set/manifest.json").read_text())["identity"] == {"who": 1}


def test_a_finished_set_is_read_while_it_is_locked(tmp_path):
    """By the processes of a run that waited for the first one, and by a command that needs no other set."""
    manifest = write_set(tmp_path / "set", {"who": 1}, {}, rows(1), {})

    def disturbed_rows() -> Iterator[tuple[list[int], list[int]]]:
        assert write_set(tmp_path / "set", {"who": 1}, {}, iter(()), {}) == manifest
        yield from rows(2)

    write_set(tmp_path / "set", {"who": 2}, {}, disturbed_rows(), {})
    assert load_from_disk(str(tmp_path / "set"))[0]["input_ids"] == [2] * 5


def test_rows_that_cannot_be_read_leave_no_files(tmp_path):
    def broken_rows() -> Iterator[tuple[list[int], list[int]]]:
        yield from rows(1)
        raise ValueError("rows.jsonl:7")

    with pytest.raises(ValueError, match="rows.jsonl:7"):
        write_set(tmp_path / "set", {"who": 1}, {}, broken_rows(), {})
    assert not list(tmp_path.iterdir())
