"""Raw files as they arrive: halves of characters, other kinds of files, blank lines, markup."""

import gzip
import json

import pytest

from alignxplore.records import RecordError
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
        ({"product": {"asin": "B\ud83d"}}, r"meta_Toys\.json:3: field 'asin': half a character"),
    ],
)
def test_half_a_character_in_an_id_is_an_error_with_its_place(run, tmp_path, changes, where):
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
            gzip.compress(gzip.compress(LINE)),
            ": packed by gzip inside gzip; unpack it with gunzip",
        ),
        ("meta_Toys.json.gz", gzip.compress(b"<html>404</html>\n"), ": a web page, not data"),
        ("meta_Toys.json", gzip.compress(LINE), ": packed by gzip; unpack it with gunzip"),
        ("meta_Toys.json", b"<html>404</html>", ": a web page, not data"),
        ("meta_Toys.json", b"{'asin': 'B1', 'title': \"T's\"}\n", ":1: Python literals, as older dumps have them"),
        ("meta_Toys.json", LINE + b"{'asin': 'B1', 'title': 'T'}\n", ":2: Python literals, as older dumps have them"),
        ("meta_Toys.jsonl", b"[" + LINE.strip() + b"]\n", ":1: a JSON array, not one object a line"),
        ("meta_Toys.jsonl", b"[\n " + LINE + b"]\n", ":1: a JSON array, not one object a line"),
        ("meta_Toys.jsonl", b"asin,title\nB1,T\n", ":1: not JSON (CSV or plain text?)"),
        ("meta_Toys.jsonl", LINE.decode().encode("utf-16"), ": UTF-16, not UTF-8; convert it with iconv -f UTF-16 "),
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
