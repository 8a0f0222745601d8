"""Parquet files of other programs: columns of bytes, and values that have no form in Python."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignxplore.datasets.own_tables import own_rows
from alignxplore.datasets.parquet import parquet_rows
from alignxplore.records import RecordError

FAR = 10**15  # seconds and days that no calendar of Python has


def written(tmp_path, *columns, names=("user", "when")):
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_arrays(list(columns), names=list(names)), path)
    return path


def test_bytes_are_text(tmp_path):
    path = written(tmp_path, pa.array(["Amélie".encode(), None]), pa.array([b"a", b"b"], pa.binary(1)))
    assert list(parquet_rows(path)) == [(1, {"user": "Amélie", "when": "a"}), (2, {"user": None, "when": "b"})]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (
            pa.array([0, FAR], pa.timestamp("s")),
            "a timestamp.* that cannot be read .*; write it as a number or as text",
        ),
        (pa.array([0, FAR % 2**31], pa.date32()), "a date32.* that cannot be read"),
        (pa.array([0, FAR], pa.duration("s")), "a duration.* that cannot be read"),
        (
            pa.array([None, 5], pa.timestamp("us", tz="Mars/Olympus")),
            "a timestamp.* that cannot be read .*Mars/Olympus",
        ),
        (pa.array([b"ab", b"a\xff"]), "byte 2 is not UTF-8; write this column as text"),
        (pa.array([b"ab", b"a\xff"]).view(pa.string()), "byte 2 is not UTF-8; write this column as text"),
    ],
    ids=["moment", "day", "span", "zone", "bytes", "text"],
)
def test_what_cannot_be_read_is_named_by_row_and_column(tmp_path, column, problem):
    path = written(tmp_path, pa.array(["a", "b"]), column)
    with pytest.raises(RecordError, match=rf"mine.parquet:2: field 'when': {problem}"):
        list(parquet_rows(path))


def test_two_columns_of_one_name(tmp_path):
    path = written(tmp_path, pa.array(["a"]), pa.array(["b"]), names=("user", "user"))
    with pytest.raises(RecordError, match="mine.parquet: field 'user': two columns have this name"):
        list(own_rows(path, ["user"]))
