"""Many units of work at once: failures are counted to the end and said, and a mistake in a unit is itself and not a
group of groups."""

import asyncio

import pytest

from alignxplore.journal import REFUSED, Journal
from alignxplore.work import TooManyErrors, run_units, side_by_side


@pytest.fixture
def run(tmp_path):
    """`await run(n, failing)`: n units, of which those in `failing` are refused; returns how many were asked."""

    async def many(n, failing=(), **options):
        units_asked = []

        async def work(unit):
            units_asked.append(unit)
            return {"status": REFUSED, "error": f"HTTP 400: no {unit}"} if unit in failing else {}

        with Journal(tmp_path / "journal.jsonl") as journal:
            await run_units(((str(i), i) for i in range(n)), work, journal, label="units", **options)
        return len(units_asked)

    return many


@pytest.mark.parametrize(("n", "failing"), [(24, 24), (24, 2), (1, 1)])
async def test_a_few_units_count_as_well_once_all_are_done(run, n, failing):
    with pytest.raises(TooManyErrors, match=rf"units: {failing} of {n} failed \(last: HTTP 400: no .*same command"):
        await run(n, range(failing))


async def test_few_failures_are_said_and_asked_again(run, caplog):
    assert await run(24, [5]) == 24
    assert (
        "units: 1 of 24 failed (last: HTTP 400: no 5)" in caplog.text and "the same command asks again" in caplog.text
    )
    caplog.clear()
    assert await run(24, [5]) == 1  # all that is left fails; of the whole it is still little
    assert "1 of 24 failed" in caplog.text
    caplog.clear()
    assert await run(24) == 1 and not caplog.text


async def test_a_share_of_none_bears_no_failure(run):
    with pytest.raises(TooManyErrors, match="1 of 400 failed"):
        await run(400, [399], max_error_rate=0)


async def test_a_run_that_fails_is_given_up_early(run, tmp_path):
    with pytest.raises(TooManyErrors, match="of 5[0-9] failed"):
        await run(1000, range(1000), concurrency=4)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) < 100


async def test_the_first_mistake_is_raised_itself(tmp_path):
    async def work(unit):
        raise ValueError(f"a window for {unit} leaves no room")

    with (
        Journal(tmp_path / "journal.jsonl") as journal,
        pytest.raises(ValueError, match="a window for 0 leaves no room"),
    ):
        await run_units(((str(i), i) for i in range(60)), work, journal, label="units")


async def test_nothing_at_once_is_refused(run):
    with pytest.raises(ValueError, match="concurrency"):
        await run(3, concurrency=0)


@pytest.mark.parametrize("at_once", [1, 2, 5])
async def test_no_more_pieces_than_asked_for_run_side_by_side_and_all_come_back_in_order(at_once):
    running, most = set(), 0

    def piece(number):
        async def work():
            nonlocal most
            running.add(number)
            most = max(most, len(running))
            for _ in range(5 - number):  # the later ones are done first
                await asyncio.sleep(0)
            running.remove(number)
            return number

        return work

    assert await side_by_side([piece(number) for number in range(5)], at_once) == list(range(5))
    assert most == at_once


async def test_the_first_error_of_a_piece_is_raised_itself_and_ends_the_others():
    ended = []

    async def fails():
        raise ValueError("no such model")

    async def waits():
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("waits")

    with pytest.raises(ValueError, match="no such model"):
        await side_by_side([waits, fails], 2)
    assert ended == ["waits"]
