"""Run many units of asynchronous work at once, each journalled when it is done. Synthesis and eval run through here.

Units are taken lazily, so memory is flat in their number. Progress and the time left are shown throughout; when too many
units fail the run stops and says why; run the same command again and only what is missing is done.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from tqdm import tqdm

from alignxplore.journal import FAILED, Journal

T = TypeVar("T")
_MIN_UNITS = 50  # units before a share of failures means anything


class TooManyErrors(RuntimeError):
    """More units failed than `max_error_rate` allows. What succeeded is kept."""


async def run_units(units: Iterable[tuple[str, T]], work: Callable[[T], Awaitable[dict]], journal: Journal, *, label: str,
                    total: int | None = None, concurrency: int = 256, max_error_rate: float = 0.05) -> None:
    """Finish every unit that is not in the journal.

    Args:
        units: (content hash id, unit) pairs; ids that the journal holds are skipped.
        work: does one unit and returns its row; a `status` of `journal.FAILED` marks one to be asked again by the next run.
        total: number of units, for the time left.
        concurrency: units in flight at most.
        max_error_rate: share of units that may fail before the run stops.

    Raises:
        TooManyErrors: see above.
    """
    bar = tqdm(total=total, desc=label, unit="", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 15, smoothing=0.05)
    pending = iter(units)
    done = failed = 0

    async def worker() -> None:
        nonlocal done, failed
        for unit_id, unit in pending:  # the workers share one iterator: each unit is taken once
            if unit_id not in journal:
                row = journal.append(unit_id, await work(unit))
                done, failed = done + 1, failed + (row["status"] in FAILED)
                if done >= _MIN_UNITS and failed > max_error_rate * done:
                    raise TooManyErrors(f"{label}: {failed} of {done} failed (last: {row.get('error')}); "
                                        "what succeeded is kept: mend the cause and run the same command again")
            bar.update()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency if total is None else min(concurrency, max(1, total))):
                group.create_task(worker())
    except* TooManyErrors as errors:
        raise errors.exceptions[0] from None
    finally:
        bar.close()
