"""Raw files as they arrive: halves of characters, other kinds of files, blank lines, markup."""

import gzip
import json
import os
from pathlib import Path

import pytest

from alignxplore.datasets import amazon as amazon_builder
from alignxplore.datasets import get
from alignxplore.datasets.building import Job
from alignxplore.datasets.rows import read_rows
from alignxplore.records import RecordError, read_jsonl
from alignxplore.texts import plain
from tests.datasets import test_mind, test_movielens
from tests.datasets.test_amazon import REVIEWS, write


def amazon(folder, product=None, review=None):
    """The made-up category, with one product or one review changed."""
    write(folder, REVIEWS)
    for name, change in (("meta_Toys.json", product), ("Toys_5.json", review)):
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        rows[2] |= change or {}
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_half_characters_of_texts_are_replaced_and_counted(run, tmp_path):
    product = {"title": "Cup \ud83d", "description": ["half \ude00", "\ud83d\ude00 whole"]}
    examples, job = run("amazon", amazon(tmp_path, product), min_interactions=2)
    texts = {pair.chosen for x in examples for pair in (*x.record.history, x.record.target)}
    assert "Title: Cup \ufffd\nDescription: half \ufffd \U0001f600 whole" in texts
    assert job.counts["replaced: half a character in a text"] == 2


@pytest.mark.parametrize(
    "changes, where",
    [
        ({"review": {"reviewerID": "u\ud83d"}}, r"Toys_5\.json:3: field 'reviewerID': half a character"),
        ({"review": {"reviewerID": "u\tv"}}, r"Toys_5\.json:3: field 'reviewerID': an id with a tab or a line end"),
        ({"product": {"asin": "B\ud83d"}}, r"meta_Toys\.json:3: field 'asin': half a character"),
    ],
)
def test_an_id_that_cannot_be_kept_whole_is_an_error_with_its_place(run, tmp_path, changes, where):
    with pytest.raises(RecordError, match=where):
        run("amazon", amazon(tmp_path, **changes))


LINE = b'{"asin": "B1", "title": "T"}\n'


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("meta_Toys.json.gz", LINE, ": not packed by gzip, though its name ends in .gz; take that ending off"),
        ("meta_Toys.json.gz", b"<!doctype html>\n<p>Sign in</p>", ": a web page, not data"),
        (
            "meta_Toys.json.gz",
            gzip.compress(gzip.compress(LINE, mtime=0), mtime=0),
            ": packed by gzip inside gzip; unpack it with gunzip",
        ),
        ("meta_Toys.json.gz", gzip.compress(b"<html>404</html>\n", mtime=0), ": a web page, not data"),
        ("meta_Toys.json", gzip.compress(LINE, mtime=0), ": packed by gzip; unpack it with gunzip"),
        ("meta_Toys.json", b"<html>404</html>", ": a web page, not data"),
        ("meta_Toys.json", b"{'asin': 'B1', 'title': \"T's\"}\n", ":1: Python literals, as older dumps have them"),
        ("meta_Toys.json", LINE + b"{'asin': 'B1', 'title': 'T'}\n", ":2: Python literals, as older dumps have them"),
        ("meta_Toys.jsonl", b"[" + LINE.strip() + b"]\n", ":1: a JSON array, not one object a line"),
        ("meta_Toys.jsonl", b"[\n " + LINE + b"]\n", ":1: a JSON array, not one object a line"),
        ("meta_Toys.jsonl", b"asin,title\nB1,T\n", ":1: not JSON (CSV or plain text?)"),
        ("meta_Toys.jsonl", LINE.decode().encode("utf-16"), ": UTF-16, not UTF-8; convert it with iconv -f UTF-16 "),
        ("meta_Toys.jsonl", LINE.replace(b"T", b"a\tb"), ":1: a tab or another control character as it stands inside"),
        ("meta_Toys.jsonl", LINE.replace(b"\n", b"\r") * 2, ": lines that end with CR alone; convert it with tr"),
        ("meta_Toys.jsonl", b'{"title": "caf\xe9"}\n', ":1: byte 15 is not UTF-8; convert the file from its own "),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(run, tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    reviews = name.removeprefix("meta_").removesuffix(".gz")
    (tmp_path / reviews).write_bytes(b"")
    with pytest.raises(RecordError) as caught:
        run("amazon", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}{expected}")


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.json", b"prompt,chosen\na,b\n", ":1: not JSON (CSV or plain text?)"),
        ("a.json", b"{'prompt': 'a'}\n", ":1: Python literals"),
        ("a.parquet", b"<html>404</html>", ": a web page, not data"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", ": a pointer of Git LFS"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\n", ": a pointer of Git LFS"),
    ],
)
def test_rows_of_answers_are_no_different(run, tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError) as caught:
        run("alignx", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}{expected}")


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("Toys.csv", b"<html>404</html>", ": a web page, not data"),
        ("Toys.csv.gz", b"<html>404</html>", ": a web page, not data"),
        ("Toys.csv.gz", gzip.compress(b"<html>404</html>", mtime=0), ": a web page, not data"),
        ("Toys.csv", b"a,B001,5.0,7\nb,B001,5.0,7\n", ":2: field 'reviewerID': expected str, found None"),
        ("Toys.csv", b"user_id,parent_asin,rating,timestamp\na,B001,5.0,soon\n", ":2: field 'unixReviewTime'"),
        ("Toys.csv", b"user_id,parent_asin,rating,timestamp\na,B001\n", ":2: 'a,B001' has 2 fields, expected"),
        ("Toys.csv", b"user_id,parent_asin,rating,rating\na,B001,5.0,7\n", ":1: field 'rating': two columns have"),
        ("Toys.parquet", b"PAR1 cut", ": not a whole Parquet file"),
    ],
)
def test_ready_made_ratings_are_no_different(run, tmp_path, name, content, expected):
    write(tmp_path, REVIEWS, 2023)
    (tmp_path / "Toys.jsonl").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError) as caught:
        run("amazon", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}{expected}")


@pytest.mark.parametrize(
    "make, problem", [(Path.mkdir, "a folder; name the file in it"), (os.mkfifo, "a pipe or a dev")]
)
def test_what_is_called_like_a_raw_file_and_is_none_is_named(run, tmp_path, make, problem):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    (folder / "ratings.csv").unlink()
    make(folder / "ratings.csv")
    with pytest.raises(RecordError, match=rf"ratings\.csv: {problem}"):
        run("movielens", folder)


def everything(examples):
    return [(x.record.user, x.record.history, x.record.target) for x in examples]


def kaggle(folder, ratings, films="movie.csv", name="rating.csv"):
    """MovieLens as Kaggle's copy has it: other names, a quoted header, dates for times."""
    plain = test_movielens.write(folder, ratings)
    plain.joinpath("movies.csv").rename(plain / films)
    rows = [f'{u},{f},3.5,"1970-01-01 {t // 3600:02}:{t // 60 % 60:02}:{t % 60:02}"' for u, f, t in ratings]
    plain.joinpath("ratings.csv").unlink()
    (plain / name).write_text("\n".join(['"userId","movieId","rating","timestamp"', *rows]) + "\n")
    return plain


@pytest.mark.parametrize("names", [{}, {"name": "ratings.csv", "films": "movies.csv"}])
def test_movielens_of_kaggle_is_read_under_its_own_names_or_the_official_ones(run, tmp_path, names):
    official = run("movielens", test_movielens.write(tmp_path / "a", test_movielens.RATINGS), min_interactions=2)[0]
    built, job = run("movielens", kaggle(tmp_path / "b", test_movielens.RATINGS, **names), min_interactions=2)
    assert everything(built) == everything(official) and built
    assert job.counts["ratings read"] == len(test_movielens.RATINGS)


def test_numbers_that_a_table_program_touched(run, tmp_path):
    """Whole numbers with .0, a column of row numbers, and users that are missing: these are dropped and counted."""
    ratings = [(user, film, 10 * film) for user in range(1, 7) for film in range(1 + user, 9 + user)]
    official = run("movielens", test_movielens.write(tmp_path / "a", ratings), min_interactions=2)[0]
    folder = test_movielens.write(tmp_path / "b", ratings)
    rows = [f"{i},{u}{'.0' * (f % 2)},{f}.0,3.5,{t}.0" for i, (u, f, t) in enumerate(ratings)]
    rows[3:3] = ["98,NaN,3.0,4.0,70.0", "99,,3.0,4.0,70.0", "100, ,3.0,4.0,70.0", "101,1.0,nan,4.0,70.0"]
    (folder / "ratings.csv").write_text("\n".join([",userId,movieId,rating,timestamp", *rows]) + "\n")
    built, job = run("movielens", folder, min_interactions=2)
    assert everything(built) == everything(official)
    assert job.counts["dropped: a rating without a user or a film"] == 4


@pytest.mark.parametrize(
    "name, text, expected",
    [
        (
            "ratings.csv",
            "userId,movieId,rating\n",
            ":1: expected the header userId,movieId,rating,timestamp, and timestamp is",
        ),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,4,soon\n", ":2: field 'timestamp': 'soon' is neither"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,4,\n", ":2: field 'timestamp': '' is neither"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,4\n", ":2: '1,2,4' has 3 fields, expected userId,"),
        ("ratings.csv", "userId,movieId,rating,timestamp\r1,2,4,5\r", ": lines that end with CR alone; convert it"),
        ("ratings.csv", "userId,movieId,rating,timestamp\na\tb,2,4,5\n", ":2: field 'userId': an id with a tab"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,nan,5\n", ":2: field 'rating': expected a number of"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,4," + "9" * 30, ":2: field 'timestamp': '99999"),
        ("movies.csv", "id,title,genres\n", ":1: expected the header movieId,title,genres, and movieId is not in it"),
    ],
)
def test_what_no_edition_of_movielens_has_is_named(run, tmp_path, name, text, expected):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    (folder / name).write_text(text)
    with pytest.raises(RecordError) as caught:
        run("movielens", folder)
    assert str(caught.value).startswith(f"{folder / name}{expected}")


def test_a_field_of_200_kilobytes_is_read(run, tmp_path):
    long = test_movielens.FILMS | {"1": ("Film " + "x" * 200_000, "Drama")}
    built, _ = run("movielens", test_movielens.write(tmp_path, test_movielens.RATINGS, films=long), min_interactions=2)
    assert any(len(pair.chosen) > 200_000 for x in built for pair in (*x.record.history, x.record.target))


@pytest.mark.parametrize("edition", ["csv", "dat", "u.data"])
def test_blank_lines_of_movielens_are_passed_over(run, tmp_path, edition):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS, edition)
    before, _ = run("movielens", folder, min_interactions=2)
    for path in folder.iterdir():
        path.write_text(path.read_text() + "\n  \n")
    built, job = run("movielens", folder, min_interactions=2)
    assert built == before and job.counts["ratings read"] == len(test_movielens.RATINGS)


def test_blank_lines_of_mind_are_passed_over(run, tmp_path):
    rows = [("u", "11/12/2019 1:00:00 AM", "N5 N3", "N8-0 N9-1"), ("v", "11/12/2019 1:00:00 AM", "N1 N2", "N8-1 N9-0")]
    folder = test_mind.write(tmp_path, rows)
    before, _ = run("mind", folder, min_interactions=2)
    for path in folder.rglob("*.tsv"):
        path.write_text(path.read_text() + "\n\t\n")
    assert run("mind", folder, min_interactions=2)[0] == before and before


@pytest.mark.parametrize("title", [" ", "\u00a0", "<br/>"])
def test_an_item_of_white_space_alone_is_dropped_and_counted(run, tmp_path, title):
    films = test_movielens.FILMS | {"3": (title, "Drama")}
    built, job = run("movielens", test_movielens.write(tmp_path, test_movielens.RATINGS, films=films))
    assert job.counts["dropped: a film without an id or a title"] == 1
    assert job.counts["dropped: the film is not listed"] == sum(film == 3 for _, film, _ in test_movielens.RATINGS)


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("AT&amp;T <b>x</b>", "AT&T x"),
        ("one<br/>two<BR>three<br />four", "one two three four"),
        ('<div class="aplus"><h4>Cards</h4><p>For  all.</p></div>', "Cards For all."),
        ("Tom &#38; J&#x65;rry&nbsp;&quot;new&quot;", 'Tom & Jerry "new"'),
        ("&lt;b&gt;bold&lt;/b&gt; &amp;amp; more", "bold & more"),
        ("a<!-- hidden > --> b<style>p {color: red}</style> <SCRIPT>x < 1</SCRIPT>c", "a b c"),
        ("<a href=\"x?a>b\" title='c'>link</a>s", "links"),
        ("I <3 you, a < b > c,  <think>x</think> AT&T; R&D &unknown; <3&4;", None),
        ("  <user> & \t <Reader> 5 > 4 ", None),
        ("&#xD83D; half", "\ufffd half"),
    ],
)
def test_html_is_taken_out_of_a_text_and_nothing_else_is(text, cleaned):
    assert plain(text) == (text if cleaned is None else cleaned)


def test_html_of_items_is_removed_and_counted_or_kept_as_published(run, tmp_path):
    product = {"title": "AT&amp;T <b>x</b>", "description": ["<div class='aplus'>One.", "", "Two.<br/></div>"]}
    folder = amazon(tmp_path, product)
    cleaned, job = run("amazon", folder, min_interactions=2)
    raw, as_published = run("amazon", folder, min_interactions=2, markup="kept")
    texts, before = (
        {pair.chosen for x in examples for pair in (*x.record.history, x.record.target)} for examples in (cleaned, raw)
    )
    assert "Title: AT&T x\nDescription: One. Two." in texts - before
    assert "Title: AT&amp;T <b>x</b>\nDescription: <div class='aplus'>One. Two.<br/></div>" in before - texts
    count = "cleaned: a title or a description with HTML in it"
    assert job.counts[count] == 2 and count not in as_published.counts


COMMA = b'{"asin": "B1", "title": "T",}\n'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line", [COMMA, COMMA.replace(b",}", b"},"), LINE.strip() + b" " + LINE], ids=str)
@pytest.mark.parametrize("name", ["meta_Toys.jsonl", "Toys.jsonl"])
def test_a_comma_at_the_end_and_two_objects_on_a_line_are_no_json_to_any_reader(run, tmp_path, name, line, packed):
    write(tmp_path, REVIEWS, 2023)
    path = tmp_path / name
    content = path.read_bytes() + line
    if packed:
        path.unlink()
        path = path.with_name(f"{name}.gz")
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=rf"{name}(\.gz)?:\d+: not JSON \("):
        run("amazon", tmp_path, min_interactions=2)
    rows = tmp_path / "answers"
    rows.mkdir()
    (rows / "a.jsonl").write_bytes(line)
    with pytest.raises(RecordError, match=r"a\.jsonl:1: not JSON \("):
        run("alignx", rows)
    with pytest.raises(RecordError, match=r"a\.jsonl:1: not JSON \("):
        list(read_jsonl(rows / "a.jsonl"))


def test_a_comma_and_a_bracket_inside_a_text_are_no_reason_to_read_row_by_row(run, tmp_path, monkeypatch):
    folder = amazon(tmp_path, {"title": "one, ] two,}"}, {"reviewText": "a,} b,]"})
    monkeypatch.setattr(amazon_builder, "_rows", None)
    assert run("amazon", folder, min_interactions=2)[0]


@pytest.mark.parametrize(
    "text, problem",
    [
        ('[{"a": 1},]', "',]' where ] ends the array"),
        ('[\n{"a": 1},\n]\n', "',\\n]' where ] ends the array"),
        ('[{"a": 1}\n', "ends in the middle of a row; the download may be cut short"),
        ('[{"a": 1},\n{"a": 2}\n', "ends in the middle of a row; the download may be cut short"),
        ('[{"a": 1} {"a": 2}]', "'' where one comma parts two rows"),
        ('[{"a": 1},,{"a": 2}]', "',,' where one comma parts two rows"),
        ('[{"a": 1}] {"a": 2}', "']' where one comma parts two rows"),
    ],
)
def test_an_array_that_is_none_is_named(tmp_path, text, problem):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RecordError) as caught:
        list(read_rows(tmp_path / "a.json", Job(get("alignx"), tmp_path)))
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "[ ]\n", '[{"a": 1}]', '[\n {"a": 1}\n,{"a":\n 2}\n]\n', "", "\n\n"])
def test_arrays_are_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    read = [row for _, row in read_rows(tmp_path / "a.json", Job(get("alignx"), tmp_path))]
    assert read == (json.loads(text) if text.strip() else [])


@pytest.mark.parametrize(
    "damage, problem",
    [
        (lambda packed: b"", ": an empty file, not one packed by gzip; the download may have failed"),
        (lambda packed: packed + b"<html>", "; it is damaged, or something else was added to it"),
        (lambda packed: packed[:-12], "; the download may be cut short"),
    ],
)
def test_what_is_wrong_with_a_packed_file_is_said(run, tmp_path, damage, problem):
    write(tmp_path, REVIEWS, 2023)
    reviews = tmp_path / "Toys.jsonl"
    (tmp_path / "Toys.jsonl.gz").write_bytes(damage(gzip.compress(reviews.read_bytes(), mtime=0)))
    reviews.unlink()
    with pytest.raises(RecordError) as caught:
        run("amazon", tmp_path, min_interactions=2)
    assert "Toys.jsonl.gz" in str(caught.value) and problem in str(caught.value)


@pytest.mark.parametrize("mark, name", [(";", "semicolons"), ("\t", "tabs")])
def test_ratings_parted_by_something_else_are_named_and_blanks_in_the_header_are_none(run, tmp_path, mark, name):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    before, _ = run("movielens", folder, min_interactions=2)
    ratings = folder / "ratings.csv"
    text = ratings.read_text()
    ratings.write_text(text.replace("userId,movieId,", "userId, movieId ,"))
    assert run("movielens", folder, min_interactions=2)[0] == before
    ratings.write_text(text.replace(",", mark))
    with pytest.raises(RecordError, match=rf"ratings\.csv:1: fields parted by {name}; part them by commas"):
        run("movielens", folder, min_interactions=2)


def test_a_folder_that_links_to_itself_holds_one_edition(run, tmp_path):
    folder = test_movielens.write(tmp_path, test_movielens.RATINGS)
    (folder / "again").symlink_to(folder)
    assert run("movielens", folder, min_interactions=2)[0]
