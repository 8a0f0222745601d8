"""Imports a table that a test gives as text or as rows."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from alignxplore.benchmark_files import read_users
from alignxplore.datasets.importing import import_table
from alignxplore.datasets.own_events import Import
from alignxplore.records import read_jsonl


def imported(tmp_path, table, columns, name="mine.csv", **options):
    """(test records, training records, RL rows, counts) of a table given as text or as rows."""
    path = tmp_path / name
    if isinstance(table, (str, bytes)):
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    counts = import_table(Import(path, **columns, **options), tmp_path / "out")
    test, train = (list(read_users(tmp_path / f"out_{kind}.jsonl")) for kind in ("upi", "train"))
    return test, train, [row for _, row in read_jsonl(tmp_path / "out_rl.jsonl")], counts


def pairs(record):
    return [(one.chosen, one.rejected) for one in (*record.history, record.target)]
