"""Held-out rows by person: all rows of a user are on one side. Used by `tokenised_set.py`."""

from dataclasses import dataclass

from alignxplore.records import content_hash, hash_seed, person_of


@dataclass(frozen=True)
class Side:
    """The rows to train on, or those held out: a hashed share of persons."""

    share: float
    held_out: bool

    def holds(self, row: dict) -> bool:
        """Is a row on this side? A row that names no user is split by its prompt."""
        user = row.get("uid")
        person = content_hash(row["prompt"]) if user is None else person_of(str(user))
        return (hash_seed("held out", person) < self.share * 2**31) == self.held_out
