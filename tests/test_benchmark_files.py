"""Rows of benchmark files as records and back, and the message for every row that breaks the contract."""

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
    stands_in,
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
        ('{"userid": 1e400, "history": []}', "field 'userid': a number too large to tell two users apart; write ids"),
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
        ('{"userid": ' + "9" * 5000 + "}", "not JSON (a number of more than 4300 digits); repair or delete this line"),
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


def test_parse_interaction_without_a_file():
    with pytest.raises(RecordError, match=r"^field 'mid_record\.chosen': missing$"):
        parse_interaction({"rejected": None}, field="mid_record")


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
    interactions = [Interaction("z", "a"), Interaction("b", "d"), Interaction("d", "c"), Interaction("a", "z")]
    assert [stands_in(offer, [interaction]) for interaction in interactions] == [False, False, True, True]


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
