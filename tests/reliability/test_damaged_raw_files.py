"""Fuzzing of the builders: every raw file of every layout, damaged. A benchmark comes out of it, or an error by file
and line; a user is not lost without a count that says so."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignxplore.datasets.building import Job
from alignxplore.errors import SAID
from tests.datasets import test_amazon, test_hicupid, test_mind, test_movielens, test_personamem, test_selection
from tests.datasets.conftest import run_builder
from tests.reliability.damage import DERANDOMIZED, damaged_bytes, damaged_value, watched

CLICKS = [
    ("u", "11/11/2019 1:00:00 AM", "N5 N4 N3", "N7-1 N6-0"),
    ("v", "11/12/2019 2:00:00 PM", "N1 N2", "N9-1 N8-0"),
]


def write_rows(name: str):
    return lambda folder: (folder / name).write_text(json.dumps([test_selection.row(number) for number in range(3)]))


# Layout → data set, what writes a sound folder of it, and the files that are damaged.
LAYOUTS = {
    "mind": ("mind", lambda f: test_mind.write(f, CLICKS), ["news.tsv", "behaviors.tsv"]),
    "movielens csv": ("movielens", lambda f: test_movielens.write(f, FILMS, "csv"), ["movies.csv", "ratings.csv"]),
    "movielens dat": ("movielens", lambda f: test_movielens.write(f, FILMS, "dat"), ["movies.dat", "ratings.dat"]),
    "movielens 100k": ("movielens", lambda f: test_movielens.write(f, FILMS, "data"), ["u.item", "u.data"]),
    "amazon 2018": ("amazon", lambda f: test_amazon.write(f, REVIEWS), ["Toys_5.json", "meta_Toys.json"]),
    "amazon 2023": ("amazon", lambda f: test_amazon.write(f, REVIEWS, 2023), ["Toys.jsonl", "meta_Toys.jsonl"]),
    "alignx": ("alignx", write_rows("alignx.json"), ["alignx.json"]),
    "student_phd": ("student_phd", write_rows("student_phd.json"), ["student_phd.json"]),
    "hicupid": ("hicupid", test_hicupid.write_hicupid, ["dialogue/train.jsonl", "qa_test_1.json"]),
    "personamem 1": ("personamem", test_personamem.write_v1, ["questions_32k.csv", "shared_contexts_32k.jsonl"]),
    "personamem 2": (
        "personamem",
        lambda f: test_personamem.write_v2(f, "Question {0}"),
        ["benchmark/text/benchmark.csv", "data/chat_history_32k/p.json"],
    ),
}
FILMS = test_movielens.RATINGS[:20]
REVIEWS = test_amazon.REVIEWS[:18]
FILES = [(layout, name) for layout, (_, _, names) in LAYOUTS.items() for name in names]


@st.composite
def damaged_file(draw, content: bytes) -> bytes:
    """A file whose JSON has another value somewhere, or whose bytes are not as they were."""
    lines = content.splitlines(keepends=True)
    if draw(st.booleans()) and content.lstrip()[:1] in (b"{", b"["):
        place = draw(st.integers(0, len(lines) - 1))
        lines[place] = json.dumps(draw(damaged_value(json.loads(lines[place])))).encode() + b"\n"
        return b"".join(lines)
    return draw(damaged_bytes(content))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """`sound(layout)` → (folder, examples, counts) of files that nothing is wrong with; written once."""
    cache = {}

    def of(layout: str):
        if layout not in cache:
            name, write, _ = LAYOUTS[layout]
            folder = tmp_path_factory.mktemp(layout.replace(" ", "_"))
            write(folder)
            cache[layout] = (folder, *build(name, folder))
        return cache[layout]

    return of


def build(name: str, folder) -> tuple[list, Job]:
    return run_builder(name, folder, min_interactions=2)


@DERANDOMIZED
@given(data=st.data())
@pytest.mark.parametrize(("layout", "file"), FILES, ids=lambda value: str(value).replace("/", " "))
def test_raw_files(layout, file, data, sound):
    name, (folder, examples, job) = LAYOUTS[layout][0], sound(layout)
    path = folder / file
    content = path.read_bytes()
    damaged = data.draw(damaged_file(content))
    path.write_bytes(damaged)
    try:
        with watched():
            survivors, counted = build(name, folder)
    except SAID as error:
        message = str(error)
        assert path.name in message or "no user of " in message or "no raw files of " in message, (
            f"{type(error)}: {message}"
        )
        return
    finally:
        path.write_bytes(content)
    if len(survivors) < len(examples):
        assert counted.counts != job.counts, f"{len(examples) - len(survivors)} users are lost, and no count says so"
