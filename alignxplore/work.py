"""Run many units of asynchronous work at once, each journalled when it is done. Synthesis and eval run through here.
Larger pieces, such as all that one model is asked, can run side by side, too (`side_by_side`).

Units are taken lazily, so memory is flat in their number. Progress and the time left are shown throughout; when too
many units fail the run stops and says why; run the same command again and only what is missing is done.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import TypeVar

from tqdm import tqdm

from alignxplore.errors import UserError
from alignxplore.journal import FAILED, Journal

log = logging.getLogger(__name__)
T = TypeVar("T")
_MIN_UNITS = 50  # units before a share of failures means anything; once all are done it is known, however few they are
_REMEDY = "what succeeded is kept: mend the cause and run the same command again"


class TooManyErrors(UserError):
    """More units failed than `max_error_rate` allows. What succeeded is kept."""


async def run_units(
    units: Iterable[tuple[str, T]],
    work: Callable[[T], Awaitable[dict]],
    journal: Journal,
    *,
    label: str,
    total: int | None = None,
    concurrency: int = 256,
    max_error_rate: float = 0.05,
) -> None:
    """Finish every unit that is not in the journal.

    Args:
        units: (content hash id, unit) pairs; ids that the journal holds are skipped.
        work: does one unit and returns its row; a `status` of `journal.FAILED` marks one to be asked again by the next
            run.
        total: number of units, for the time left.
        concurrency: units in flight at most.
        max_error_rate: share of all units, those of earlier runs included, that may fail: more of them stop the run,
            or fail it at its end.

    Raises:
        TooManyErrors: see above.
        Exception: the first that `work` raised, as it was raised there.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency {concurrency}: at least one unit must be in flight")
    show_seconds = 0.5 if sys.stderr.isatty() else 15
    bar = tqdm(total=total, desc=label, unit="", dynamic_ncols=True, mininterval=show_seconds, smoothing=0.05)
    unit_count = failure_count = 0
    last_error = ""

    def missing() -> Iterator[tuple[str, T]]:
        nonlocal unit_count
        start, unshown_seconds = monotonic(), 0.0
        for unit_id, unit in units:
            if unit_id not in journal:
                yield unit_id, unit
            else:
                unit_count += 1
                unshown_seconds += (seconds := monotonic() - start)
                _pass_over(bar, seconds)
                if unshown_seconds > show_seconds:
                    bar.refresh()
                    unshown_seconds = 0.0
            start = monotonic()

    pending = missing()

    def too_many() -> bool:
        return failure_count > max_error_rate * unit_count

    def failure_text() -> str:
        return f"{label}: {failure_count} of {unit_count} failed (last: {last_error})"

    async def worker() -> None:
        nonlocal unit_count, failure_count, last_error
        for unit_id, unit in pending:  # the workers share one iterator: each unit is taken once
            row = journal.append(unit_id, await work(unit))
            unit_count += 1
            if row.get("status") in FAILED:
                failure_count, last_error = failure_count + 1, str(row.get("error"))
                if unit_count >= _MIN_UNITS and too_many():
                    raise TooManyErrors(f"{failure_text()}: {_REMEDY}")
            bar.update()

    try:
        with _first_error():
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency if total is None else min(concurrency, max(1, total))):
                    group.create_task(worker())
    finally:
        bar.close()
    if too_many():
        raise TooManyErrors(f"{failure_text()}: {_REMEDY}")
    if failure_count:
        log.warning("%s: they count as missing; the same command asks again", failure_text())


def _pass_over(bar: tqdm, seconds: float) -> None:
    """Count one more unit that an earlier run has done, apart from the speed of this run, by which the time left is
    told: neither the unit nor the seconds in which it was read are part of it."""
    bar.n += 1
    if not bar.disable:
        bar.initial += 1
        bar.last_print_n += 1
        bar.start_t += seconds
        bar.last_print_t += seconds


async def side_by_side(work: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """What each piece of work returns, in order; they begin in order, and at most `at_once` of them run at a time.

    Raises:
        Exception: the first that one of them raised; the others are cancelled.
    """
    gate = asyncio.Semaphore(at_once)

    async def through(piece: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await piece()

    with _first_error():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(through(piece)) for piece in work]
    return [task.result() for task in tasks]


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """The first error of a group of tasks, as it was raised there."""
    try:
        yield
    except BaseExceptionGroup as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
