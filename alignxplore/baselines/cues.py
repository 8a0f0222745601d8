"""Baselines that never read the history: what a score is worth is seen beside them.

Each is a pure function of a record (and at most a seed) that says how well it picks the chosen item: 1 right, 0.5 no
opinion, 0 wrong. Eval prints them in the same tables as the models; the builders' tests measure the shortcuts with
them.

    counts = read_popularity("movielens_upi.jsonl")
    score = BASELINES["popularity"](record, counts.get(record.user), 0)
"""

from collections.abc import Callable

from alignxplore.datasets.building import Popularity
from alignxplore.records import Offer, RecordError, UserRecord, hash_seed


def popularity(record: UserRecord, counts: Popularity | None, seed: int = 0) -> float | None:
    """The item that more other users took, over all time (leave-one-out: the target's own event is not counted); None
    without counts."""
    return None if counts is None else _more(counts.chosen, counts.rejected)


def popularity_before(record: UserRecord, counts: Popularity | None, seed: int = 0) -> float | None:
    """The item that more other users had taken before the target, so that nothing is known of what came after; None
    where its time is not known."""
    if counts is None or counts.chosen_before is None or counts.rejected_before is None:
        return None
    return _more(counts.chosen_before, counts.rejected_before)


def longer(record: UserRecord, counts: Popularity | None = None, seed: int = 0) -> float:
    """The item with more characters."""
    return _more(len(record.target.chosen), len(record.target.rejected or ""))


def shorter(record: UserRecord, counts: Popularity | None = None, seed: int = 0) -> float:
    """The item with fewer characters."""
    return 1 - longer(record)


def random(record: UserRecord, counts: Popularity | None = None, seed: int = 0) -> float:
    """Either item, by a hash of record and seed that has nothing to do with the order shown."""
    return float(hash_seed("random", record.id, seed) % 2)


BASELINES: dict[str, Callable[[UserRecord, Popularity | None, int], float | None]] = {
    "popularity": popularity,
    "popularity before": popularity_before,
    "longer": longer,
    "shorter": shorter,
    "random": random,
}


def candidate_scores(
    name: str, record: UserRecord, offer: Offer, counts: Popularity | None
) -> tuple[float, ...] | None:
    """The same cue for a choice among k items: a score of each candidate, higher is better; None where it says nothing
    of them.

    Raises:
        RecordError: the popularity file counts other candidates.
    """
    items = offer.candidates
    if name == "popularity":
        if counts is None or counts.offered is None:
            return None
        if len(counts.offered) != len(items):
            problem = f"{len(items)} items, and {len(counts.offered)} counts of them in the popularity file"
            raise RecordError(f"{problem}; build the benchmark again", record.source, field="target")
        return tuple(map(float, counts.offered))
    if name in ("longer", "shorter"):
        return tuple(len(item) * (1.0 if name == "longer" else -1.0) for item in items)
    if name == "random":
        return tuple(float(hash_seed("random", record.id, item)) for item in items)
    if name == "popularity before":
        return None  # candidates are counted over all time alone
    raise ValueError(f"the cue '{name}' has no score for a choice among k items; give it one in candidate_scores")


def _more(chosen: int, rejected: int) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)
