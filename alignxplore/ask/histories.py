"""Whose history is read: a person of a benchmark, a file of one's own (JSONL, CSV), or choices typed in.

Typed in, a line is one choice, oldest first: `what was chosen > what was passed over`, or the first part alone.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignxplore.benchmark_files import parse_history, parse_interaction, parse_target, parse_user_id, user_of
from alignxplore.datasets.own_tables import DELIMITERS, csv_rows, form_of, own_rows, text_of
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.history import split_stages
from alignxplore.records import Interaction, Offer, RecordError, UserRecord, content_hash, read_jsonl
from alignxplore.texts import mend

OVER = re.compile(r"\t+|(?:^|\s)>(?:\s|$)")  # between what was chosen and what was passed over
_END = re.compile(r"\r\n?|\n")
HOW = "one choice a line, oldest first: chosen > passed over"
TYPED = "what was typed"
OF_ONE = "a table is read as the history of one person; leave --person out, with only that one's rows"
LONGEST = 100_000  # characters of an item: no window holds more, and tokenizers take minutes for it


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold an interaction; the two last ones may be missing where nobody named them."""

    chosen: str = "chosen"
    rejected: str = "rejected"
    query: str = "query"

    @property
    def required(self) -> list[str]:
        named_columns = {self.rejected, self.query} - {Columns.rejected, Columns.query}
        return [self.chosen, *sorted(named_columns)]


@dataclass(frozen=True)
class Person:
    """Someone with a past.

    Attributes:
        name: for people to read.
        history: what a policy reads, oldest first.
        key: draws and seeds come from it.
        target: what the person chose later, where it is known.
    """

    name: str
    history: tuple[Interaction, ...]
    key: str
    target: Interaction | None = None

    def without(self, places: Iterable[int]) -> "Person":
        """The same person as if some interactions (places from 0) had never been. At least one is left.

        Raises:
            RecordError: nothing would be left.
        """
        dropped_places = set(places)
        interactions = tuple(
            interaction for place, interaction in enumerate(self.history) if place not in dropped_places
        )
        if not interactions:
            raise RecordError("nothing of the history is left; keep one interaction at least")
        return replace(self, history=interactions)

    def completed(self, complete: Callable[[str], str], request: str | None) -> "Person":
        """The same person with each item's text as `complete` has it, and `request` where none is known. Draws stay
        the same where nothing of the history changes."""

        def whole(interaction: Interaction) -> Interaction:
            rejected = interaction.rejected and complete(interaction.rejected)
            completed = replace(
                interaction, chosen=complete(interaction.chosen), rejected=rejected, query=interaction.query or request
            )
            if not isinstance(completed, Offer):
                return completed
            also_chosen, passed_over = map(complete, completed.also_chosen), map(complete, completed.passed_over)
            return replace(completed, also_chosen=tuple(also_chosen), passed_over=tuple(passed_over))

        history, target = tuple(map(whole, self.history)), self.target and whole(self.target)
        return replace(self, target=target) if history == self.history else own(self.name, history, target)

    def slices(self, stages: int) -> Sequence[tuple[Interaction, ...]]:
        """What each stage reads."""
        return split_stages(self.history, stages)


def own(name: str, history: Sequence[Interaction], target: Interaction | None = None) -> Person:
    """A person whose history is not of a benchmark: all of it is read."""
    for number, interaction in enumerate(history, 1):
        if (length := max(len(interaction.chosen), len(interaction.rejected or ""))) > LONGEST:
            raise RecordError(f"choice {number} has an item of {length:,} characters; {LONGEST:,} are the most")
    interactions = tuple(
        replace(interaction, rejected=None) if interaction.same else interaction for interaction in history
    )
    return Person(
        name,
        interactions,
        content_hash([[interaction.chosen, interaction.rejected, interaction.query] for interaction in interactions]),
        target,
    )


def of_benchmark(benchmark: Benchmark, record: UserRecord) -> Person:
    """A person of a benchmark, with what the evaluation shows of the history: the summary is the same as there."""
    return Person(record.user, shown_history(benchmark, record), record.id, record.target)


def typed(text: str, columns: Columns = Columns(), user: str | None = None) -> Person:
    """What someone typed, pasted or piped: JSONL, CSV with a header, or a choice a line.

    Args:
        columns: names of a CSV's columns. Where they are named, it is CSV or JSONL.
        user: which person of a JSONL of persons; default: the first.

    Raises:
        RecordError: nothing there, a line that cannot be read, no such column or person.
    """
    text = mend(text)[0].removeprefix("\ufeff")
    lines = _END.split(text)  # a title may hold what else `splitlines` takes for an end
    first = next((line for line in lines if line.strip()), "")
    if text.lstrip().startswith("[") and (rows := _array(text)) is not None:
        return _of_rows(enumerate(rows, 1), TYPED, user)
    if first.lstrip().startswith("{"):
        return _of_rows(enumerate(_objects(lines), 1), TYPED, user)
    if user is not None:
        raise RecordError(OF_ONE, TYPED)
    if columns != Columns():
        return own("you", _typed_table(text, columns))
    head = [name.strip(' \t"').lower() for name in first.split(max(DELIMITERS, key=first.count))]
    if "chosen" in head and (head[0] == "chosen" or "rejected" in head or len(head) <= 3):
        return own("you", _typed_table(text.replace(first, first.lower(), 1), columns))
    return own("you", _lines(lines))


def _typed_table(text: str, columns: Columns) -> list[Interaction]:
    rows = csv_rows(io.StringIO(text, newline=""), columns.required, Path(TYPED))
    return _of_table(rows, columns, TYPED)


def _lines(lines: Iterable[str]) -> list[Interaction]:
    """A choice a line."""
    interactions = [_choice(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    if not interactions:
        raise RecordError(f"no choice yet; type {HOW}")
    return interactions


def _array(text: str) -> list[dict] | None:
    """The objects of a JSON array, of one or more lines; None where the bracket begins an item's text."""
    try:
        rows = json.loads(text)
    except RecursionError:
        raise RecordError("a JSON array within too many others; give objects {chosen, rejected}", TYPED) from None
    except ValueError as error:
        if text.lstrip()[1:].lstrip().startswith("{"):
            raise RecordError(f"not JSON ({error}); one object a line, or an array of them", TYPED) from None
        return None
    if rows and all(isinstance(row, dict) for row in rows):
        return rows
    raise RecordError("a JSON array of something else; give objects {chosen, rejected}", TYPED)


def _choice(line: str, number: int) -> Interaction:
    chosen, *over = (part.strip() for part in OVER.split(line.strip(), maxsplit=1))
    if not chosen or over == [""]:
        raise RecordError(f"one side of the '>' is empty; type {HOW}", TYPED, number)
    return Interaction(chosen, over[0] if over else None)


def _objects(lines: Iterable[str]) -> Iterable[dict]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"not JSON ({error}); one object a line is expected", TYPED, number) from None
        if not isinstance(row, dict):
            raise RecordError("expected an object {chosen, rejected}", TYPED, number)
        yield row


def read_history(path: Path, columns: Columns = Columns(), user: str | None = None) -> Person:
    """The history in a file. A row is an interaction, or (JSONL) a person of the benchmark files.

    Args:
        columns: names of a CSV's or Parquet file's columns.
        user: which person of a JSONL file of persons; default: the first.

    Raises:
        RecordError: an empty file, a row that breaks the contract, no such person, or a user of a table.
    """
    if form_of(path) == "jsonl":
        return _of_rows(read_jsonl(path), str(path), user)
    if user is not None:
        raise RecordError(OF_ONE, path)
    optional = [name for name in (columns.rejected, columns.query) if name not in columns.required]
    rows = own_rows(path, columns.required, optional)
    return own(path.name, _of_table(rows, columns, path))


def _of_table(rows: Iterable[tuple[int, dict]], columns: Columns, path: str | Path) -> list[Interaction]:
    interactions = [_interaction(row, columns, path, line) for line, row in rows]
    if not interactions:
        raise RecordError("no row in it; an interaction a row is expected", path)
    return interactions


def _interaction(row: dict, columns: Columns, path: str | Path, line: int) -> Interaction:
    """One row of a table. An empty field of what was passed over: nothing was."""

    def field(name: str) -> str | None:
        return text_of(row, name, Path(path), line) or None if name in row else None

    chosen = field(columns.chosen)
    if not chosen:
        raise RecordError("empty; an interaction needs what was chosen", path, line, columns.chosen)
    return Interaction(chosen, field(columns.rejected), field(columns.query))


def _of_rows(rows: Iterable[tuple[int, dict]], path: str, user: str | None = None) -> Person:
    """Rows of JSONL: the interactions of one person, or persons, of whom one is taken."""
    interactions: list[Interaction] = []
    for line, row in rows:
        if "history" in row:
            if interactions:
                raise RecordError("a person among interactions; give a file of one kind", path, line)
            name = user_of(row) or "you"
            if user is None or parse_user_id(row, path, line) == user:
                target = row.get("target")
                return own(name, parse_history(row, path, line), target and parse_target(target, path, line))
        else:
            interactions.append(parse_interaction({"rejected": None} | row, path, line, "interaction"))
    if user is not None:
        raise RecordError(f"no person '{user}' in it", path)
    if not interactions:
        raise RecordError("no row in it; an interaction a line is expected", path)
    return own("you" if path == TYPED else Path(path).name, interactions)
