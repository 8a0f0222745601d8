"""Held-out rows by person: all rows of a user are on one side. Used by `tokenised_set.py`."""

from dataclasses import dataclass

from alignxplore.benchmark_files import user_of
from alignxplore.records import content_hash, hash_seed, person_of

RULE = 2  # of how rows are told apart; to be raised with code that divides them otherwise


@dataclass(frozen=True)
class Side:
    """The rows to train on, or those held out: a hashed share of persons."""

    share: float
    held_out: bool

    @property
    def identity(self) -> list[float | bool | int]:
        """What decides which rows are on this side."""
        return [self.share, self.held_out, RULE]

    def nobody(self, rows: int) -> str:
        """What is wrong where all rows are on the other side."""
        if self.held_out:
            return f"--held_out {self.share:g} holds none of the persons out, of {rows:,} rows; raise it, or give more"
        return f"--held_out {self.share:g} holds all persons out, of {rows:,} rows; lower it, or give more"

    def holds(self, row: dict) -> bool:
        """Is a row on this side? A row that names no user is split by its prompt."""
        user = user_of(row)
        person = content_hash(row["prompt"]) if user is None else person_of(user)
        return (hash_seed("held out", person) < self.share * 2**31) == self.held_out
