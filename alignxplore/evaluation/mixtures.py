"""Interactions of another benchmark, for the kind `mixed` of perturbations.py: whose they are, and how many there are.

Equal ids are one person within a data set, and nowhere else: "455" of MovieLens is nobody of PersonaMem. Both halves
of the simulated world have the same people. Benchmarks that the registry does not know are the user's own, and taken
for one data set, as cross_task.py takes them.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from alignxplore.datasets import DATASETS
from alignxplore.datasets.sidecars import read_manifest
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.evaluation.strangers import Strangers
from alignxplore.records import Interaction, UserRecord, content_hash

OWN = "own"  # what has a name or a data set that the registry does not know


def people_of(benchmark: Benchmark) -> str:
    """Whose ids the users of a benchmark have: the data set that it is named after, or built from."""
    names = benchmark.name.partition("~")[0], read_manifest(benchmark.path).get("dataset")
    name = next((name for name in names if name in DATASETS), OWN)
    return "world" if name.startswith("world_") else name


@dataclass(frozen=True)
class Drawn:
    """What one record gets: interactions of the same person, then of strangers where those are too few."""

    own: list[Interaction]
    others: list[Interaction]


class Mixture:
    """A benchmark whose interactions are put into the histories of another one."""

    def __init__(self, benchmark: Benchmark, mix: Benchmark):
        self._mix, self._strangers = mix, Strangers(mix.records)
        self._rows: dict[str, list[UserRecord]] = defaultdict(list)  # by person
        if people_of(mix) == people_of(benchmark):
            for row in mix.records:
                self._rows[row.person].append(row)

    def draw(self, record: UserRecord, count: int, seed: int) -> Drawn:
        """The newest `count` interactions of the same person, or of people drawn by hash. The rows of a person are
        taken in the order of a hash, one after the other until there are enough; then those of strangers.

        None of them holds an item that the target took, or stands in the history already.
        """
        own_rows = self._rows.get(record.person, [])
        rows = sorted(own_rows, key=lambda row: content_hash(["mixed", record.id, row.id, seed]))
        own = _newest(rows, record, count)
        own_ids = {row.id for row in own_rows}
        strangers = (row for row in self._strangers.walk(record, "mixed", seed) if row.id not in own_ids)
        return Drawn(own, _newest(strangers, record, count - len(own)))


def _newest(rows: Iterable[UserRecord], record: UserRecord, count: int) -> list[Interaction]:
    """The newest `count` interactions of rows, the first row first; one that an earlier row has, too, counts once."""
    interactions: list[Interaction] = []
    earlier, target_items = set(record.history), set(record.target.taken)
    rows = iter(rows)
    while len(interactions) < count and (row := next(rows, None)):
        news = [x for x in row.history if x not in earlier and not target_items & {x.chosen, x.rejected}]
        interactions += news[-(count - len(interactions)) :]
        earlier.update(row.history)
    return interactions


def share_put_in(benchmark: Benchmark, copies: Iterable[UserRecord]) -> float:
    """How many interactions more the copies show, as a share of what is shown."""
    shown_count = sum(len(shown_history(benchmark, record)) for record in benchmark.records)
    return sum(len(shown_history(benchmark, copy)) for copy in copies) / shown_count - 1
