"""The data contract: JSONL in and out, hashes, and the message for every file that cannot be read."""

import gzip
import json
import logging
import os
import subprocess
import sys
import weakref

import pytest

from alignxplore import records
from alignxplore.benchmark_files import read_users
from alignxplore.records import (
    RecordError,
    content_hash,
    hash_seed,
    read_jsonl,
    read_source,
    read_steps,
    write_json,
    write_jsonl,
)
from tests.test_benchmark_files import USER, error_of, pair, user


def test_missing_file_is_named(tmp_path):
    assert error_of(tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file"


@pytest.mark.parametrize("torn", [b'{"userid": "u2", "hist', '{"userid": "u2é'.encode()[:-1]])
def test_torn_last_line_is_dropped_with_a_warning(jsonl, caplog, torn):
    path = jsonl(USER, torn, end=b"")
    with caplog.at_level(logging.WARNING):
        assert [record.user for record in read_users(path)] == ["u1"]
    assert f"{path}:2: dropped the last line: it is torn" in caplog.text


def test_last_line_in_another_encoding_is_not_taken_for_torn(jsonl):
    assert "byte 16 is not UTF-8" in error_of(jsonl(USER, b'{"userid": "caf\xe9 au lait"}', end=b""))


def test_complete_last_line_without_newline_counts(jsonl):
    assert len(list(read_users(jsonl(USER, user("u2"), end=b"")))) == 2


def test_byte_order_mark_blank_lines_and_windows_ends(jsonl):
    path = jsonl(b"\xef\xbb\xbf" + json.dumps(USER).encode() + b"\r", b"", b"  ", user("u2"))
    assert [line for line, _ in read_jsonl(path)] == [1, 4]
    assert [record.user for record in read_users(path)] == ["u1", "u2"]


def test_a_byte_order_mark_is_only_skipped_at_the_start(jsonl):
    assert ":2: not JSON" in error_of(jsonl(USER, b"\xef\xbb\xbf" + json.dumps(user("u2")).encode()))


@pytest.mark.parametrize(
    ("history", "leaked"),
    [
        ([pair(chosen="a sea film", rejected="a car film", query="other words")], True),
        ([pair(), pair(chosen="a sea film", rejected=None)], True),  # nothing else was shown: the same choice
        ([pair(chosen="a sea film", rejected="a third film")], True),  # alternatives are drawn anew for each choice
        ([pair(chosen="a third film", rejected="a sea film")], False),
        ([pair(chosen="a car film", rejected="a sea film")], False),
        ([pair()], False),
    ],
)
def test_target_in_history_is_flagged_as_leakage(jsonl, history, leaked):
    assert next(read_users(jsonl(user("u", history=history)))).leaked is leaked


def test_ids_depend_on_content_only(jsonl):
    one, two = (
        next(read_users(jsonl(row, name=name))) for row, name in ((USER, "a"), (dict(reversed(USER.items())), "b"))
    )
    assert one.id == two.id and one == two
    changed = next(read_users(jsonl(user("u1", target=pair(chosen="another")), name="c")))
    assert changed.id != one.id


def test_the_whole_history_is_hashed_once_however_often_the_id_is_asked_for(jsonl, monkeypatch):
    record, hashed = next(read_users(jsonl(USER))), []
    monkeypatch.setattr(records, "content_hash", lambda what: hashed.append(what) or content_hash(what))
    assert len({record.id for _ in range(5)}) == 1 and len(hashed) == 1


def test_hashes_are_the_same_in_every_process():
    assert content_hash({"b": 1, "a": "é"}) == content_hash({"a": "é", "b": 1}) == "aa58fba8483623be"
    assert (
        hash_seed("judge order", ["u1", 0], 3)
        == hash_seed("judge order", ["u1", 0], 3)
        != hash_seed("judge order", ["u1", 1], 3)
    )
    assert all(0 <= hash_seed(i) < 2**31 for i in range(2000))
    command = "from alignxplore.records import content_hash, hash_seed\n"
    command += "print(content_hash({'a': 'é', 'b': 1}), hash_seed('x'))"
    out = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    ).stdout.split()
    assert out == [content_hash({"a": "é", "b": 1}), str(hash_seed("x"))]


def test_half_characters_survive_writing(tmp_path):
    """A model's text can end in half of a pair; it must neither stop the run nor make the file unreadable."""
    write_jsonl(tmp_path / "a.jsonl", [{"text": "cut \ud83d"}])
    assert [row for _, row in read_jsonl(tmp_path / "a.jsonl")] == [{"text": "cut \ufffd"}]
    write_json(tmp_path / "a.json", {"text": "cut \ud83d é"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"text": "cut \ud83d é"}


def test_half_characters_are_replaced_where_they_are_read_and_counted(jsonl, caplog):
    """No tokenizer takes one; whole characters that are written in two halves stay as they are."""
    halves = user("u1", history=[pair(chosen="cut \ud83d", query="\ude00?")])
    with caplog.at_level(logging.WARNING):
        one, two = read_users(jsonl(halves, json.dumps(user("u2", history=[pair(chosen="whole \U0001f600")]))))
    assert (one.history[0].chosen, one.history[0].query) == ("cut \ufffd", "\ufffd?")
    assert two.history[0].chosen == "whole \U0001f600"
    assert ":1: half a character in a text" in caplog.text and "replaced in 2 texts" in caplog.text


ROW = json.dumps(USER)
ARRAY = json.dumps([USER], indent=1).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (gzip.compress(ROW.encode(), mtime=0), ": packed by gzip; unpack it with gunzip"),
        (b"PK\x03\x04 and more", ": packed by zip; unpack it"),
        (b"PAR1 and more", ": a Parquet file under another name"),
        (b"\n\n<!DOCTYPE html>\n<html>sign in</html>\n", ": a web page, not data"),
        (b"<HTML><body>404</body></HTML>", ": a web page, not data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", ": a pointer of Git LFS"),
        ((ROW + "\n").encode("utf-16"), ": UTF-16, not UTF-8; convert it with iconv -f UTF-16 -t UTF-8"),
        ((ROW + "\n").encode("utf-16-le"), ": UTF-16LE, not UTF-8; convert it with iconv -f UTF-16LE -t UTF-8"),
        ((ROW + "\n").encode("utf-16-be"), ": UTF-16BE, not UTF-8; convert it with iconv -f UTF-16BE -t UTF-8"),
        ((ROW + "\n").encode("utf-32"), ": UTF-32, not UTF-8; convert it with iconv -f UTF-32 -t UTF-8"),
        (ARRAY, ":1: a JSON array, not one object a line; convert it with jq -c '.[]'"),
        (json.dumps([USER]).encode() + b"\n", ":1: a JSON array, not one object a line"),
        (
            json.dumps(USER, indent=1).encode(),
            ":1: JSON over several lines, not one object a line; convert it with jq",
        ),
        (b"userid,chosen,rejected\nu1,a,b\n", ":1: not JSON (CSV or plain text?); one JSON object a line"),
        (b"userid,chosen,rejected", ":1: not JSON (CSV or plain text?); one JSON object a line"),
        (b"{'userid': 'u1'}", ":1: Python literals"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(tmp_path, content, expected):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert error_of(path).startswith(f"{path}{expected}")


def test_what_is_there_but_is_no_file_is_called_by_its_name(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.mkfifo(tmp_path / "pipe")
    assert error_of(tmp_path / "folder.jsonl").endswith("folder.jsonl: a folder; name the file in it")
    assert error_of(tmp_path / "pipe.jsonl").endswith(
        "pipe.jsonl: a pipe or a device, and data are read more than once; write it to a file first"
    )
    with pytest.raises(RecordError, match="pipe: a pipe or a device"):
        next(read_source(tmp_path / "pipe"))


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path):
    path = tmp_path / "sub" / "x.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n'
    assert [p.name for p in path.parent.iterdir()] == ["x.jsonl"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path):
    """Rewriting replaces the file in one step; it never passes through a half-written state."""
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"old": 1}])
    with path.open() as reader:
        write_jsonl(path, [{"new": 1}])
        assert reader.read() == '{"old": 1}\n' and path.read_text() == '{"new": 1}\n'
    with path.open() as reader:
        write_json(path, {"newer": 1})
        assert reader.read() == '{"new": 1}\n' and json.loads(path.read_text()) == {"newer": 1}


def test_memory_is_flat_in_the_number_of_rows(tmp_path):
    """Rows that were written are let go of before the next is made, and reading is as lazy."""

    class Row(dict):
        __hash__ = object.__hash__

    alive, most = weakref.WeakSet(), 0

    def rows():
        nonlocal most
        for i in range(9):
            alive.add(row := Row(i=i))
            most = max(most, len(alive))
            yield row

    assert write_jsonl(tmp_path / "x.jsonl", rows()) == 9 and most <= 2
    (tmp_path / "y.jsonl").write_text('{"i": 0}\nnot json\n')
    assert next(read_jsonl(tmp_path / "y.jsonl")) == (1, {"i": 0})


@pytest.mark.parametrize("write", [lambda path: write_json(path, {}), lambda path: write_jsonl(path, [{}])])
def test_what_killed_writers_left_is_swept_when_the_file_is_written_again(tmp_path, write):
    killed = (
        "import os, signal, sys; from alignxplore.records import write_jsonl\n"
        "write_jsonl(sys.argv[1], (os.kill(os.getpid(), signal.SIGKILL) for _ in range(1)))"
    )
    for name in ("a.json", "b.json"):
        assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / name)]).returncode == -9
    (old_file,) = tmp_path.glob(".a.json.*.partial")
    running = old_file.with_name(old_file.name.rsplit(".", 2)[0] + f".{os.getppid()}.partial")
    running.touch()
    write(tmp_path / "a.json")
    assert not old_file.exists() and running.exists() and len(list(tmp_path.glob(".b.json.*.partial"))) == 1


@pytest.mark.parametrize("row", [{}, {"step": None}, {"step": "3"}, {"step": True}, {"step": 3, "seconds": "1"}])
def test_a_line_of_a_log_that_is_no_step_is_named(tmp_path, row):
    path, field = tmp_path / "log.jsonl", "seconds" if "seconds" in row else "step"
    write_jsonl(path, [{"step": 1, "seconds": 0.5}, row])
    with pytest.raises(RecordError, match=rf"log.jsonl:2.*{field}.*expected a number"):
        read_steps(path, "seconds")
