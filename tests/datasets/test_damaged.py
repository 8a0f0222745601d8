"""Raw files that were damaged, put together or touched on their way: gzip, stars, headers, quotation marks, links."""

import gzip
import json
import re

import pytest

from alignxplore.datasets import get
from alignxplore.datasets.__main__ import build
from alignxplore.datasets.building import Job
from alignxplore.records import RecordError
from tests.datasets import test_amazon, test_mind, test_movielens

HEADER = "userId,movieId,rating,timestamp\n"
PACKED_BADLY = [
    (lambda packed: packed[:-8] + b"\0\0\0\1" + packed[-4:], "CRC check failed"),
    (lambda packed: packed[:-4] + b"\0\0\0\1", "Incorrect length"),
    (lambda packed: packed[:-4], "the download may be cut short"),
    (lambda packed: packed[:-9], "the download may be cut short"),
    (lambda packed: packed + b"more", "something else was added to it; download it again"),
]
PACKED_WELL = [
    lambda text: gzip.compress(text[:99]) + gzip.compress(text[99:]),
    lambda text: gzip.compress(text) + gzip.compress(b""),
    lambda text: gzip.compress(text) + bytes(100),
]


def folders(folder):
    """Each kind of raw file that may be packed, as (data set, folder, file)."""
    yield "amazon", test_amazon.write(folder / "2018", test_amazon.REVIEWS), "Toys_5.json"
    yield "amazon", test_amazon.write(folder / "2023", test_amazon.REVIEWS, 2023), "meta_Toys.jsonl"
    ready = test_amazon.write(folder / "ready", test_amazon.REVIEWS, 2023)
    (ready / "Toys.jsonl").unlink()
    rows = (f"{user},{product},5.0,{time}\n" for user, product, time in test_amazon.REVIEWS)
    (ready / "Toys.csv").write_text("user_id,parent_asin,rating,timestamp\n" + "".join(rows))
    yield "amazon", ready, "Toys.csv"
    yield "movielens", test_movielens.write(folder / "csv", test_movielens.RATINGS), "ratings.csv"
    yield "movielens", test_movielens.write(folder / "films", test_movielens.RATINGS), "movies.csv"
    yield "movielens", test_movielens.write(folder / "dat", test_movielens.RATINGS, "dat"), "ratings.dat"


def pack(path, make):
    path.with_name(f"{path.name}.gz").write_bytes(make(path.read_bytes()))
    path.unlink()


@pytest.mark.parametrize("damage, problem", PACKED_BADLY)
def test_a_packed_file_that_is_not_whole_is_named(run, tmp_path, damage, problem):
    for name, folder, file in folders(tmp_path):
        pack(folder / file, lambda text: damage(gzip.compress(text, mtime=0)))
        with pytest.raises(RecordError) as caught:
            run(name, folder, min_interactions=2)
        assert f"{file}.gz: cannot be unpacked to its end (" in str(caught.value) and problem in str(caught.value)


@pytest.mark.parametrize("make", PACKED_WELL)
def test_files_packed_in_other_ways_are_read(run, tmp_path, make):
    for name, folder, file in folders(tmp_path):
        expected, _ = run(name, folder, min_interactions=2)
        pack(folder / file, make)
        assert run(name, folder, min_interactions=2)[0] == expected and expected


@pytest.mark.parametrize("stars", ["99", "-3", "nan", "inf", "0", "4,5", "five", ""])
@pytest.mark.parametrize("edition, separator", [("csv", ","), ("dat", "::"), ("u.data", "\t")])
def test_stars_that_no_film_can_have_are_named(run, tmp_path, stars, edition, separator):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS, edition)
    (path,) = (path for path in folder.iterdir() if path.name in ("ratings.csv", "ratings.dat", "u.data"))
    line = len(path.read_text().splitlines()) + 1
    with path.open("a") as out:
        out.write(separator.join(["1", "2", f'"{stars}"' if "," in stars else stars, "5"]) + "\n")
    with pytest.raises(
        RecordError, match=rf"{path.name}:{line}: field 'rating': expected a number of stars from 0.5 to"
    ):
        run("movielens", folder, min_interactions=2)


@pytest.mark.parametrize("protocol", ["published", "liked"])
@pytest.mark.parametrize("stars", [99, -3, float("nan"), "4,5", True])
def test_stars_that_no_product_can_have_are_named(run, tmp_path, stars, protocol):
    folder = test_amazon.write(tmp_path, test_amazon.REVIEWS)
    review = {"overall": stars, "reviewerID": "a", "asin": "B001", "unixReviewTime": 10}
    with (folder / "Toys_5.json").open("a") as out:
        out.write(json.dumps(review) + "\n")
    with pytest.raises(RecordError, match=r"Toys_5\.json:31: field 'overall': expected a number of stars from 0 to 5"):
        run("amazon", folder, protocol=protocol)


READ = [
    ("ratings.csv", lambda text: text + HEADER, {"dropped: the header again": 1}),
    ("movies.csv", lambda text: text + "movieId,title,genres\n", {"dropped: the header again": 1}),
    ("movies.csv", lambda text: text + "1,Another title,Drama\n", {"dropped: a film that is listed already": 1}),
    ("movies.csv", lambda text: text + ",,\n", {}),
    ("ratings.csv", lambda text: "\ufeff" + text.replace("\n", "\r\n"), {}),
    ("ratings.csv", lambda text: text.replace("\n", "\r\n", 3), {}),
    ("ratings.csv", lambda text: "\n".join(f"{line},x{place}" for place, line in enumerate(text.splitlines())), {}),
    ("ratings.csv", lambda text: "\n".join(",".join(line.split(",")[::-1]) for line in text.splitlines()), {}),
    ("movies.csv", lambda text: "\n".join(",".join(line.split(",")[::-1]) for line in text.splitlines()), {}),
    ("ratings.csv", lambda text: re.sub(r"^(\w+)", r'"\1"', text, flags=re.MULTILINE), {}),
]


@pytest.mark.parametrize("name, change, counts", READ)
def test_what_was_put_together_or_written_in_another_way_is_read(run, tmp_path, name, change, counts):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    expected, before = run("movielens", folder, min_interactions=2)
    (folder / name).write_bytes(change((folder / name).read_text()).encode())
    examples, job = run("movielens", folder, min_interactions=2)
    assert examples == expected and examples
    films = counts and name == "movies.csv" and "the header again" not in next(iter(counts))
    assert job.counts == before.counts | counts | ({"films read": before.counts["films read"] + 1} if films else {})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quoted_title_may_go_over_two_lines(run, tmp_path, end):
    films = test_movielens.FILMS | {"3": ("Line one\nline two", "Drama")}
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS, films=films)
    path = folder / "movies.csv"
    path.write_bytes(path.read_text().replace("\n", end).encode())
    built, _ = run("movielens", folder, min_interactions=2)
    texts = {text for x in built for pair in (*x.record.history, x.record.target) for text in pair.items}
    assert "Title: Line one line two, Genres: Drama" in texts
    path.write_text(path.read_text() + "900,Short,Drama,\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(RecordError, match=rf"movies\.csv:{line}: '900,Short,Drama,' has 4 fields"):
        run("movielens", folder)


@pytest.mark.parametrize(
    "name, text, problem",
    [
        ("ratings.csv", "", ": an empty file; the download may have failed"),
        ("movies.csv", "\n\n", ": an empty file; the download may have failed"),
        ("ratings.csv", HEADER.replace("\n", ",rating\n"), ":1: field 'rating': two columns have this name"),
        ("movies.csv", 'movieId,title,genres\n1,A,B\n2,"C,D\n3,E,F\n', ":3: '2,C,D 3,E,F' has 2 fields, expected"),
        ("movies.csv", 'movieId,title,genres\n2,"C' + "x" * (1 << 24), ":2: not CSV (field larger than field limit"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_first_line(run, tmp_path, name, text, problem):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    (folder / name).write_text(text)
    with pytest.raises(RecordError) as caught:
        run("movielens", folder)
    assert str(caught.value).startswith(f"{folder / name}{problem}")


def test_a_file_without_rows_leaves_nobody(tmp_path):
    folder = test_movielens.write(tmp_path, [])
    with pytest.raises(
        ValueError, match=r"no user of movielens is left \(30 films read; 0 ratings read; 0 users read"
    ):
        build(Job(get("movielens"), folder), tmp_path / "x.jsonl")


def test_a_link_that_leads_nowhere_and_an_archive_are_named(run, tmp_path):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    (folder / "ratings.csv").unlink()
    (folder / "ratings.csv").symlink_to(folder / "ratings.csv")
    with pytest.raises(RecordError, match=r"ratings\.csv: a link to a file that is not there"):
        run("movielens", folder)
    (folder / "ratings.csv").unlink()
    (folder / "ml-32m.zip").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no raw files of movielens here; unpack ml-32m\.zip"):
        run("movielens", folder)


@pytest.mark.parametrize(
    "name, line, problem",
    [
        ("behaviors.tsv", "9\tw\t11/12/2019 1:00:00 AM\tN1\tN8-2", "field 'impressions': 'N8-2' ends neither in -1"),
        ("news.tsv", "id\tcategory\tsub\tTitle\tAbstract\turl\ta\tb", "a header, which news.tsv has not"),
    ],
)
def test_what_mind_has_not_is_named(run, tmp_path, name, line, problem):
    folder = test_mind.write(tmp_path, [("u", "11/12/2019 1:00:00 AM", "N5 N3", "N8-0 N9-1")])
    path = next(folder.rglob(name))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RecordError, match=rf"{name}:{len(path.read_text().splitlines())}: {problem}"):
        run("mind", folder)
