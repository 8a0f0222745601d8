"""Draws of somebody else: by content alone, everybody about as often, and alike for whoever else is in the file."""

from collections import Counter

from alignxplore.evaluation.strangers import Strangers


def test_a_draw_is_of_another_person_and_knows_no_order(record):
    records = [record(f"{i}#{k}") for i in range(20) for k in range(2)]
    strangers, reverse = Strangers(records), Strangers(records[::-1])
    for one in records:
        draws = [strangers.draw(one, "key", place) for place in range(10)]
        assert all(other and other.person != one.person for other in draws) and len(set(draws)) > 3
        assert draws == [reverse.draw(one, "key", place) for place in range(10)]
        assert draws != [strangers.draw(one, "other key", place) for place in range(10)]


def test_nobody_is_drawn_where_there_is_one_person(record):
    one = record("a#1")
    assert Strangers([one, record("a#2")]).draw(one, 0) is None and Strangers([]).draw(one, 0) is None


def test_everybody_is_drawn_about_as_often(record):
    records = [record(str(i)) for i in range(50)]
    strangers = Strangers(records)
    counts = Counter(strangers.draw(records[0], place) for place in range(5000))
    assert len(counts) == 49 and max(counts.values()) < 4 * 5000 / 49


def test_one_more_user_changes_a_draw_only_if_it_is_drawn(record):
    records, new = [record(str(i)) for i in range(50)], record("new")
    strangers, more_strangers = Strangers(records), Strangers([new, *records])
    pairs = [(strangers.draw(one, place), more_strangers.draw(one, place)) for one in records for place in range(20)]
    changes = [(old, other) for old, other in pairs if old != other]
    assert all(other == new for _, other in changes) and 0 < len(changes) < 100
