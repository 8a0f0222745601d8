"""Where updates begin: the rows that a run wrote, and the records that they are of, in the run's data files.

A row knows its record by its id, a hash of the whole record. So it is found wherever it stands by now, and also where
its history has grown since. Of a row that was edited in another way nobody knows what its summary was written from.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from alignxplore import datasets
from alignxplore.benchmark_files import read_users
from alignxplore.errors import UserError
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.updates import Updates, begin
from alignxplore.records import UserRecord, person_of, read_jsonl

MOST_GROWTH = 1000  # new interactions of a row that has grown: each is a hash of the whole row


def data_names(meta: dict | None) -> list[str]:
    """The files that the rows of a set are of, as its `meta` has them, the newest last; an older version had that
    one alone."""
    last_names = [meta["data"]] if meta and "data" in meta else []
    return (meta or {}).get("files", last_names)


def with_file(meta: dict | None, name: str) -> list[str]:
    """The files of a set that a run now writes from this one, which is the newest."""
    return [*(old for old in data_names(meta) if old != name), name]


def grown_from(record: UserRecord, ids: Iterable[str]) -> Iterator[UserRecord]:
    """The records of these ids whose history is a beginning of this one's, with the same target or with one that has
    become a part of the history."""
    wanted_ids, length = set(ids), len(record.history)
    for end in range(length, max(0, length - MOST_GROWTH - 1), -1):
        for target in (record.target, *record.history[end : end + 1]):
            if not wanted_ids:
                return
            old_record = replace(record, history=record.history[:end], target=target)
            if old_record.id in wanted_ids:
                wanted_ids.remove(old_record.id)
                yield old_record


class Origins:
    """The records that some rows of a set are of.

    Attributes:
        lost: user → ids of the records that no file has led to (yet).
    """

    def __init__(self, target: SummarySet, meta: dict | None, rows: Iterable[dict]):
        self.target, self.meta = target, meta
        self.files = [target.meta_path.parent / name for name in reversed(data_names(meta))]
        self.lost: dict[str, set[str]] = {}
        for row in rows:
            self.lost.setdefault(row["user"], set()).add(row["record"])

    def look_up(self) -> Iterator[tuple[str, UserRecord, list[UserRecord]]]:
        """(name of the file, a person's record as it stands there, those of the rows that it is or has grown from)."""
        dataset = datasets.DATASETS.get(self.target.benchmark.partition("~")[0])
        query, is_wanted = dataset.default_query if dataset else None, self.lost.__contains__
        for path in self.files if self.lost else ():
            if path.is_file():
                for record in read_users(path, default_query=query, is_wanted=is_wanted):
                    ids = self.lost[record.user]
                    old_records = list(grown_from(record, ids))
                    ids.difference_update(old.id for old in old_records)
                    yield path.name, record, old_records

    def lost_users(self) -> list[str]:
        """Those of whom a row is left whose record was not found."""
        return [user for user, ids in self.lost.items() if ids]

    def check_files(self) -> None:
        """Raise a UserError where a file that may have the records that are lost is not there."""
        missing_files = [path for path in self.files if not path.is_file()]
        if missing_files or not self.files:
            place = f"it was {missing_files[0]}" if missing_files else "an older version wrote it"
            name = self.target.benchmark
            raise UserError(f"{self.target.meta_path} does not lead to the file of {name} ({place}); put it there")


def check_windows(updates: Updates, users: Iterable[str]) -> None:
    """Raise a UserError where one of these is a person whom the set knows by rows of theirs alone (`person#row`):
    nobody could say which of their summaries goes on."""
    rows_of: dict[str, set[str]] = {}
    for user in [*(row["user"] for row in updates.target.rows()), *(stream.user for stream in updates.streams())]:
        rows_of.setdefault(person_of(user), set()).add(user)
    for user in sorted(users):
        windows = rows_of.get(user, {user})
        if user not in windows:
            raise UserError(
                f"{updates.target.title}: '{user}' has {len(windows)} rows here, each with a summary of its own "
                f"({', '.join(sorted(windows))}): say as `userid` which of them goes on, in a line each"
            )


def begin_all(updates: Updates, is_wanted: Callable[[str], bool]) -> None:
    """Begin the streams that the run itself wrote of these persons, who have none yet.

    Raises:
        UserError: a file that the run was about is not where it was, or has another row of a person now.
    """
    target, meta = updates.target, updates.target.meta()
    if meta is None:
        return
    rows = {row["record"]: row for row in target.rows() if is_wanted(row["user"])}
    origins = Origins(target, meta, rows.values())
    for source, _, old_records in origins.look_up():
        for record in old_records:
            if updates.stream(record.user) is None:
                begin(updates, record, meta, rows[record.id], source)
    if lost_users := [user for user in origins.lost_users() if updates.stream(user) is None]:
        origins.check_files()
        others = f" (and {len(lost_users) - 1} others)" if len(lost_users) > 1 else ""
        raise UserError(
            f"{target.title}: the summary of {lost_users[0]}{others} was written from a row that {origins.files[0]} "
            "no longer has, so it cannot go on. Put the row back as it was, and give what is new in another file; or "
            "--forget the person, who then begins anew"
        )


def own_rows(target: SummarySet, is_wanted: Callable[[str], bool]) -> list[dict]:
    """All rows of these persons in the set's own journal, whatever run of that name wrote them."""
    path = target.journal_path
    return [row for _, row in read_jsonl(path) if is_wanted(row["user"])] if path.exists() else []
