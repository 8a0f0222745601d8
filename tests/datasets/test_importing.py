"""Tables of one's own → records and RL rows that evaluation and RL read; what is left out is counted."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from datetime import datetime

import pytest

from alignxplore.datasets.__main__ import ImportOptions, import_own
from alignxplore.datasets.importing import import_table
from alignxplore.datasets.own_events import Import
from alignxplore.datasets.sidecars import read_manifest, sha256
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import load_benchmarks
from alignxplore.records import RecordError, read_jsonl, write_jsonl
from alignxplore.rl.rows import read_rows
from alignxplore.synthesis.eligibility import LEAST_CHOICES
from alignxplore.synthesis.rounds import Thresholds
from tests import ROOT
from tests.datasets.own_tables import imported, pairs

RATED = """user,film,when,stars
a,Bad 2,6,1
a,Good 1,1,5
a,Mean,2,3
a,Bad 1,2,1
a,Good 3,5,5
a,Good 2,3,4
a,,7,5
,Up,8,5
a,No stars,9,
"""
RATINGS = {"user": "user", "item": "film", "time": "when", "rating": "stars"}


def test_ratings_count_against_the_persons_own_mean(tmp_path):
    test, train, rows, counts = imported(tmp_path, RATED.replace("Mean,2,3", "Mean,2,3.2"), RATINGS)
    assert (len(test), train, rows) == (1, [], [])
    assert pairs(test[0]) == [("Good 1", None), ("Good 2", "Bad 1"), ("Good 3", "Bad 2")]
    assert counts["rows read"] == 9 and counts["persons read"] == counts["test persons"] == 1
    for reason in ("user", "item", "rating or label"):
        assert counts[f"left out: a row without a{'n' if reason == 'item' else ''} {reason}"] == 1
    assert counts["left out: a rating that is the person's mean"] == 1
    assert counts["liked items without an alternative"] == 1


def test_a_later_rating_takes_the_place_of_an_earlier_one(tmp_path):
    again = RATED + "a,Good 1,10,1\na,Good 4,11,5\n"
    test, _, _, counts = imported(tmp_path, again, RATINGS)
    assert "Good 1" not in [chosen for chosen, _ in pairs(test[0])]
    assert counts["left out: the person had the same item before"] == 1


@pytest.mark.parametrize("yes, no", [("1", "0"), ("Like", "DISLIKE"), ("true", "false"), ("+1", "-1")])
def test_labels_say_it_by_themselves(tmp_path, yes, no):
    table = "u;i;l\n" + "".join(
        f"7.0;{'g' if good else 'b'}{i};{yes if good else no}\n" for i, good in enumerate([1, 0, 1, 0, 1, 0, 0])
    )
    test, _, _, counts = imported(tmp_path, table, {"user": "u", "item": "i", "label": "l"})
    assert test[0].user == "7" and pairs(test[0]) == [("g0", "b5"), ("g2", "b1"), ("g4", "b3")]
    assert counts["left out: a disliked item that no liked one is set against"] == 1


def likes(persons=40, seed=0):
    dice = random.Random(seed)
    return [
        {"user": f"p{person}", "item": f"item {item}", "at": f"2026-01-{day:02}"}
        for person in range(persons)
        for day, item in enumerate(dice.sample(range(60), 8), 1)
    ]


def test_likes_alone_get_alternatives_for_their_targets(tmp_path):
    columns = {"user": "user", "item": "item", "time": "at", "query": "What next?"}
    test, train, rows, counts = imported(tmp_path, likes(), columns, "likes.jsonl")
    assert len(test) + len(train) == 40 and 3 <= len(test) <= 14 and len(rows) == len(train)
    items_of = {}
    for row in likes():
        items_of.setdefault(row["user"], []).append(row["item"])
    for record in (*test, *train):
        chosen = [one for one, _ in pairs(record)]
        assert (
            chosen == items_of[record.user][: len(chosen)] and len(chosen) >= 3 and record.target.query == "What next?"
        )
        assert record.target.rejected and record.target.rejected not in items_of[record.user]
    for row in rows:
        with_one = [place for place, one in enumerate(row["history"]) if one["rejected"]]
        assert with_one == [row["mid_position"], len(row["history"]) - 1]
    assert counts["left out: newer than the last item with an alternative"] < 12
    assert not {record.user for record in test} & {record.user for record in train}
    assert len(list(read_rows(tmp_path / "out_rl.jsonl", 2))) == len(rows)
    (benchmark,) = load_benchmarks([str(tmp_path / "out_upi.jsonl")])
    manifest = read_manifest(benchmark.path)
    assert benchmark.task == manifest["task"] == "selection" and manifest["sha256"] == sha256(benchmark.path)
    assert manifest["counts"] == counts and manifest["edition"] == "likes.jsonl"


def test_alternatives_are_as_popular_among_others_so_that_counting_tells_nothing(tmp_path):
    dice, rows = random.Random(3), []
    for person in range(600):
        weights = [1 / (1 + item) for item in range(200)]
        rows += [{"u": person, "i": f"item {item}"} for item in dict.fromkeys(dice.choices(range(200), weights, k=9))]
    test, train, _, _ = imported(tmp_path, rows, {"user": "u", "item": "i"}, "likes.jsonl")
    count = {}
    for row in rows:
        count[row["i"]] = count.get(row["i"], 0) + 1
    # The person's own taking is in the count of what was chosen alone.
    differences = [count[one.target.chosen] - 1 - count[one.target.rejected] for one in (*test, *train)]
    right = [0.5 if difference == 0 else difference > 0 for difference in differences]
    assert len(right) > 500 and 0.42 < sum(right) / len(right) < 0.58
    assert differences.count(0) > len(differences) / 2


def test_items_that_differ_in_white_space_alone_are_one_item(tmp_path):
    hits = ("Hit One", "Hit  One", "Hit One\u00a0")
    rows = [
        {"u": f"a{person}", "i": item}
        for person in range(12)
        for item in (
            f"own {person}",
            f"more {person}",
            hits[person % 3],
            *(f"rare {person // 4}",) * (person % 4 == 0),
        )
    ]
    test, train, _, _ = imported(tmp_path, rows, {"user": "u", "item": "i"}, "likes.jsonl")
    assert len(test) + len(train) == 12
    for record in (*test, *train):
        taken = {" ".join(chosen.split()) for chosen, _ in pairs(record)}
        assert not taken & {" ".join((rejected or "").split()) for _, rejected in pairs(record)}


def test_free_text_is_an_item_like_any_other(tmp_path):
    rows = [{"who": f"w{n % 5}", "note": f"<p>note {n} says &amp; means{' much' * n}</p>"} for n in range(25)]
    test, train, rl_rows, counts = imported(tmp_path, rows, {"user": "who", "item": "note"}, "notes.jsonl")
    assert counts["cleaned: HTML in an item"] == 25
    assert len(rl_rows) == len(train) > 0 and counts["alternatives that popularity could tell"] == 5  # each is unique
    target = (test + train)[0].target
    assert "<" not in target.chosen + target.rejected and " & " in target.chosen and target.chosen != target.rejected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("a,Good 2,3,4", "a,Good 2,3,four"), "mine.csv:7: field 'stars': 'four' is no number"),
        (("a,Good 2,3,4", "a,Good 2,3,nan"), "mine.csv:7: field 'stars': 'nan' is no number"),
        (("a,Good 2,3,4", "a,Good 2,soon,4"), "mine.csv:7: field 'when': 'soon' is neither a number nor a date"),
        (("a,Good 2,3,4", "a,Good, 2,3,4"), "mine.csv:7: 5 fields, and the header has 4"),
        (("a,Good 2,3,4", 'a,"Good 2,3,4'), "mine.csv:7: not CSV"),
        (
            ("film,", "movie,"),
            "mine.csv:1: field 'film': no such column; .*--help.: user, movie, when, stars",
        ),
        (("a,Good 2", "a\ufffd,Good 2"), "mine.csv:7: field 'user': half a character"),
        ((RATED, ""), "mine.csv: an empty file"),
        (("user,", "\ruser,"), r"mine.csv:1: not CSV \(new-line character"),
        (("user,film", 'user,"film'), "mine.csv:1: not CSV"),
        (
            ("user,film,when,stars\na,Bad 2,6,1", "\n\nuser,film,when,stars\na,Bad 2,6,one"),
            "mine.csv:4: field 'stars'",
        ),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path, change, problem):
    with pytest.raises(RecordError, match=problem):
        imported(tmp_path, RATED.replace(*change), RATINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize(
    ("name", "problem"), [("a.csv.gz", "packed, by its ending '.gz'"), ("a.xlsx", "a spreadsheet")]
)
def test_a_table_in_another_form_is_named(tmp_path, name, problem):
    with pytest.raises(RecordError, match=rf"{name}: {problem}"):
        imported(tmp_path, "", RATINGS, name)


def test_the_header_again_is_left_out_and_half_a_user_is_named(tmp_path, caplog):
    expected = imported(tmp_path, RATED, RATINGS)
    assert imported(tmp_path, RATED + RATED.partition("\n")[0] + "\n", RATINGS) == expected
    assert "mine.csv:11: the header again: left out" in caplog.text
    with pytest.raises(RecordError, match=r"x\.jsonl:1: field 'who': half a character"):
        imported(tmp_path, [{"who": "u\ud83d", "i": "a"}], {"user": "who", "item": "i"}, "x.jsonl")


def test_other_faults_say_what_to_do(tmp_path):
    with pytest.raises(RecordError, match=r"mine.csv:2: field 'l': 'perhaps' is neither yes nor no; write one of \+1"):
        imported(tmp_path, "u,i,l\na,b,perhaps\n", {"user": "u", "item": "i", "label": "l"})
    with pytest.raises(RecordError, match="x.jsonl:2: field 'i': missing; this row has: u"):
        imported(tmp_path, [{"u": 1, "i": "a"}, {"u": 1}], {"user": "u", "item": "i"}, "x.jsonl")
    with pytest.raises(RecordError, match="x.jsonl:1: field 'i': expected text or a number, found a dict"):
        imported(tmp_path, [{"u": 1, "i": {}}], {"user": "u", "item": "i"}, "x.jsonl")
    with pytest.raises(UserError, match="no person is left .*1 left out: a person with fewer than 3 liked items"):
        imported(tmp_path, "u,i\na,b\n", {"user": "u", "item": "i"})
    with pytest.raises(UserError, match="1 left out: a person without anything to set against a liked item"):
        imported(tmp_path, "u,i\na,b\na,c\na,d\n", {"user": "u", "item": "i"})
    with pytest.raises(ValueError, match="give one of them"):
        ImportOptions(file=tmp_path, user="u", item="i", rating="a", label="b")


def test_times_of_any_form_order_alike_and_rows_without_one_are_counted(tmp_path):
    times = ["2026-05-01", "2026-05-01T12:00:00+02:00", "2026-05-01 11:00:00", "2026-05-02T00:00Z"]
    rows = [{"u": "a", "i": f"{n}", "t": t, "l": 1} for n, t in enumerate(times)]
    rows += [{"u": "a", "i": f"no {n}", "t": "2026-05-01", "l": 0} for n in range(4)]
    random.Random(1).shuffle(rows)
    rows.append({"u": "a", "i": "never", "t": None, "l": 1})
    columns = {"user": "u", "item": "i", "time": "t", "label": "l"}
    test, _, _, counts = imported(tmp_path, rows, columns, "t.jsonl")
    assert [chosen for chosen, _ in pairs(test[0])] == ["0", "1", "2", "3"]
    assert counts["left out: a row without a time"] == 1
    for row in rows[:-1]:
        row["t"] = datetime.fromisoformat(row["t"]).replace(tzinfo=None) if " " in row["t"] else datetime(2026, 5, 3)
    test, _, _, _ = imported(tmp_path, rows[:-1], columns, "t.parquet")
    assert pairs(test[0])[0][0] == "2"


def test_the_same_file_gives_the_same_bytes_and_a_number_sign_parts_nobody(tmp_path):
    rows = [row | {"user": f"bob#{row['user']}"} for row in likes(12)]
    columns = {"user": "user", "item": "item", "time": "at"}
    first = imported(tmp_path, rows, columns, "likes.jsonl")
    before = [(tmp_path / f"out_{kind}.jsonl").read_bytes() for kind in ("upi", "train", "rl")]
    random.Random(0).shuffle(rows)
    imported(tmp_path, rows, columns, "likes.jsonl")
    assert [(tmp_path / f"out_{kind}.jsonl").read_bytes() for kind in ("upi", "train", "rl")] == before
    assert len({record.person for record in (*first[0], *first[1])}) == 12
    assert not list(tmp_path.glob(".out*"))


def test_ids_with_a_number_sign_and_with_its_escape_are_two_persons(tmp_path):
    ids = ("a#b", "a%23b", "a%2523b", "a%252523b", "%#", "a%b", "50%", "x%20y", "a%25b", "a%2523")
    rows = [{"u": user, "i": f"{place} {user}"} for user in ids for place in range(4)]
    test, train, _, _ = imported(tmp_path, rows, {"user": "u", "item": "i"}, "likes.jsonl")
    id_of = {record.history[0].chosen.split()[1]: record.user for record in (*test, *train)}
    assert set(id_of) == set(ids) and len(set(id_of.values())) == len(ids)
    assert not any("#" in user for user in id_of.values()) and id_of["a#b"] == "a%23b"
    assert all(id_of[user] == user for user in ("a%b", "50%", "x%20y", "a%25b")), "others keep their form"


def test_an_earlier_import_stands_until_all_of_a_new_one_is_written(tmp_path):
    imported(tmp_path, likes(), {"user": "user", "item": "item"}, "mine.jsonl")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 5
    for table, columns in (
        (RATED, RATINGS | {"item": "movie"}),
        (RATED.replace("3,4", "3,four"), RATINGS),
        ("u,i\na,b\n", {"user": "u", "item": "i"}),
    ):
        with pytest.raises(UserError):
            imported(tmp_path, table, columns, "other.csv")
        (tmp_path / "other.csv").unlink()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(RecordError, match="nowhere.csv: no such file"):
        import_table(Import(tmp_path / "nowhere.csv", **RATINGS), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    popularity = tmp_path / "out_upi.popularity.jsonl"  # of another benchmark, which was built under this name
    popularity.write_text('{"userid": "a", "chosen": 1, "rejected": 1}\n')
    imported(tmp_path, RATED, RATINGS)
    (tmp_path / "mine.csv").rename(tmp_path / "mine.jsonl")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in before)
    assert read_manifest(tmp_path / "out_upi.jsonl")["sha256"] == sha256(tmp_path / "out_upi.jsonl")


def test_a_run_clears_what_a_killed_one_of_the_same_name_left(tmp_path):
    (tmp_path / "likes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in likes()))
    words = [str(tmp_path / "likes.jsonl"), "--user", "user", "--item", "item", "--out", str(tmp_path / "out")]
    code = (
        "import os, signal\n"
        "from alignxplore.command import run_commands\n"
        "from alignxplore.datasets import importing, __main__ as command\n"
        "importing.take_places = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run_commands(command.COMMANDS, None, ['import', *{words!r}])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    (leftover,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert ran.returncode == -signal.SIGKILL and (leftover / "new").is_dir()
    owner = re.search(rf"\.{re.escape(socket.gethostname())}\.(\d+)\.", leftover.name)[1]
    live = leftover.with_name(leftover.name.replace(f".{owner}.", f".{os.getppid()}."))
    other = leftover.with_name(leftover.name.replace(".out.", ".other."))
    live.mkdir(), other.mkdir()
    imported(tmp_path, likes(), {"user": "user", "item": "item"}, "likes.jsonl")
    assert not leftover.exists() and live.exists() and other.exists()
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("name", ["user", "item", "time", "rating", "label", "query"])
def test_an_empty_name_of_a_column_is_no_column_left_out(tmp_path, name):
    with pytest.raises(ValueError, match=f"--{name} is empty"):
        ImportOptions(**{"file": tmp_path, "user": "u", "item": "i"} | {name: ""})


def test_what_the_command_says(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(RATED)
    report = import_own(ImportOptions(file=path, user="user", item="film", rating="stars", out=tmp_path / "x"))
    assert "9  rows read" in report and "1  test persons" in report and f"{tmp_path}/x_upi.jsonl" in report


def test_it_says_what_the_table_serves_and_what_sft_rows_need(tmp_path):
    (tmp_path / "mine.csv").write_text(RATED)
    columns = {"file": tmp_path / "mine.csv", "user": "user", "item": "film", "out": tmp_path / "x"}
    report = import_own(ImportOptions(**columns, rating="stars"))
    least, targets = LEAST_CHOICES, Thresholds().min_targets
    assert (
        f"SFT rows: training persons with at least {least} liked items, {targets} of them with an alternative"
        in report
    )
    assert f"sft/synthesize.py --data {tmp_path}/x_train.jsonl --check" in report
    write_jsonl(tmp_path / "likes.jsonl", likes())
    columns |= {"file": tmp_path / "likes.jsonl", "item": "item"}
    report = import_own(ImportOptions(**columns))
    assert "Likes alone serve evaluation and RL, and give no SFT rows" in report and "--rating or --label" in report


@pytest.mark.parametrize("name", ["my_amazon_2024", "movielens", "mind~2", "world_films"])
def test_a_table_of_ones_own_is_never_taken_for_a_published_data_set(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_text(RATED)
    columns = {"file": tmp_path / f"{name}.csv", "user": "user", "item": "film", "rating": "stars"}
    for out in (None, tmp_path / name):
        with pytest.raises(ValueError, match=rf"--out .*{name}: .*taken for the published data set .*another --out"):
            import_own(ImportOptions(**columns, out=out))
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.csv"]
    import_own(ImportOptions(**columns, out=tmp_path / "mine"))
    (benchmark,) = load_benchmarks([str(tmp_path / "mine_upi.jsonl")])
    assert benchmark.task == "selection" and benchmark.records[0].target.query is None


def test_a_table_is_never_written_over(tmp_path):
    rows, table = [{"user": "a", "film": "x"}], tmp_path / "out_rl.jsonl"
    write_jsonl(table, rows)
    with pytest.raises(RecordError, match="the table and OUT_rl.jsonl are the same file"):
        import_own(ImportOptions(file=table, user="user", item="film", out=tmp_path / "out"))
    assert [row for _, row in read_jsonl(tmp_path / "out_rl.jsonl")] == rows


def import_times(tmp_path, times) -> None:
    # The other person took other items.
    lines = [f"{user},item {user} {place},{time}" for user in "ab" for place, time in enumerate(times)]
    imported(tmp_path, "\n".join(["u,i,t", *lines]), {"user": "u", "item": "i", "time": "t"}, "t.csv")


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        (
            ["2024-01-01", "1704153600000", "2024-01-03"],
            r"t.csv:3: field 't'.*milliseconds since 1970, and line 2 has a date",
        ),
        (
            ["2024-01-01", "2024-01-02", "20240104"],
            "t.csv:4.*a date in eight digits, and line 2 has a date, '2024-01-01'",
        ),
        (["1704153600", "1704153601", "1704153600000"], "t.csv:4.*milliseconds since 1970, and line 2 has seconds"),
        (
            ["20240104", "45293", "20240105"],
            "t.csv:3.*'45293' is a number below 100,000, and line 2 has a date in eight",
        ),
        (["1704153600", "45293.5", "1704153601"], "t.csv:3.*below 100,000, and line 2 has seconds since 1970"),
        (["2023", "2024-01-01", "2024-01-02"], "t.csv:3.*a date, and line 2 has a number below"),
    ],
)
def test_times_written_in_two_ways_are_refused(tmp_path, times, problem):
    with pytest.raises(RecordError, match=problem):
        import_times(tmp_path, times)
    assert not list(tmp_path.glob("*_upi.jsonl"))


@pytest.mark.parametrize(
    "times",
    [
        ["1", "20", "99999", "45293"],
        ["20240104", "20240105", "19991231"],
        ["1704153600", "1404153600.5", "999999999"],
        ["0", "45293", "700000", "20240104", "99999999"],  # seconds since the first choice
    ],
)
def test_times_in_one_unit_are_taken(tmp_path, times):
    import_times(tmp_path, times)
