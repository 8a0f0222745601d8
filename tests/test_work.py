"""Many units of work at once: failures are counted to the end and said, and a mistake in a unit is itself and not a
group of groups."""

import asyncio
import io
from functools import partial

import pytest
import tqdm

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


class Held:
    """A journal that holds what `is_held` says."""

    def __init__(self, is_held):
        self.is_held = is_held

    def __contains__(self, unit):
        return self.is_held(int(unit))

    def append(self, unit, row):
        return row


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("hole", [90_001, 1_000, 7], ids=["a whole beginning", "few asked again", "many asked again"])
async def test_the_time_left_after_a_resume_is_that_of_this_run(monkeypatch, hole, concurrency):
    """Of 91,000 units 90,000 are in the journal, but for each of so many; 500 a second are read, two a second done."""
    now, bars, rates = 1e9, [], []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            bars.append(self)

    def units():
        nonlocal now
        for i in range(91_000):
            now += 1 / 500
            yield str(i), i

    async def work(unit):
        nonlocal now
        await asyncio.sleep(0)  # as long as the others begin
        now += 1 / 2
        if unit > 90_200:
            state = bars[0].format_dict
            rates.append(state["rate"] or (state["n"] - state["initial"]) / state["elapsed"])
        return {}

    for clock in ("tqdm.std.time", "alignxplore.work.monotonic"):
        monkeypatch.setattr(clock, lambda: now, raising=False)
    monkeypatch.setattr("alignxplore.work.tqdm", Bar)
    journal = Held(lambda i: i < 90_000 and i % hole != hole - 1)
    await run_units(units(), work, journal, label="units", total=91_000, concurrency=concurrency)
    assert len(rates) > 500 and 1 < min(rates) <= max(rates) < 4
    assert bars[0].n == 91_000


@pytest.mark.parametrize("silent", ["", "1"])
async def test_what_is_passed_over_counts_in_the_progress(monkeypatch, silent):
    units, shown_text = ((str(i), i) for i in range(50)), io.StringIO()
    monkeypatch.setattr("alignxplore.work.tqdm", partial(tqdm.tqdm, file=shown_text, disable=bool(silent)))
    await run_units(units, None, Held(lambda i: True), label="units", total=50)
    assert ("50/50" in shown_text.getvalue()) != bool(silent)


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
