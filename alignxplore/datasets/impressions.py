"""Whole impressions of MIND as targets: all articles that a user was shown, of which one or several were clicked.

That is what MIND itself measures (AUC, MRR, nDCG@5, nDCG@10); 28 % of its impressions have several clicks. A target's
history is what its own row tells of the time before, then the clicks of the user's earlier impressions. Used by
mind.py (`--whole`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from alignxplore.datasets.building import Example, Job, Popularity
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.datasets.recommendation import Pair
from alignxplore.datasets.takings import Others
from alignxplore.records import Interaction, Offer, UserRecord, hash_seed


class Impression(NamedTuple):
    """A row of behaviors.tsv: numbers of listed articles."""

    time: int
    key: str
    history: list[int]
    clicked: list[int]
    unclicked: list[int]


def read(rows: Iterable[str]) -> list[Impression]:
    """The impressions of a user in order of time."""
    impressions = []
    for row in rows:
        time, key, *lists = row.split("\t")
        impressions.append(Impression(int(time), key, *([int(item) for item in names.split()] for names in lists)))
    return sorted(impressions)


def targets(
    user: str, impressions: Sequence[Impression], twin: Sequence[int], job: Job
) -> Iterator[tuple[str, Impression, Sequence[Impression]]]:
    """(name of the row, target, the impressions before it) of each row of a user: the last impression with something
    clicked and something not, or of several windows as many as the job wants, drawn by a hash."""
    unique = [_without_twins(impression, twin, job) for impression in impressions]
    candidates = [place for place, impression in enumerate(unique) if impression.clicked and impression.unclicked]
    if not candidates:
        job.counts["users dropped: no impression with something clicked and something not"] += 1
    if job.windows is None:
        yield from ((user, unique[place], impressions[:place]) for place in candidates[-1:])
        return
    draws = sorted(candidates, key=lambda place: hash_seed(job.seed, "window", user, unique[place].key))[: job.windows]
    for row, place in enumerate(sorted(draws), 1):
        yield f"{user}#{row}", unique[place], impressions[:place]


def _without_twins(impression: Impression, twin: Sequence[int], job: Job) -> Impression:
    """Each text once; what was clicked stays."""
    twins: set[int] = set()

    def fresh(items: Iterable[int]) -> list[int]:
        by_twin = {twin[item]: item for item in reversed(list(items)) if twin[item] not in twins}
        twins.update(by_twin)
        return list(reversed(by_twin.values()))

    unique = impression._replace(clicked=fresh(impression.clicked), unclicked=fresh(impression.unclicked))
    job.counts["left out of an impression: the text of another one in it"] += (
        len(impression.clicked) + len(impression.unclicked) - len(twins)
    )
    return unique


def example(
    name: str,
    target: Impression,
    pairs: Sequence[Pair],
    catalogue: Catalogue,
    others: Others,
    job: Job,
) -> Iterator[Example]:
    """The row of a target; none where the history is too short.

    Args:
        pairs: the clicks before the target.
    """
    twin, query = catalogue.twin, job.dataset.default_query
    target_twins = {twin[item] for item in target.clicked}
    history_pairs = [pair for pair in pairs if twin[pair[0]] not in target_twins]
    job.counts["dropped from a history: clicked in the target, too"] += len(pairs) - len(history_pairs)
    history_pairs = history_pairs if job.windows is None else history_pairs[-job.length :]
    if len(history_pairs) + 1 < (job.least if job.windows is None else job.length + 1):
        job.counts["rows dropped: too few clicks before the impression"] += 1
        return
    job.counts["interactions kept"] += len(history_pairs) + 1
    job.counts["articles in the target impressions"] += len(target.clicked) + len(target.unclicked)
    history = tuple(Interaction(catalogue.text(a), catalogue.text(b), query) for a, b, _ in history_pairs)
    first_text, *more_texts = map(catalogue.text, target.clicked)
    offer = Offer(first_text, None, query, tuple(more_texts), tuple(map(catalogue.text, target.unclicked)))
    counts = tuple(map(others.count, (*target.clicked, *target.unclicked)))
    top_count = max(counts[len(target.clicked) :])
    yield Example(UserRecord(name, history, offer), Popularity(counts[0], top_count, offered=counts))
