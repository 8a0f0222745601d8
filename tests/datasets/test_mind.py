"""The MIND builder: history then impressions by time, what is set against a click, the properties of its rows."""

import random
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.datasets.building import Popularity
from alignxplore.datasets.mind import seconds
from alignxplore.records import RecordError

NEWS = [f"N{number}" for number in range(1, 31)]


def write(folder, rows, edition="", news=NEWS):
    """news.tsv and behaviors.tsv; rows are (user, "11/11/2019 9:05:58 AM", history, impressions)."""
    folder = folder / edition
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{n}\tsports\tgolf\tTitle {n}\t{'Abstract' * (n != 'N1')}\thttp\t[]\t[]\n" for n in news)
    (folder / "news.tsv").write_text("".join(lines))
    (folder / "behaviors.tsv").write_text(
        "".join(f"{i}\t{u}\t{t}\t{h}\t{s}\n" for i, (u, t, h, s) in enumerate(rows, 1))
    )
    return folder


def name(text):
    return text.split("\n")[0].removeprefix("Title: Title ")


def titles(record):
    return [name(pair.chosen) for pair in (*record.history, record.target)]


def test_history_first_then_impressions_by_time(run, tmp_path):
    rows = [
        ("u", "11/12/2019 1:00:00 AM", "N5 N3", "N8-0 N9-1"),
        ("u", "11/11/2019 11:00:00 PM", "N5 N3", "N7-1 N6-0 N10-1 N11-0"),
    ]
    (record,) = [x.record for x in run("mind", write(tmp_path, rows), min_interactions=2)[0]]
    assert titles(record) == ["N5", "N3", "N7", "N10", "N9"]
    assert record.target.rejected == "Title: Title N8\nAbstract: Abstract"
    assert {name(pair.rejected) for pair in record.history[2:]} == {"N6", "N11"}


def test_editions_are_taken_together_and_the_longest_history_counts(run, tmp_path):
    write(tmp_path, [("u", "11/11/2019 1:00:00 AM", "N5", "N7-1 N6-0")], "MINDsmall_train")
    write(tmp_path, [("u", "11/15/2019 1:00:00 AM", "N5 N7 N2", "N9-1 N12-0")], "MINDsmall_dev")
    (record,) = [x.record for x in run("mind", tmp_path, min_interactions=2)[0]]
    assert titles(record) == ["N5", "N7", "N2", "N9"]  # the click on N7 stands in the later history already


def shuffled(path, seed):
    lines = path.read_text().splitlines(keepends=True)
    random.Random(seed).shuffle(lines)
    path.write_text("".join(lines))


@pytest.mark.parametrize("options", [{}, {"protocol": "matched"}, {"protocol": "matched_both"}, {"whole": True}])
def test_the_order_of_lines_changes_no_draw(run, tmp_path, options):
    dice = random.Random(5)
    rows = [
        (
            f"u{number % 12}",
            f"11/{1 + number % 9}/2019 1:00:00 AM",
            " ".join(dice.sample(NEWS, 6)),  # of one user several that are equally long
            " ".join(f"{article}-{int(place < 2)}" for place, article in enumerate(dice.sample(NEWS, 9))),
        )
        for number in range(40)
    ]
    folder = write(tmp_path, rows)
    first, _ = run("mind", folder, min_interactions=3, **options)
    assert len(first) > 5
    for seed in range(3):
        shuffled(folder / "news.tsv", seed), shuffled(folder / "behaviors.tsv", seed)
        assert run("mind", folder, min_interactions=3, **options)[0] == first


def test_one_edition_at_a_time(run, tmp_path):
    for edition in ("MINDsmall_train", "MINDsmall_dev", "MINDlarge_train"):
        write(tmp_path, [("u", "11/11/2019 1:00:00 AM", "N5 N3", "N7-1 N6-0")], edition)
    with pytest.raises(ValueError, match=r"several editions \(MINDlarge, MINDsmall\); give a folder with one"):
        run("mind", tmp_path)


def test_articles_that_are_not_listed_and_empty_histories_are_counted(run, tmp_path):
    rows = [
        ("u", "11/11/2019 1:00:00 AM", "N5 N999 N4", "N7-1 N6-0 N888-1"),
        ("v", "11/11/2019 1:00:00 AM", "", "N7-1 N777-0"),
        ("w", "11/11/2019 1:00:00 AM", "N1 N2", "N3 N4"),
    ]  # w: a test-set row without labels
    examples, job = run("mind", write(tmp_path, rows), min_interactions=2)
    assert {x.record.user for x in examples} == {"u", "w"}
    assert job.counts["dropped: a clicked article is not listed"] == 2
    assert job.counts["impressions with an empty history"] == 1
    assert job.counts["users dropped: fewer than 2 clicks on listed articles"] == 1
    (w,) = [x.record for x in examples if x.record.user == "w"]
    assert w.history[0].chosen == "Title: Title N1"  # it has no abstract


def test_clicks_count_towards_the_minimum_when_something_is_set_against_them(run, tmp_path):
    rows = [
        ("u", "11/11/2019 1:00:00 AM", "N5 N4 N5", "N7-1 N6-0"),
        ("v", "11/11/2019 1:00:00 AM", "N5 N4 N3", "N7-1"),
        ("w", "11/11/2019 1:00:00 AM", "N5 N4 N3", "N7-1 N6-0"),
    ]  # u repeats a click; the last one of v had no alternative
    examples, job = run("mind", write(tmp_path, rows), min_interactions=4)
    assert [x.record.user for x in examples] == ["w"] and job.counts[
        "users dropped: fewer than 4 interactions with an alternative"
    ] == 2
    assert not any("clicks on listed articles" in reason for reason in job.counts)


def test_popularity_before_a_click_counts_what_an_earlier_impression_tells_of(run, tmp_path):
    rows = [
        ("u", "11/12/2019 1:00:00 AM", "N5", "N8-0 N9-1"),
        ("v", "11/11/2019 1:00:00 AM", "N9 N8", ""),  # clicked at some time before
        ("w", "11/13/2019 1:00:00 AM", "", "N8-1 N1-0"),
        ("x", "11/13/2019 1:00:00 AM", "N8 N2", ""),
    ]
    popularity_of = {x.record.user: x.popularity for x in run("mind", write(tmp_path, rows), min_interactions=2)[0]}
    assert popularity_of["u"] == Popularity(1, 3, 1, 1)
    assert popularity_of["x"].chosen_before is None  # when the history was clicked is not told


@pytest.mark.parametrize("line", ["1\tu\t11/11/2019 1:00:00 AM\tN1", "1\tu\t2019-11-11\tN1\tN2-1"])
def test_a_damaged_row_names_file_and_line(run, tmp_path, line):
    folder = write(tmp_path, [("u", "11/11/2019 1:00:00 AM", "N5", "N7-1 N6-0")])
    with (folder / "behaviors.tsv").open("a") as out:
        out.write(line + "\n")
    with pytest.raises(RecordError, match=r"behaviors\.tsv:2: expected 5 fields"):
        run("mind", folder)


articles = st.lists(st.sampled_from([*NEWS, "N999"]), max_size=8)
impressions = st.lists(st.tuples(st.sampled_from(NEWS), st.sampled_from("01")), max_size=8)
behaviors = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 12), articles, impressions), max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(behaviors=behaviors, protocol=st.sampled_from(["published", "matched", "matched_both"]), seed=st.integers(0, 3))
def test_properties(run, check_rows, check_splits, tmp_path, behaviors, protocol, seed):
    rows = [
        (user, f"11/11/2019 {hour}:00:00 AM", " ".join(history), " ".join(f"{n}-{label}" for n, label in offers))
        for user, hour, history, offers in behaviors
    ]
    options = {"protocol": protocol, "seed": seed, "min_interactions": 2}
    examples, _ = run("mind", write(tmp_path, rows), **options)
    check_rows(examples)
    for record, _ in examples:
        numbered = [(row[1] % 12, str(number), row) for number, row in enumerate(behaviors, 1)]
        own_rows = [row for _, _, row in sorted(numbered) if row[0] == record.user]
        histories = [[article for article in row[2] if article in NEWS] for row in own_rows]
        longest = max(histories, key=len)
        clicked = {article for row in own_rows for article, label in row[3] if label == "1"}
        # A click of the history has no later time than one of an impression, and impressions come by the hour.
        hours = dict.fromkeys(longest, 0) | {
            article: min(row[1] % 12 + 1 for row in own_rows if (article, "1") in row[3])
            for article in clicked - set(longest)
        }
        order = titles(record)
        times = [hours[article] for article in order]
        assert times == sorted(times) and len(set(order)) == len(order)
        own_articles = clicked.union(*histories)
        for pair in (*record.history, record.target):
            assert name(pair.rejected) not in own_articles
        if protocol == "published":
            chosen, rejected = name(record.target.chosen), name(record.target.rejected)
            assert chosen in longest or any((chosen, "1") in row[3] and (rejected, "0") in row[3] for row in own_rows)
    check_splits("mind", tmp_path, **options)


@pytest.mark.parametrize("when", ["11/9/2019 12:00:00 AM", "1/31/2019 12:59:59 PM", "11/11/2019 9:05:58 pm"])
def test_times_are_read_as_the_library_reads_them(when):
    expected = datetime.strptime(f"{when} +0000", "%m/%d/%Y %I:%M:%S %p %z").timestamp()
    assert seconds(when) == expected


@pytest.mark.parametrize(
    "when", ["11/9/2019 13:00:00 PM", "11/9/2019 0:00:00 AM", "2019-11-09 1:00:00 AM", "11/9/2019 1:60:00 AM", ""]
)
def test_what_is_no_time_is_named(run, tmp_path, when):
    write(tmp_path, [("u", when, "N5 N3", "N8-0 N9-1")])
    with pytest.raises(RecordError, match=r"behaviors\.tsv:1: expected 5 fields: impression, user, time like"):
        run("mind", tmp_path)
