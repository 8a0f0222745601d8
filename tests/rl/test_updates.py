"""Which rows of a step make which update, and how they are shared out among ranks."""

import pytest

pytest.importorskip("verl")

from alignxplore.rl.updates import share_out, slowest_rank, update_order  # noqa: E402
from benchmarks.update_balance import ROWS, film_lengths, over_the_step  # noqa: E402


def tags(real, padding):
    return [{"order": f"{i:03}"} for i in range(real)] + [{"order": "000", "is_padding": True}] * padding


def test_lost_rows_are_missed_by_every_update_alike():
    keys = [f"u_{i}" for i in range(32)]
    order = update_order(keys, tags(26, 6), 8)
    assert sorted(order) == list(range(32))
    assert [sum(i < 26 for i in order[start : start + 8]) for start in range(0, 32, 8)] == [6, 7, 6, 7]
    assert [i for i in order if i < 26] == list(range(26))
    assert update_order(keys[:26], tags(26, 0), 8) == list(range(26)), "before verl fills up"


def test_rows_of_one_place_come_in_the_order_of_their_keys_whoever_ended_first():
    keys = [f"{batch}_{user}_{n}" for batch, user, n in zip("hgfedcba", "aabbccdd", "01010101")]
    tags_of_rows = [{"order": "007"}] * 8
    arrived = [5, 2, 7, 0, 3, 6, 1, 4]
    first = [keys[i] for i in update_order(keys, tags_of_rows, 4)]
    late_keys = [keys[i] for i in arrived]
    assert [late_keys[i] for i in update_order(late_keys, tags_of_rows, 4)] == first == keys
    other_batch = [f"x{key[1:]}" for key in late_keys]
    assert [other_batch[i][1:] for i in update_order(other_batch, tags_of_rows, 4)] == [key[1:] for key in keys]


def test_fewer_rows_than_an_update_has_are_one_update():
    assert update_order([f"u_{i}" for i in range(5)], tags(5, 0), 8) == list(range(5))


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
def test_every_row_has_one_place_and_one_rank_changes_nothing(ranks):
    lengths = film_lengths(4 * ROWS // 8)
    shares = share_out(lengths, ROWS, ranks)
    assert [len(part) for share in shares for part in share] == [ROWS // ranks] * (4 * ranks)
    for u in range(4):
        assert sorted(i for share in shares for i in share[u]) == list(range(u * ROWS, (u + 1) * ROWS))
    if ranks == 1:
        assert [i for part in shares[0] for i in part] == list(range(4 * ROWS))


def test_no_rank_has_many_more_tokens_than_another_in_any_update():
    """On lengths of real histories: as published, 64 ranks and four updates of 2,048 rows."""
    lengths = film_lengths(4 * ROWS // 8)
    before, after = (slowest_rank(lengths, way) for way in (over_the_step(lengths, 64), share_out(lengths, ROWS, 64)))
    assert before > 1.1 and after < 1.01
