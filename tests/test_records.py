"""The data contract: what is read and written, and the message for every kind of bad input."""

import gzip
import json
import logging
import os
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignxplore.benchmark_files import parse_interaction, read_users, user_row
from alignxplore.records import (
    Interaction,
    Offer,
    RecordError,
    UserRecord,
    content_hash,
    hash_seed,
    read_jsonl,
    read_source,
    stands_in,
    write_json,
    write_jsonl,
)
from alignxplore.texts import table_id

PAIR = {"query": "Which film?", "chosen": "a quiet film", "rejected": "a loud film"}
USER = {"userid": "u1", "history": [PAIR], "target": {"query": None, "chosen": "a sea film", "rejected": "a car film"}}


def without(key, row=USER):
    return {k: v for k, v in row.items() if k != key}


def user(name, **changes):
    return USER | {"userid": name} | changes


def pair(**changes):
    return PAIR | changes


def error_of(path, **options):
    with pytest.raises(RecordError) as caught:
        list(read_users(path, **options))
    return str(caught.value)


def test_reads_a_benchmark_row(jsonl):
    path = jsonl(user("u1", ground_truth_persona="likes the sea"), without("userid") | {"uid": 7})
    first, second = read_users(path, default_query="Which one?")
    assert first.user == "u1" and first.persona == "likes the sea" and first.source == f"{path}:1"
    assert first.history == (Interaction("a quiet film", "a loud film", "Which film?"),)
    assert first.target == Interaction("a sea film", "a car film", "Which one?")  # null takes the data set's query
    assert second.user == "7" and second.persona is None


def test_a_null_userid_falls_back_to_uid(jsonl):
    assert next(read_users(jsonl(user(None, uid="u9")))).user == "u9"


def test_numbers_of_users_are_whole_whatever_wrote_them(jsonl):
    """A table program makes 7.0 of 7 where other rows lack a number: one person, not two."""
    assert "user '7' already stands at line 1" in error_of(jsonl(user(7), user(7.0)))


def test_an_empty_persona_is_none(jsonl):
    empty, absent = (
        next(read_users(jsonl(row, name=name)))
        for row, name in ((user("u", ground_truth_persona=""), "a"), (user("u"), "b"))
    )
    assert empty.persona is None and empty.id == absent.id


def test_the_type_of_a_question_is_kept_and_no_part_of_the_id(jsonl):
    (typed,) = read_users(jsonl(user("u", question_type="recall")))
    (plain,) = read_users(jsonl(user("u"), name="b"))
    assert (typed.question_type, plain.question_type) == ("recall", None) and typed.id == plain.id
    assert user_row(typed)["question_type"] == "recall" and "question_type" not in user_row(plain)


def test_history_may_have_no_alternative(jsonl):
    record = next(read_users(jsonl(user("u", history=[pair(rejected=None)]))))
    assert record.history[0].rejected is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (without("userid"), "field 'userid': missing; each row needs the user's id as 'userid' or 'uid'"),
        (user(""), "field 'userid': missing"),
        (user(True), "field 'userid': missing"),
        (user(["u"]), "field 'userid': missing"),
        (user(" "), "field 'userid': missing"),
        (user("NaN"), "field 'userid': missing"),
        (user(float("nan")), "field 'userid': missing"),
        (without("history", user("u2")), "field 'history': missing"),
        (user("u2", history={}), "field 'history': expected a list"),
        (
            user("u2", history=[]),
            "field 'history': empty; a user without a past has no preferences to infer: drop the row",
        ),
        (
            user("u2", history=["a film"]),
            "field 'history[0]': expected an object with query, chosen, rejected; found str",
        ),
        (user("u2", history=[PAIR, without("chosen", PAIR)]), "field 'history[1].chosen': missing"),
        (
            user("u2", history=[without("rejected", PAIR)]),
            "field 'history[0].rejected': missing (use null where the user saw no alternative)",
        ),
        (user("u2", history=[pair(chosen=None)]), "field 'history[0].chosen': empty"),
        (
            user("u2", history=[pair(chosen=" \n")]),
            "field 'history[0].chosen': empty; an interaction needs the text of what was chosen",
        ),
        (
            user("u2", history=[pair(rejected="")]),
            "field 'history[0].rejected': empty; use null where the user saw no alternative",
        ),
        (user("u2", history=[pair(chosen=3)]), "field 'history[0].chosen': expected text or null, found int"),
        (user("u2", history=[pair(query=["q"])]), "field 'history[0].query': expected text or null, found list"),
        (user("u\ud83d"), "field 'userid': half a character (a lone surrogate) in an id, so two could become one"),
        ('{"userid": ' + "[" * 100_000, "not JSON (brackets are nested too deeply); repair or delete this line"),
        ("{'userid': 'u2', 'history': []}", "Python literals, as older dumps have them, not JSON; convert them"),
        (without("target", user("u2")), "field 'target': missing; it holds the interaction to be predicted"),
        (user("u2", target=None), "field 'target': expected an object"),
        (
            user("u2", target=pair(rejected=None)),
            "field 'target.rejected': null; a target needs an alternative to be told from",
        ),
        (
            user("u2", target=pair(chosen="a film ", rejected="a  film")),
            "field 'target.rejected': the same as 'chosen', so there is no right answer; drop the row",
        ),
        (user("u1"), "field 'userid': user 'u1' already stands at line 1; give each row its own id"),
        ('["a", "list"]', "expected an object, found list"),
        ('{"userid": "u2", "hist', "not JSON (Invalid control character"),
        (b'{"userid": "caf\xe9"}', "byte 16 is not UTF-8; convert the file from its own encoding, e.g. "),
    ],
)
def test_bad_line_names_file_line_field_and_remedy(jsonl, line, expected):
    path = jsonl(USER, line, user("u3"))
    assert error_of(path).startswith(f"{path}:2: {expected}")


def test_two_items_of_one_text_in_a_history_are_no_choice(jsonl, caplog):
    (record,) = read_users(jsonl(user("u1", history=[PAIR, pair(chosen="x", rejected="x")])))
    assert record.history[1] == Interaction("x", None, "Which film?") and record.history[0].rejected
    assert ":1: history[1]: rejected is the same as chosen; read as no alternative" in caplog.text


def test_rows_before_the_bad_one_are_yielded(jsonl):
    rows = read_users(jsonl(USER, user("u2"), without("target", user("u3"))))
    assert [next(rows).user, next(rows).user] == ["u1", "u2"]
    with pytest.raises(RecordError):
        next(rows)


def test_duplicates_pass_where_allowed(jsonl):
    assert len(list(read_users(jsonl(USER, USER), allow_duplicates=True))) == 2


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
        ([pair(chosen="a sea film", rejected="a third film")], False),
        ([pair(chosen="a car film", rejected="a sea film")], False),
        ([pair()], False),
    ],
)
def test_target_in_history_is_flagged_as_leakage(jsonl, history, leaked):
    assert next(read_users(jsonl(user("u", history=history)))).leaked is leaked


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
interactions = st.builds(Interaction, texts, st.none() | texts, st.none() | texts).filter(lambda x: not x.same)
records = st.builds(
    UserRecord,
    texts.filter(table_id),
    st.lists(interactions, min_size=1, max_size=3).map(tuple),
    st.builds(Interaction, texts, texts, texts | st.none()).filter(lambda x: not x.same),
    st.text(max_size=9) | st.none(),
)


@settings(max_examples=25, deadline=None)
@given(records)
def test_round_trip_keeps_record_and_id(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("round") / "x.jsonl"
    assert write_jsonl(path, [user_row(record)]) == 1
    (again,) = read_users(path)
    assert (again.history, again.target, again.persona) == (record.history, record.target, record.persona or None)
    assert again.id == record.id or record.persona == ""  # an empty persona is none


def test_ids_depend_on_content_only(jsonl):
    one, two = (
        next(read_users(jsonl(row, name=name))) for row, name in ((USER, "a"), (dict(reversed(USER.items())), "b"))
    )
    assert one.id == two.id and one == two
    changed = next(read_users(jsonl(user("u1", target=pair(chosen="another")), name="c")))
    assert changed.id != one.id


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


def test_parse_interaction_without_a_file():
    with pytest.raises(RecordError, match=r"^field 'mid_record\.chosen': missing$"):
        parse_interaction({"rejected": None}, field="mid_record")


@pytest.mark.parametrize("write", [lambda path: write_json(path, {}), lambda path: write_jsonl(path, [{}])])
def test_what_killed_writers_left_is_swept_when_the_file_is_written_again(tmp_path, write):
    killed = (
        "import os, signal, sys; from alignxplore.records import write_jsonl\n"
        "write_jsonl(sys.argv[1], (os.kill(os.getpid(), signal.SIGKILL) for _ in range(1)))"
    )
    for name in ("a.json", "b.json"):
        assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / name)]).returncode == -9
    (left,) = tmp_path.glob(".a.json.*.partial")
    running = left.with_name(left.name.rsplit(".", 2)[0] + f".{os.getppid()}.partial")
    running.touch()
    write(tmp_path / "a.json")
    assert not left.exists() and running.exists() and len(list(tmp_path.glob(".b.json.*.partial"))) == 1


OFFER = {"query": "Which?", "chosen": "a", "rejected": ["b", "c"]}


def test_a_target_may_be_a_choice_among_k_items(jsonl):
    row = {"userid": "u", "history": [{"chosen": "x", "rejected": None}], "target": OFFER}
    several = row | {"userid": "v", "target": OFFER | {"chosen": ["a", "d"]}}
    one, two = read_users(jsonl(row, several))
    assert one.target == Offer("a", None, "Which?", (), ("b", "c")) and one.target.candidates == ("a", "b", "c")
    assert two.target == Offer("a", None, "Which?", ("d",), ("b", "c")) and two.target.taken == ("a", "d")
    assert [user_row(record)["target"] for record in (one, two)] == [OFFER, OFFER | {"chosen": ["a", "d"]}]
    assert one.id != two.id and one.id != replace(one, target=Offer("a", None, "Which?", (), ("c", "b"))).id
    with pytest.raises(RecordError, match="field 'rejected': a list; here a pair is needed"):
        _ = one.target.items
    assert one.target.rejected is None, "who asks about pairs leaves it out"


def test_a_list_leaks_when_one_of_the_chosen_stands_in_the_history():
    offer = Offer("a", None, None, ("d",), ("b", "c"))
    shown = [Interaction("a", "z"), Interaction("b", "d"), Interaction("d", "c"), Interaction("a")]
    assert [stands_in(offer, [one]) for one in shown] == [False, False, True, True]


def test_an_item_that_a_list_repeats_counts_once(jsonl):
    target = OFFER | {"chosen": ["a", "a ", "d"], "rejected": ["b b", "c", "b  b", "c"]}
    (record,) = read_users(jsonl({"userid": "u", "history": [{"chosen": "x", "rejected": None}], "target": target}))
    assert record.target == Offer("a", None, "Which?", ("d",), ("b b", "c"))


@pytest.mark.parametrize(
    "target, field, problem",
    [
        (OFFER | {"rejected": []}, "rejected", "expected at least one text"),
        (OFFER | {"rejected": ["b", None]}, "rejected", "expected at least one text"),
        (OFFER | {"rejected": ["b", " "]}, "rejected", "no empty one"),
        (OFFER | {"chosen": []}, "chosen", "expected at least one text"),
        (OFFER | {"chosen": None}, "chosen", "expected at least one text"),
        (OFFER | {"rejected": ["b", "a"]}, "rejected", "holds an item of 'chosen'"),
        (OFFER | {"query": 3}, "query", "expected text or null"),
        ({"chosen": ["a"], "rejected": "b"}, "chosen", "expected text or null, found list"),
    ],
)
def test_a_list_that_cannot_be_meant_is_named(jsonl, target, field, problem):
    row = {"userid": "u", "history": [{"chosen": "x", "rejected": None}], "target": target}
    with pytest.raises(RecordError, match=rf":1: field 'target\.{field}': .*{problem}"):
        list(read_users(jsonl(row)))
