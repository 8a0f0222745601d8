"""The engine of the builders: what it reads at once and what row by row, in how many processes, and what it leaves."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.datasets import amazon, building, catalogue, engine, get, movielens, parts
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.workers import side_by_side
from alignxplore.errors import UserError
from alignxplore.records import RecordError
from tests.datasets import test_amazon, test_mind, test_movielens


def everything(folder):
    """All that a build wrote."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def several_hundred(folder, name):
    """Raw files of a few hundred users."""
    if name == "mind":
        rows = [
            (
                f"u{u}",
                f"11/{1 + u % 28}/2019 1:00:00 AM",
                f"N{1 + u % 9} N{10 + u % 7}",
                f"N{18 + u % 5}-1 N{24 + u % 6}-0",
            )
            for u in range(300)
        ]
        return test_mind.write(folder, rows)
    events = [(f"u{u}", 1 + (7 * u + 3 * n) % 24, 50 * u + 10 * n) for u in range(300) for n in range(4 + u % 5)]
    if name == "movielens":
        return test_movielens.write(folder, events)
    return test_amazon.write(folder, [(u, f"B{n:03}", t) for u, n, t in events], 2023)


@pytest.mark.parametrize(
    "name, options",
    [
        ("movielens", {"protocol": "published"}),
        ("movielens", {"protocol": "matched_both", "windows": 2, "length": 2}),
        ("movielens", {"protocol": "liked", "split": "train"}),
        ("amazon", {"items": 5, "negatives": "popularity"}),
        ("mind", {}),
        ("mind", {"whole": True}),
    ],
)
def test_other_processes_and_smaller_chunks_change_nothing(tmp_path, monkeypatch, name, options):
    raw = several_hundred(tmp_path / "raw", name)
    build(Job(get(name), raw, min_interactions=2, **options), tmp_path / "here" / "x.jsonl")
    monkeypatch.setattr(parts, "FEW", 10)
    monkeypatch.setattr(parts, "CHUNK", 37)
    build(Job(get(name), raw, min_interactions=2, processors=3, **options), tmp_path / "beside" / "x.jsonl")
    assert everything(tmp_path / "beside") == everything(tmp_path / "here")
    assert json.loads((tmp_path / "here" / "x.build.json").read_text())["counts"]["users kept"] > 50


@pytest.mark.parametrize("protocol", ["published", "matched", "liked"])
@pytest.mark.parametrize("windows", [{}, {"windows": 2, "length": 4}])
def test_lines_are_what_json_makes_of_the_rows(run, tmp_path, latest_small, protocol, windows):
    options = {"protocol": protocol, **windows, "persons": (0.0, 0.2)}
    examples, job = run("movielens", latest_small, **options)
    manifest = build(Job(get("movielens"), latest_small, **options), tmp_path / "x.jsonl")
    lines = [parts.line_of(example) for example in examples]
    assert "".join(line.line for line in lines) == (tmp_path / "x.jsonl").read_text() and len(lines) > 50
    assert "".join(line.popularity for line in lines) == (tmp_path / "x.popularity.jsonl").read_text()
    assert manifest["counts"].items() >= job.counts.items()


def test_items_are_numbered_by_their_keys_whatever_order_they_came_in(tmp_path):
    items, job = catalogue.Catalogue(tmp_path), SimpleNamespace(counts=Counter())
    for key, text in [("10", "same"), ("b", "B"), ("9", "nine"), ("010", "same"), ("a", "same")]:
        items.add(key, text, "film", job)
    items.sort()
    items.close()
    for copy in (items, pickle.loads(pickle.dumps(items))):
        assert [copy.text(item) for item in range(5)] == ["nine", "same", "same", "same", "B"]
        assert list(copy.twin) == [0, 1, 1, 1, 4]
    assert list(items.index.items()) == [("9", 0), ("010", 1), ("10", 2), ("a", 3), ("b", 4)]


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_texts_of_large_catalogues_are_read_as_they_are_asked_for(tmp_path, monkeypatch, held):
    monkeypatch.setattr(catalogue, "_HELD", held)
    items, job = catalogue.Catalogue(tmp_path), SimpleNamespace(counts=Counter())
    for key, text in enumerate(['say "a"', "é", "half \ud83d"]):
        items.add(str(key), text, "film", job)
    items.add("0", "another", "film", job)
    items.close()
    assert job.counts == {"dropped: a film that is listed already": 1}
    texts = catalogue.Quoted(items, "<", ">").take(np.array([2, 0, 2, 1])).to_pylist()
    assert texts == [b'<"half \\ud83d">', b'<"say \\"a\\"">', b'<"half \\ud83d">', '<"é">'.encode()]


def one_by_one(monkeypatch):
    """No statement reads a raw file at once."""
    reads = Engine.reads

    def refuse(self, table, statement, odd, what):
        return "read_" not in statement and reads(self, table, statement, odd, what)

    monkeypatch.setattr(Engine, "reads", refuse)


def refuse(*_):
    raise AssertionError("read row by row")


@pytest.mark.parametrize("edition", ["csv", "dat", "u.data"])
def test_ratings_are_read_at_once(run, tmp_path, monkeypatch, edition):
    monkeypatch.setattr(movielens, "_rows", refuse)
    assert run("movielens", test_movielens.write(tmp_path, test_movielens.RATINGS, edition), min_interactions=2)[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("edition", [2018, 2023])
@pytest.mark.parametrize("protocol", ["published", "liked"])
def test_reviews_and_products_are_read_at_once(run, tmp_path, monkeypatch, edition, packed, protocol):
    reviews = [
        (f"u{user}", f"B{1 + (7 * user + 3 * n) % 24:03}", 50 * user + 10 * n) for user in range(40) for n in range(8)
    ]
    folder = test_amazon.write(tmp_path, reviews, edition, packed)
    one, job = run("amazon", folder, min_interactions=2, protocol=protocol)
    with monkeypatch.context() as patch:
        one_by_one(patch)
        other, other_job = run("amazon", folder, min_interactions=2, protocol=protocol)
    assert one == other and one and job.counts == other_job.counts
    monkeypatch.setattr(amazon, "_rows", refuse)
    assert run("amazon", folder, min_interactions=2, protocol=protocol)[0] == one


@pytest.mark.parametrize("sign", ["[1]", "?", "*"])
@pytest.mark.parametrize("form", ["csv", "dat", "jsonl", "parquet"])
def test_signs_in_the_name_of_a_folder_are_no_patterns(run, tmp_path, monkeypatch, form, sign):
    for builder in (amazon, movielens):
        monkeypatch.setattr(builder, "_rows", refuse)
    name = "movielens" if form in ("csv", "dat") else "amazon"
    for folder, user in ((tmp_path / "raw-1", "neighbour"), (tmp_path / f"raw-{sign}", "own")):
        takings = [(f"{user}{number % 2}", number, number) for number in range(1, 7)]
        if name == "movielens":
            test_movielens.write(folder, takings, form)
        else:
            test_amazon.write(folder, [(taker, f"B00{number}", time) for taker, number, time in takings], 2023)
        if form == "parquet":
            for path in list(folder.glob("*.jsonl")):
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
                path.unlink()
    examples, _ = run(name, folder, min_interactions=2)
    assert {example.record.user for example in examples} == {"own0", "own1"}


IDS = st.sampled_from(["1", "2", "3", "4", "4.0", " 3", "NaN", "", "007", "é", "x.0", "5.5", "+1", "1e3", "none"])
FILMS = st.sampled_from(["1", "2.0", "3", " 4 ", "5", "nan", "", "77", "\u0661"])
STARS = st.sampled_from(["3.5", "4", "0.5", " 2", "1e0", "nan", ".5", "five"])
TIMES = st.sampled_from(
    ["7", "8", "9.0", "2005-04-02 23:53:47", "2005-04-02T23:53:47Z", "2005-02-30 00:00:00", "-5", "soon", "1" * 25]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(IDS, FILMS, st.just("3.5") | STARS, st.integers(0, 9).map(str) | TIMES), max_size=12),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoted=st.booleans(),
    last=st.sampled_from(["", "\n", "  \n", "1,2,3\n"]),
)
def test_what_the_engine_makes_of_any_rows_is_what_python_makes_of_them(run, tmp_path, rows, ends, quoted, last):
    folder = test_movielens.write(tmp_path, [])
    fields = [[f'"{x}"' if quoted else x for x in row] for row in rows]
    lines = ["userId,movieId,rating,timestamp", *(",".join(row) for row in fields)]
    (folder / "ratings.csv").write_bytes((ends.join(lines) + ends + last).encode())

    def outcome():
        try:
            examples, job = run("movielens", folder, min_interactions=2, protocol="liked")
        except RecordError as error:
            return str(error)
        return examples, job.counts

    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        expected = outcome()
    assert outcome() == expected


def test_what_is_too_much_for_the_memory_goes_to_files(tmp_path):
    """Three million events, of which 100 MB hold a part; the peak is that of the process."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(2000)))
    with (raw / "ratings.csv").open("w") as out:
        out.write("userId,movieId,rating,timestamp\n")
        for n in range(300_000):
            user = n * 7919 % 100_003
            out.writelines(f"{user},{(user + 17 * n * k) % 2000},4.0,{n % 9973}\n" for k in range(10))
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom alignxplore.datasets import get\n"
        "from alignxplore.datasets.__main__ import build\nfrom alignxplore.datasets.building import Job\n"
        "raw, memory = Path(sys.argv[1]), int(sys.argv[2])\n"
        "job = Job(get('movielens'), raw, min_interactions=2, users=10, memory=memory, processors=2)\n"
        "made = build(job, raw.parent / 'x.jsonl')['sha256']\n"  # the peak since exec: ru_maxrss keeps the parent's
        "print(made, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    output_lines = [
        subprocess.run([sys.executable, "-c", code, raw, memory], capture_output=True, text=True, check=True).stdout
        for memory in ("100", "2000")
    ]
    (little, peak), (much, other) = (line.split() for line in output_lines)
    assert little == much and int(peak) < 450_000 and int(peak) < 0.8 * int(other), (peak, other)


def test_too_little_memory_is_said(run, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--memory must be at least 100 \(MB\)"):
        Job(get("movielens"), tmp_path, memory=99)
    monkeypatch.setattr(building, "LITTLE", 1)
    with pytest.raises(UserError, match="--memory is not enough for this data set; give more"):
        run("movielens", test_movielens.write(tmp_path, test_movielens.RATINGS), memory=1)


def test_the_folder_of_a_killed_build_is_taken_away_and_that_of_a_running_one_is_not(tmp_path):
    job = Job(get("movielens"), tmp_path, scratch=tmp_path)
    first = Engine(job)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    killed = first.folder.with_name(first.folder.name.replace(str(os.getpid()), gone.stdout.strip()))
    killed.mkdir()
    second = Engine(job)
    assert first.folder.is_dir() and second.folder.is_dir() and not killed.exists()
    first.close(), second.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["", "1,2\n"])
def test_nothing_is_left_beside_the_output(tmp_path, line):
    raw = test_movielens.write(tmp_path / "raw", test_movielens.RATINGS)
    with (raw / "ratings.csv").open("a") as out:
        out.write(line)
    try:
        build(Job(get("movielens"), raw, min_interactions=2), tmp_path / "out" / "x.jsonl")
    except RecordError:
        assert line
    assert len(list((tmp_path / "out").iterdir())) == (0 if line else 3)


def test_progress_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "_WAIT", 0.001)
    raw = several_hundred(tmp_path / "raw", "movielens")
    build(Job(get("movielens"), raw, min_interactions=2, progress=True), tmp_path / "x.jsonl")
    output = capsys.readouterr().err
    assert "ratings.csv: 100%" in output and "drawing: 100%" in output and "300/300" in output


def test_a_process_that_is_killed_and_an_error_in_one_are_said():
    assert list(side_by_side(abs, [-3, 2, -1], 2)) == [3, 2, 1]
    with pytest.raises(UserError, match="a process that made rows ended with status"):
        list(side_by_side(os._exit, [3], 2))
    with pytest.raises(ValueError, match="invalid literal"):
        list(side_by_side(int, ["1", "two"], 2))
