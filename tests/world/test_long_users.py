"""Users with long histories: what cannot be drawn is refused."""

import pytest

from alignxplore.world.long_users import LongOptions, long_users


@pytest.mark.parametrize(("wrong", "problem"), [({"choices": 1}, "at least 2"), ({"users": 0}, "at least 1")])
def test_numbers_that_make_no_user_are_refused(wrong, problem):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*{problem}"):
        LongOptions(out="users.jsonl", **wrong)


def test_two_choices_are_a_history_and_a_target():
    (row,) = long_users(1, 1, LongOptions(out="users.jsonl", choices=2).choices)
    assert len(row["history"]) == 1 and row["target"]
