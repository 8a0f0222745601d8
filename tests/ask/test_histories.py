"""A history of one's own: typed in, JSONL, CSV or Parquet; what cannot be read is named by its line."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignxplore.ask.histories import Columns, read_history, typed
from alignxplore.records import Interaction, RecordError

PAIR = Interaction("Heat (1995)", "Alien (1979)")


@pytest.mark.parametrize(
    ("text", "history"),
    [
        ("Heat (1995) > Alien (1979)\n", [PAIR]),
        ("\ufeffHeat (1995)\tAlien (1979)", [PAIR]),
        ("  Heat (1995)   >   Alien (1979)  \n\n\nUp\n", [PAIR, Interaction("Up")]),
        ("a>b is one item", [Interaction("a>b is one item")]),
        ('{"chosen": "Heat (1995)", "rejected": "Alien (1979)"}', [PAIR]),
        (
            '{"chosen": "Up"}\n{"chosen": "Ran", "rejected": null, "query": "Which?"}',
            [Interaction("Up"), Interaction("Ran", None, "Which?")],
        ),
        ("chosen,rejected\nHeat (1995),Alien (1979)\n", [PAIR]),
        ("rejected;chosen\nAlien (1979);Heat (1995)\n", [PAIR]),
        ('"Chosen","Rejected"\n"Two\nlines","Heat, the film"\n\n', [Interaction("Two\nlines", "Heat, the film")]),
        ("Ugly, beautiful\nx", [Interaction("Ugly, beautiful"), Interaction("x")]),
        ("same > same", [Interaction("same")]),
        ("half \ud83d", [Interaction("half \ufffd")]),
    ],
)
def test_what_is_typed_is_read(text, history):
    assert list(typed(text).history) == history


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no choice yet; type one choice a line"),
        ("Up\nHeat >  \n > Alien", "what was typed:2: one side of the '>' is empty"),
        ('{"chosen": "Up"}\n{"chosen"', "what was typed:2: not JSON"),
        ('{"chosen": "Up"}\n[1]', "what was typed:2: expected an object"),
        ('{"chosen": 7}', "field 'interaction.chosen': expected text"),
        ("chosen,rejected\n,Alien", "what was typed:2: field 'chosen': empty"),
        ("\nchosen,rejected\nHeat, the movie,Alien", "what was typed:3: 3 fields, and the header has 2; quote"),
        ("chosen,rejected\nHeat", "what was typed:2: 1 fields, and the header has 2"),
        ('chosen,rejected\n"Heat,Alien', "what was typed:2: not CSV"),
        ("chosen,chosen\na,b", "what was typed:1: field 'chosen': two columns have this name"),
        ("chosen,rejected", "what was typed: no row in it"),
        (f"chosen,rejected\n{'x' * 140_000},b", "choice 1 has an item of 140,000 characters"),
    ],
)
def test_what_cannot_be_read_is_named(text, problem):
    with pytest.raises(RecordError, match=problem):
        typed(text)


def test_a_csv_with_columns_of_any_name(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes('\ufefftitle;other;x\n"Heat; (1995)";Alien (1979);1\nUp;;2\n"Two\nlines";;3\n'.encode())
    person = read_history(path, Columns("title", "other"))
    assert person.history == (
        Interaction("Heat; (1995)", "Alien (1979)"),
        Interaction("Up"),
        Interaction("Two\nlines"),
    )
    assert person.key == read_history(path, Columns("title", "other")).key != read_history(path, Columns("title")).key


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            b"title,other\nUp,\n",
            "mine.csv:1: field 'chosen': no such column; name one of these by its option (--help): title, other",
        ),
        (b"chosen,other\nUp\n", "mine.csv:2: 1 fields, and the header has 2"),
        (b"chosen\nUp\n\xffx\n", "mine.csv:3: byte 1 is not UTF-8"),
        (b'chosen\nUp\n"open\nnever closed\n', "mine.csv:3: not CSV"),
        (b"chosen,rejected\nUp,x\n,y\n", "mine.csv:3: field 'chosen': empty"),
        (b"chosen\n", "mine.csv: no row in it"),
        (b"", "an empty file; the download or the export may have failed"),
        (b"chosen,chosen\na,b\n", "two columns have this name"),
        (b"PK\x03\x04", "packed by zip"),
    ],
)
def test_a_csv_that_cannot_be_read_names_its_line(tmp_path, raw, problem):
    path = tmp_path / "mine.csv"
    path.write_bytes(raw)
    with pytest.raises(RecordError, match=re.escape(problem)):
        read_history(path)


def test_jsonl_of_interactions_of_persons_and_parquet(tmp_path, jsonl):
    rows = [
        {"userid": 7, "history": [{"chosen": "Up", "rejected": "Ran"}], "target": {"chosen": "A", "rejected": "B"}}
    ]
    rows.append({"userid": "8", "history": [{"chosen": "Heat", "rejected": None}]})
    persons = jsonl(*rows)
    first, second = read_history(persons), read_history(persons, user="8")
    assert (first.name, first.target, second.target) == ("7", Interaction("A", "B"), None)
    nought = read_history(jsonl({"userid": 0, "history": [{"chosen": "Up", "rejected": None}]}, name="nought.jsonl"))
    assert nought.name == "0"
    with pytest.raises(RecordError, match="no person '9'"):
        read_history(persons, user="9")
    assert read_history(jsonl({"chosen": "Up"}, name="own.jsonl")).history == (Interaction("Up"),)
    with pytest.raises(RecordError, match="own.jsonl:2: a person among interactions"):
        read_history(jsonl({"chosen": "Up"}, rows[0], name="own.jsonl"))
    pq.write_table(pa.table({"chosen": ["Up", "Ran"], "rejected": [None, "Heat"]}), tmp_path / "own.parquet")
    assert read_history(tmp_path / "own.parquet").history == (Interaction("Up"), Interaction("Ran", "Heat"))
    with pytest.raises(RecordError, match="own.parquet: a table is read as the history of one person"):
        read_history(tmp_path / "own.parquet", user="8")
    with pytest.raises(RecordError, match="own.xlsx: a spreadsheet; save it as CSV"):
        (tmp_path / "own.xlsx").write_bytes(b"x")
        read_history(tmp_path / "own.xlsx")


def test_without_an_interaction_it_is_as_if_it_had_never_been():
    person = typed("a > b\nc > d\ne > f")
    assert [interaction.chosen for interaction in person.without([1]).history] == ["a", "e"]
    assert person.without([1]).key == person.key  # what else changes is the model's doing, not another seed's
    with pytest.raises(RecordError, match="nothing of the history is left"):
        person.without([0, 1, 2])


@pytest.mark.parametrize("name", ["rejected", "query"])
def test_a_column_that_is_named_and_not_there_is_refused_with_those_that_are(name, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("chosen,instead\na,b\n")
    with pytest.raises(RecordError, match=r"typo.*no such column.*chosen, instead"):
        read_history(path, Columns(**{name: "typo"}))
    assert read_history(path).history == (Interaction("a"),)  # what nobody named may be missing


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_json_array_is_read_as_rows(end):
    assert typed('[{"chosen": "a"}, {"chosen": "b", "rejected": "c"}]' + end).history == (
        Interaction("a"),
        Interaction("b", "c"),
    )
    assert typed('[\n {"chosen": "a"}\n]').history == (Interaction("a"),)
    assert typed("[REC] > Alien").history == (Interaction("[REC]", "Alien"),)
    for wrong in ("[]", "[1, 2]", '["a", "b"]', '[{"chosen": "a"}', '[{"chosen": "a"}, 3]'):
        with pytest.raises(RecordError, match="JSON"):
            typed(wrong)


TABLE = "title,instead,asked\nUp,Ran,Which?\n"
PERSONS = '{"userid": "7", "history": [{"chosen": "Up"}]}\n{"userid": "8", "history": [{"chosen": "Heat"}]}\n'


def test_a_pipe_is_read_as_a_file_is(tmp_path):
    columns = Columns("title", "instead", "asked")
    (tmp_path / "mine.csv").write_text(TABLE)
    assert typed(TABLE, columns).history == read_history(tmp_path / "mine.csv", columns).history
    assert typed(TABLE, columns).history == (Interaction("Up", "Ran", "Which?"),)
    assert typed(PERSONS.replace('{"chosen"', '{"rejected": null, "chosen"'), user="8").name == "8"
    wide = "id,title,chosen,rejected\n1,x,Up,Ran\n"
    assert typed(wide).history == (Interaction("Up", "Ran"),)


@pytest.mark.parametrize(
    ("text", "values", "problem"),
    [
        (TABLE, {"columns": Columns("name")}, "field 'name': no such column.*title, instead, asked"),
        (TABLE, {"columns": Columns("title", "other")}, "field 'other': no such column"),
        (TABLE, {"columns": Columns("title"), "user": "7"}, "leave --person out"),
        ("Up > Ran", {"user": "7"}, "leave --person out"),
        ('{"chosen": "Up"}', {"user": "7"}, "no person '7' in it"),
    ],
)
def test_what_a_pipe_does_not_hold_is_refused(text, values, problem):
    with pytest.raises(RecordError, match=problem):
        typed(text, **values)


def test_a_line_ends_where_a_file_has_its_end():
    assert typed('{"chosen": "a\u2028b"}\r\n{"chosen": "c\x85d"}').history == (
        Interaction("a\u2028b"),
        Interaction("c\x85d"),
    )
    assert typed("one\u2028title > other\r\nx\u2029 y\x0cz").history == (
        Interaction("one\u2028title", "other"),
        Interaction("x\u2029 y\x0cz"),
    )
