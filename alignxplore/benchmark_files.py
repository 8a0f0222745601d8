"""Benchmark files and the parts of all data files: rows in, records out, and back.

A benchmark file holds one JSON object a line:

    {"userid": ..., "history": [{"query", "chosen", "rejected"}, ...], "target": {...},
     "ground_truth_persona"?: ..., "question_type"?: ...}

`query` may be null (the data set's default is used) and `rejected` may be null (the user saw no alternative). A
target may be a choice among k items (`Offer`): `rejected` is a list then, and `chosen` too where several were taken.
Bad input raises `RecordError`, which names the file, the line, the field and what to do.
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignxplore.places import Places
from alignxplore.records import NO_ALTERNATIVE, Interaction, Offer, RecordError, UserRecord, read_jsonl
from alignxplore.texts import table_id, words_of

log = logging.getLogger(__name__)


def parse_interaction(
    row: Any,
    path: str | Path | None = None,
    line: int | None = None,
    field: str = "",
    default_query: str | None = None,
) -> Interaction:
    """One {query, chosen, rejected} object → Interaction. `field` names the place for messages, e.g. "history[3]"."""
    if not isinstance(row, dict):
        raise RecordError(
            f"expected an object with query, chosen, rejected; found {type(row).__name__}", path, line, field
        )
    texts = {}
    for key in ("query", "chosen", "rejected"):
        if key not in row and key != "query":
            raise RecordError(
                "missing (use null where the user saw no alternative)" if key == "rejected" else "missing",
                path,
                line,
                f"{field}.{key}",
            )
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            raise RecordError(f"expected text or null, found {type(value).__name__}", path, line, f"{field}.{key}")
        texts[key] = value
    chosen = texts["chosen"]
    if chosen is None or not chosen.strip():
        raise RecordError("empty; an interaction needs the text of what was chosen", path, line, f"{field}.chosen")
    if texts["rejected"] is not None and not texts["rejected"].strip():
        raise RecordError("empty; use null where the user saw no alternative", path, line, f"{field}.rejected")
    return Interaction(chosen, texts["rejected"], texts["query"] or default_query)


def parse_history(
    row: dict, path: str | Path, line: int | None = None, default_query: str | None = None
) -> tuple[Interaction, ...]:
    """The `history` field of a row → interactions, oldest first; it must be a list with at least one of them. Where
    both items are one text there was nothing to choose: read as no alternative, with a warning."""
    history = row.get("history")
    if not isinstance(history, list):
        raise RecordError("missing" if history is None else "expected a list", path, line, "history")
    if not history:
        raise RecordError(
            "empty; a user without a past has no preferences to infer: drop the row", path, line, "history"
        )
    interactions = [parse_interaction(x, path, line, f"history[{i}]", default_query) for i, x in enumerate(history)]
    if places := [i for i, x in enumerate(interactions) if x.same]:
        log.warning(
            "%s:%s: history[%s]: rejected is the same as chosen; read as no alternative",
            path,
            line,
            ", ".join(map(str, places)),
        )
    return tuple(replace(x, rejected=None) if x.same else x for x in interactions)


def check_target(item: Interaction, path: str | Path, line: int | None, field: str) -> None:
    """Raise RecordError unless one of two different items was chosen."""
    if item.rejected is None:
        raise RecordError(NO_ALTERNATIVE, path, line, f"{field}.rejected")
    if item.same:
        problem = "the same as 'chosen', so there is no right answer; drop the row"
        raise RecordError(problem, path, line, f"{field}.rejected")


def user_of(row: dict) -> str | None:
    """The id of a row's user (`userid`, or `uid` in RL and SFT rows) as text; None where it names nobody."""
    user = row.get("uid") if row.get("userid") is None else row["userid"]
    if isinstance(user, float) and user.is_integer():
        user = int(user)  # what pandas makes of 7 where other rows lack one
    is_nobody = user is None or isinstance(user, (bool, list, dict)) or user in (math.inf, -math.inf)
    return None if is_nobody or table_id(str(user)) == "" else str(user)


def parse_user_id(row: dict, path: str | Path, line: int) -> str:
    """`user_of` a row that has to name one; else a RecordError."""
    user = user_of(row)
    if user is not None:
        return user
    if any(row.get(name) in (math.inf, -math.inf) for name in ("userid", "uid")):
        raise RecordError("a number too large to tell two users apart; write ids as text", path, line, "userid")
    raise RecordError("missing; each row needs the user's id as 'userid' or 'uid'", path, line, "userid")


def read_users(
    path: str | Path,
    *,
    default_query: str | None = None,
    allow_duplicates: bool = False,
    is_wanted: Callable[[str], bool] = lambda user: True,
) -> Iterator[UserRecord]:
    """Yield the user records of a benchmark file in order, one line in memory at a time.

    Args:
        is_wanted: of other users nothing but the id is looked at.

    Raises:
        RecordError: at the first row that breaks the contract, a repeated user id included.
    """
    lines = Places()  # user → line
    for line, row in read_jsonl(path):
        user = parse_user_id(row, path, line)
        if not is_wanted(user):
            continue
        if not allow_duplicates:
            if (first_line := lines.get(user)) is not None:
                problem = f"user '{user}' already stands at line {first_line}; give each row its own id"
                raise RecordError(problem, path, line, "userid")
            lines.put(user, line)
        history = parse_history(row, path, line, default_query)
        if "target" not in row:
            raise RecordError("missing; it holds the interaction to be predicted", path, line, "target")
        target = parse_target(row["target"], path, line, default_query)
        persona, kind = (_text_or_none(row.get(key)) for key in ("ground_truth_persona", "question_type"))
        yield UserRecord(user, history, target, persona, f"{path}:{line}", kind)


def _text_or_none(value: Any) -> str | None:
    """An optional field that groups or describes rows; what is no text, or empty, is not there."""
    return value if isinstance(value, str) and value else None


def parse_target(row: Any, path: str | Path, line: int | None = None, default_query: str | None = None) -> Interaction:
    """The `target` field of a row: a pair, or an offer where `rejected` is a list. An item that a list repeats counts
    once.

    Raises:
        RecordError: there is nothing to tell apart.
    """
    if not isinstance(row, dict) or not isinstance(row.get("rejected"), list):
        pair = parse_interaction(row, path, line, "target", default_query)
        check_target(pair, path, line, "target")
        return pair
    lists = {"chosen": row.get("chosen"), "rejected": row["rejected"]}
    chosen, rejected = (_texts(name, texts, path, line) for name, texts in lists.items())
    if chosen.keys() & rejected.keys():
        problem = "holds an item of 'chosen', so there is no right answer; drop the row"
        raise RecordError(problem, path, line, "target.rejected")
    first_item, *other_items = chosen.values()
    pair = parse_interaction(row | {"chosen": first_item, "rejected": None}, path, line, "target", default_query)
    return Offer(pair.chosen, None, pair.query, tuple(other_items), tuple(rejected.values()))


def _texts(name: str, texts: Any, path: str | Path, line: int | None) -> dict[str, str]:
    """The items of a list (or one by itself), by what stands in them but for white space."""
    texts = texts if isinstance(texts, list) else [texts]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RecordError("expected at least one text, and no empty one", path, line, f"target.{name}")
    texts_by_words: dict[str, str] = {}
    for text in texts:
        texts_by_words.setdefault(words_of(text), text)
    return texts_by_words


def target_row(target: Interaction) -> dict:
    """A target in the form of the benchmark files (the inverse of `parse_target`)."""
    if not isinstance(target, Offer):
        return dict(vars(target))
    chosen = list(target.taken) if target.also_chosen else target.chosen
    return {"chosen": chosen, "rejected": list(target.passed_over), "query": target.query}


def user_row(record: UserRecord) -> dict:
    """A record in the form of the benchmark files (the inverse of `read_users`)."""
    row = {
        "userid": record.user,
        "history": [dict(vars(x)) for x in record.history],
        "target": target_row(record.target),
    }
    optional = {"ground_truth_persona": record.persona, "question_type": record.question_type}
    return row | {key: value for key, value in optional.items() if value}
