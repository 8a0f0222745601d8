"""Summaries of millions of persons, written by many processes: each has the persons of one shard.

    python eval/gen_preference.py ... --out outputs/all --shard 3/64         persons of shard 3 (from 0) of 64, by hash
    python eval/gen_preference.py ... --out outputs/all --shard file:3/64    all persons of --data, file 3 of 64

A shard is a run of its own in OUT/shards/3-of-64 (or 3-of-64-files): its lock, journals, updates and logs. So
processes share nothing, and each goes on by the same command. What reads OUT (`SummarySet`) reads the journals of all
shards together. The hash contains the benchmark's name: under the name of its data set, the persons of shard I of N
are those that `datasets build --persons I/N (I+1)/N` keeps. Files that were cut in any way are `file:I/N`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from alignxplore.errors import UserError
from alignxplore.records import hash_seed, person_of

FOLDER = "shards"
FILES = "-files"  # ends the name of the folder of a shard that is a file


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 0) of `of` equal shares of all persons; or, `is_file`, all persons of one file of `of`."""

    number: int = 0
    of: int = 1
    is_file: bool = False

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """I/N or file:I/N; nothing: all persons.

        Raises:
            ValueError: anything else.
        """
        if not text:
            return WHOLE
        parts = re.fullmatch(r"(file:)?(\d{1,9})/(\d{1,9})", text)
        shard = cls(int(parts[2]), int(parts[3]), bool(parts[1])) if parts else None
        if shard is None or shard.number >= shard.of:
            raise ValueError(f"--shard {text}: write I/N, I from 0 to N-1: 0/4, 1/4, 2/4 and 3/4 are four shards")
        return shard

    def holds(self, benchmark: str, user: str) -> bool:
        """Whether a user of a benchmark belongs to it; all rows of a person (person#row) lie in one share."""
        share = hash_seed("persons", benchmark.partition("~")[0], person_of(user)) / 2**31
        return self.is_file or self == WHOLE or self.number / self.of <= share < (self.number + 1) / self.of

    def as_in(self, out: Path) -> "Shard":
        """The shard of this number in a run of shares or of files: where no persons are read, both are named alike."""
        return replace(self, is_file=any(path.name.endswith(FILES) for path in folders(out)))

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
        ending = f"-of-{self.of}{FILES if self.is_file else ''}"
        others = [path.name for path in shard_folders if not path.name.endswith(ending)]
        if self != WHOLE and others:
            count = others[0].removesuffix(FILES).rpartition("-")[2]
            way = f"--shard {'file:' if others[0].endswith(FILES) else ''}I/{count}"
            raise UserError(f"{out} holds {others[0]}: go on with {way}, or choose another --out")
        return out if self == WHOLE else out / FOLDER / f"{self.number}{ending}"


WHOLE = Shard()


def folders(out: Path) -> list[Path]:
    """The shards' folders that there are, by number."""
    paths = [path for path in (out / FOLDER).glob("*-of-*") if path.name.partition("-")[0].isdigit()]
    return sorted(paths, key=lambda path: (int(path.name.partition("-")[0]), path.name))
