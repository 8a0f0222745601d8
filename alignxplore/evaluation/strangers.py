"""Draws of somebody else, by content alone: for noise (perturbations.py), and for an item that can stand against what
was chosen (faithfulness.py).

Everybody stands at some points of a ring, which a hash of the record says. A draw begins at the hash of its key and
takes the first one of another person from there. So the order of a file says nothing, and one user more changes no
draw but those that fall to that user.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator
from typing import Any

from alignxplore.records import UserRecord, content_hash

POINTS, DIGITS = 8, 8  # of each record on the ring, cut from one hash: the more points, the more alike the chances


class Strangers:
    """Records of which others are drawn: one hash each at the beginning, and one a draw."""

    def __init__(self, records: Iterable[UserRecord]):
        by_id = sorted(records, key=lambda record: record.id)
        ring = [(point, place) for place, record in enumerate(by_id) for point in _points(record)]
        ring.sort()
        self._points, self._records = [point for point, _ in ring], [by_id[place] for _, place in ring]

    def draw(self, record: UserRecord, *key: Any) -> UserRecord | None:
        """Somebody else than the person of a record; None where there is nobody."""
        return next((other for other in self.walk(record, *key) if other.person != record.person), None)

    def walk(self, record: UserRecord, *key: Any) -> Iterator[UserRecord]:
        """Everybody, the same person too, each once: in the order of the ring from where a draw begins."""
        start, seen_ids = bisect(self._points, content_hash([record.id, *key], DIGITS)), set()
        for step in range(len(self._records)):
            other = self._records[(start + step) % len(self._records)]
            if other.id not in seen_ids:
                seen_ids.add(other.id)
                yield other


def _points(record: UserRecord) -> list[str]:
    digits = content_hash(["stranger", record.id], POINTS * DIGITS)
    return [digits[start : start + DIGITS] for start in range(0, len(digits), DIGITS)]
