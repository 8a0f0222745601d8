"""What was forgotten of a run, as hashes. So its own command does not write it again from a file that still has it.

RUN/updates/forgotten.jsonl   a line a person, an interaction of a row, or a row whose file had changed
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignxplore.journal import Journal
from alignxplore.places import Places
from alignxplore.records import Interaction, UserRecord, content_hash, names_of, read_jsonl


def path_of(folder: Path) -> Path:
    """The file of a run, or of a shard."""
    return folder / "updates" / "forgotten.jsonl"


def person_key(name: str) -> str:
    """Of a person, or of a single row `person#row`, of whom all is forgotten."""
    return content_hash(["person", name])


def row_key(user: str) -> str:
    """Of a row of which some interactions are forgotten."""
    return content_hash(["row", user])


def interaction_key(user: str, x: Interaction) -> str:
    """Of an interaction of a row."""
    return content_hash(["interaction", user, vars(x)])


class ForgottenWriter:
    """A context that writes down what is forgotten, before it is gone; each once."""

    def __init__(self, folder: Path):
        self._journal = Journal(path_of(folder))

    def __enter__(self) -> "ForgottenWriter":
        self._journal.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._journal.__exit__(*error)

    def add(self, *keys: str) -> None:
        """Write these down."""
        for key in keys:
            if key not in self._journal:
                self._journal.append(key, {})

    def add_interactions(self, user: str, interactions: Iterable[Interaction]) -> None:
        """These of a row."""
        if keys := [interaction_key(user, x) for x in interactions]:
            self.add(row_key(user), *keys)


class Forgotten:
    """What is not to be written again."""

    def __init__(self, folder: Path):
        self._keys, path = Places(), path_of(folder)
        self.is_nothing = not path.exists()
        for _, row in () if self.is_nothing else read_jsonl(path):
            self._keys.put(row["id"], 1)

    def _has(self, key: str) -> bool:
        return self._keys.get(key) is not None

    def holds(self, record: UserRecord) -> bool:
        """Whether a record still shows something that was forgotten."""
        if self.is_nothing:
            return False
        if self._has(record.id) or any(self._has(person_key(name)) for name in names_of(record.user)):
            return True
        return self._has(row_key(record.user)) and any(
            self._has(interaction_key(record.user, x)) for x in record.history
        )
