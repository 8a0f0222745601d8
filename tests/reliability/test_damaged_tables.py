"""Fuzzing of `python -m alignxplore.datasets import`: a table of one's own, damaged, in each form. It is imported and
every row is accounted for, or the file is refused by line."""

import csv
import io
import json
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.benchmark_files import read_users
from alignxplore.datasets.importing import import_table
from alignxplore.datasets.own_events import Import
from alignxplore.rl.rows import read_rows
from tests.reliability.damage import DERANDOMIZED, WORST, damaged_bytes, damaged_value, dropped_last, lines_of, outcome

CHAT = [
    {"role": "user", "content": "Which film?"},
    {"role": "assistant", "content": "A long one."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "A short one."},
]
ROWS = [
    {"person": f"u{n % 3}", "thing": f"film {n * 7 % 11}", "when": f"2026-05-{1 + n:02}", "stars": 1 + n * 3 % 5}
    for n in range(18)
]
LABELLED = [{key: row[key] for key in ("person", "thing")} | {"good": n % 4 > 1} for n, row in enumerate(ROWS)]
CHATS = [{"person": f"u{n}", "thing": CHAT + [{"role": "user", "content": f"{n}?"}, CHAT[1]]} for n in range(3)]
KINDS = {
    "ratings": (ROWS, {"time": "when", "rating": "stars"}),
    "labels": (LABELLED, {"label": "good"}),
    "likes": (ROWS, {"time": "when", "query": "What next?"}),
    "chats": (CHATS, {}),
}


def as_csv(rows: list[dict]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(x) if isinstance(x, (list, dict)) else x for key, x in row.items()})
    return out.getvalue().encode("utf-8", "backslashreplace")


def as_jsonl(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def cast(*kinds: pa.DataType) -> Callable[[list[int]], pa.Array]:
    def column(numbers: list[int]) -> pa.Array:
        array = pa.array(numbers, pa.int64())
        for kind in kinds:
            array = array.cast(kind, safe=False)
        return array

    return column


COLUMNS = {
    "moments": cast(pa.timestamp("ms")),
    "of no zone": cast(pa.timestamp("us", tz="Mars/Olympus")),
    "days": cast(pa.int32(), pa.date32()),
    "spans": cast(pa.duration("s")),
    "times": cast(pa.time64("ns")),
    "small": cast(pa.float16()),
    "yes or no": cast(pa.bool_()),
    "decimals": cast(pa.decimal128(38, 2)),
    "of a few": lambda numbers: pa.array(map(str, numbers)).dictionary_encode(),
    "bytes": lambda numbers: pa.array([b"%d" % n for n in numbers]),
    "other bytes": lambda numbers: pa.array([b"\xff%d" % (n % 3) for n in numbers]),
    "half text": lambda numbers: pa.array([b"\xe9" if n % 7 == 0 else b"x" for n in numbers]).view(pa.string()),
    "lists": lambda numbers: pa.array([[n] for n in numbers]),
    "objects": lambda numbers: pa.array([{"role": n} for n in numbers]),
    "chats": lambda numbers: pa.array([[{"role": "user", "content": n}] for n in numbers]),
    "nothing": lambda numbers: pa.nulls(len(numbers)),
}
FORMS = {"csv": as_csv, "jsonl": as_jsonl, "parquet": as_parquet}


@st.composite
def damaged_table(draw, rows: list[dict], form: str) -> bytes:
    """A file of these rows, one of which holds something else, or whose bytes are not as they were."""
    write, rest = FORMS[form], list(rows)
    if draw(st.booleans()):
        return draw(damaged_bytes(write(rest)))
    place = draw(st.integers(0, len(rest) - 1))
    if form == "jsonl":
        rest[place] = draw(damaged_value(rest[place]))
    elif form == "csv":
        name = draw(st.sampled_from(list(rows[0])))
        rest[place] = rest[place] | {name: draw(WORST)}
    else:
        return draw(strange_parquet(rows))
    return write(rest)


@st.composite
def strange_parquet(draw, rows: list[dict]) -> bytes:
    """One or two columns are of a type that other programs write; sometimes two have one name."""
    table, count = pa.Table.from_pylist(rows), len(rows)
    numbers = st.lists(st.integers(-(2**62), 2**62) | st.integers(-5, 5), min_size=count, max_size=count)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, table.num_columns - 1))
        other = draw(st.integers(0, 9)) == 0
        name = table.column_names[place - 1 if other else place]
        table = table.set_column(place, name, COLUMNS[draw(st.sampled_from(list(COLUMNS)))](draw(numbers)))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


@settings(DERANDOMIZED, max_examples=-(-DERANDOMIZED.max_examples // 4))  # each writes a small database
@given(data=st.data(), kind=st.sampled_from(list(KINDS)))
@pytest.mark.parametrize("form", list(FORMS))
def test_tables(form, data, kind, tmp_path):
    rows, columns = KINDS[kind]
    path, content = tmp_path / f"mine.{form}", data.draw(damaged_table(rows, form))
    path.write_bytes(content)
    job = Import(path, user="person", item="thing", **columns)
    counts, messages = outcome(lambda: import_table(job, tmp_path / "out"), path)
    if counts is None:
        return
    if form == "jsonl":
        assert counts["rows read"] == lines_of(path) - dropped_last(messages)
    users = [record for kind in ("upi", "train") for record in read_users(tmp_path / f"out_{kind}.jsonl")]
    assert counts["persons read"] == len(users) + sum(n for what, n in counts.items() if "left out: a person" in what)
    assert len(list(read_rows(tmp_path / "out_rl.jsonl", 2))) == counts["RL rows, of training persons"]
