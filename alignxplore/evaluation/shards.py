"""Summaries of millions of persons, written by many processes: each has the persons of one shard, by hash.

    python eval/gen_preference.py ... --out outputs/all --shard 3/64      the persons of shard 3 (from 0) of 64

A shard is a run of its own in OUT/shards/3-of-64: its lock, journals, updates and logs. So processes share nothing,
and each goes on by the same command. What reads OUT (`SummarySet`) reads the journals of all shards together. The
persons of shard I of N are those that `datasets build --persons I/N (I+1)/N` keeps.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from alignxplore.errors import UserError
from alignxplore.records import hash_seed, person_of

FOLDER = "shards"


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 0) of `of` equal shares of all persons."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """I/N; nothing: all persons.

        Raises:
            ValueError: anything else.
        """
        if not text:
            return WHOLE
        parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        shard = cls(*map(int, parts.groups())) if parts else None
        if shard is None or shard.number >= shard.of:
            raise ValueError(f"--shard {text}: write I/N, I from 0 to N-1: 0/4, 1/4, 2/4 and 3/4 are four shards")
        return shard

    def holds(self, benchmark: str, user: str) -> bool:
        """Whether a user of a benchmark belongs to it; all rows of a person (person#row) lie in one shard."""
        share = hash_seed("persons", benchmark.partition("~")[0], person_of(user)) / 2**31
        return self == WHOLE or self.number / self.of <= share < (self.number + 1) / self.of

    def folder(self, out: Path) -> Path:
        """Where it writes.

        Raises:
            UserError: the folder holds the summaries of a run that was cut in another way.
        """
        shard_folders = folders(out)
        if self == WHOLE and shard_folders:
            raise UserError(
                f"{out} holds shards ({shard_folders[0].name}, ...): give --shard, or choose another --out"
            )
        if self != WHOLE and (out / "summaries").exists():
            raise UserError(f"{out} holds a run without shards: leave --shard out, or choose another --out")
        others = [path.name for path in shard_folders if not path.name.endswith(f"-of-{self.of}")]
        if self != WHOLE and others:
            raise UserError(f"{out} holds {others[0]}: go on with that number of shards, or choose another --out")
        return out if self == WHOLE else out / FOLDER / f"{self.number}-of-{self.of}"


WHOLE = Shard()


def folders(out: Path) -> list[Path]:
    """The shards' folders that there are, by number."""
    paths = [path for path in (out / FOLDER).glob("*-of-*") if path.name.partition("-")[0].isdigit()]
    return sorted(paths, key=lambda path: (int(path.name.partition("-")[0]), path.name))
