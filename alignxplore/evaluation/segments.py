"""Which kind of row a score is of: how much history was shown, how popular the chosen item is, the type of the
question, the persona. `scoring.py` writes the facts beside each score, `report/segments.py` makes the table and the
plot of them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from alignxplore.datasets.sidecars import read_popularity
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.evaluation.worth import Score

MOST_PERSONAS = 8  # a benchmark that describes more of them describes persons, which are no groups
_LENGTHS = ((5, "1 to 5 (cold start)"), (12, "6 to 12"), (25, "13 to 25"), (50, "26 to 50"))
_OTHERS = ((4, "0 to 4 (cold start)"), (19, "5 to 19"), (99, "20 to 99"), (999, "100 to 999"))


@dataclass(frozen=True)
class Facts:
    """What is known of a record before anything is asked; the fields of a score row.

    `shown` counts the interactions that a policy may read, `popularity` how many other users took the chosen item
    (None: no such counts), `persona` is there where a benchmark has a few of them.
    """

    shown: int
    popularity: int | None = None
    question_type: str | None = None
    persona: str | None = None


class Segment(NamedTuple):
    """A way to part the rows of a benchmark: its heading, the group of a score row (None: not known), and the order
    of the groups (empty: as they come)."""

    title: str
    group: Callable[[Score], str | None]
    order: tuple[str, ...] = ()


def _binned(value: int | None, bins: tuple[tuple[int, str], ...], last_name: str) -> str | None:
    return None if value is None else next((name for limit, name in bins if value <= limit), last_name)


SEGMENTS = (
    Segment(
        "interactions shown",
        lambda row: _binned(row.shown, _LENGTHS, "51 and more"),
        (*(name for _, name in _LENGTHS), "51 and more"),
    ),
    Segment(
        "others who took the chosen item",
        lambda row: _binned(row.popularity, _OTHERS, "1,000 and more"),
        (*(name for _, name in _OTHERS), "1,000 and more"),
    ),
    Segment("question type", lambda row: row.question_type),
    Segment("persona", lambda row: row.persona),
)


def facts_of(benchmark: Benchmark) -> dict[str, Facts]:
    """The facts of each record of a benchmark, by its id."""
    counts = read_popularity(benchmark.path)
    personas = {record.persona for record in benchmark.records}
    names_personas = len(personas) <= MOST_PERSONAS
    facts = {}
    for record in benchmark.records:
        popularity = counts.get(record.user)
        facts[record.id] = Facts(
            len(shown_history(benchmark, record)),
            None if popularity is None else popularity.chosen,
            record.question_type,
            record.persona if names_personas else None,
        )
    return facts


def with_facts(scores: Iterable[Score], benchmarks: Mapping[str, Benchmark]) -> list[Score]:
    """Scores with the facts of their records."""
    facts_by_benchmark = {
        name: {record: asdict(facts) for record, facts in facts_of(benchmark).items()}
        for name, benchmark in benchmarks.items()
    }
    return [replace(score, **facts_by_benchmark[score.benchmark][score.record]) for score in scores]


def parted(rows: Iterable[Score]) -> dict[Segment, dict[str, list[Score]]]:
    """The scores of one benchmark by segment and group, in order; a segment of one group alone says nothing."""
    rows, parts = list(rows), {}
    for segment in SEGMENTS:
        groups: dict[str, list[Score]] = defaultdict(list)
        for row in rows:
            if (group := segment.group(row)) is not None:
                groups[group].append(row)
        if len(groups) > 1:
            order = segment.order or sorted(groups)
            parts[segment] = {name: groups[name] for name in order if name in groups}
    return parts
