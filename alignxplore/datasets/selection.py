"""From rows (history, target pair) to records: drop what leaks or repeats, and balance answers by length.

In AlignX, P-Soups, PersonaMem and HiCUPID both answers are given, so only rows can be chosen:

* published: all rows.
* matched: in each stratum (persona, question type) as many rows whose chosen answer is the longer one as rows where it
  is the shorter one, so that length alone is right half of the time. Which of the more frequent kind stay is drawn by
  a hash of seed and row.

A user of several rows is named `user#row`; all rows of a user fall into the same split. Rows that name no user
(AlignX, P-Soups) repeat their targets: there all rows of a target do. The histories of split train, and of a range of
persons, lose what is a target of another part: a model that is trained on them has not seen a test's answers.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from alignxplore.datasets.building import DealtExample, Example, Job
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.groups import UserGroups, user_hashes
from alignxplore.records import Interaction, Offer, UserRecord, content_hash, hash_seed, person_of, stands_in
from alignxplore.texts import words_of


class Row(NamedTuple):
    """One row of a raw file in the project's words; `stratum` is within what lengths are balanced, `question_type`
    what the data set calls the kind of the question."""

    user: str
    history: Sequence[Interaction]
    target: Interaction
    persona: str | None = None
    stratum: str = ""
    question_type: str | None = None


def from_messages(messages: Iterable[dict]) -> list[Interaction]:
    """A chat → interactions: each user message with the reply to it, nothing rejected.

    System messages are left out (they tell the persona that is to be inferred). Messages of one role in a row are
    joined; a user message without a reply is kept as something the user said by themselves.
    """
    turns: list[tuple[str, str]] = []
    for message in messages:
        role, text = message.get("role"), str(message.get("content") or "").strip()
        for name in ("User:", "Assistant:"):
            text = text.removeprefix(name).strip()
        if role not in ("user", "assistant") or not text:
            continue
        if turns and turns[-1][0] == role:
            turns[-1] = (role, f"{turns[-1][1]}\n{text}")
        else:
            turns.append((role, text))
    pairs, request = [], None
    for role, text in turns:
        if role == "user":
            request = text
        elif request is not None:
            pairs.append(Interaction(text, None, request))
            request = None
    return [*pairs, Interaction(request)] if request else pairs


def build_records(rows: Iterable[Row], job: Job) -> Iterator[Example]:
    """Records of all rows in hash order, one in memory at a time. All rows are read before the first record is
    yielded. Of a sample of users each has all their rows."""
    with Engine(job) as engine:
        groups, foreign_targets = UserGroups(engine, job), set[str]()
        for row in rows:
            job.counts["rows read"] += 1
            groups.add(row.user, _text(row))
            if job.split != "test" and not _names_user(row) and not job.wanted(target := _dealt_by(row)):
                foreign_targets.add(target)
        keep = _balance(groups, foreign_targets, job) if job.protocol == "matched" else None
        sample = None if job.users is None else _sample(groups, foreign_targets, keep, job)
        for row in _rows(groups, job.counts):
            if sample is not None and person_of(row.user) not in sample:
                job.counts["left out: not of the sampled users"] += 1
                continue
            record = _record(row, foreign_targets, job, job.counts)
            if record is not None and keep is not None and not keep(row):
                job.counts["dropped: one more row of the more frequent order of lengths"] += 1
            elif record is not None:
                job.counts["interactions kept"] += len(record.history) + 1
                yield DealtExample(record)
        engine.close()


def _sample(
    groups: UserGroups, foreign_targets: Collection[str], keep: Callable[[Row], bool] | None, job: Job
) -> set[str] | None:
    """The first persons, by their hash, of those with a record; None where each row is a person of its own: then the
    first rows are the sample."""
    if not len(groups) or groups.engine.one("SELECT count(*) FROM rows WHERE contains(\"user\", '#')") == (0,):
        return None
    people = {
        person_of(row.user)
        for row in _rows(groups, defaultdict(int))
        if _record(row, foreign_targets, job, defaultdict(int)) is not None and (keep is None or keep(row))
    }
    names = sorted(people)
    ranks = zip(user_hashes(job.seed, names).tolist(), names)
    return {name for _, name in sorted(ranks)[: job.users]}


def _text(row: Row) -> str:
    history = [list(_fields(x)) for x in row.history]
    return json.dumps([history, _target_fields(row.target), row.persona, row.stratum, row.question_type])


def _fields(pair: Interaction) -> tuple[str | None, ...]:
    return pair.chosen, pair.rejected, pair.query


def _target_fields(target: Interaction) -> tuple:
    return (*_fields(target), target.also_chosen, target.passed_over) if isinstance(target, Offer) else _fields(target)


def _target_of(fields: list) -> Interaction:
    """A target back from its fields."""
    pair, lists = fields[:3], fields[3:]
    return Offer(*pair, *map(tuple, lists)) if lists else Interaction(*pair)


def _torn_target(target: Interaction) -> bool:
    """Whether an answer is empty, or there is nothing to tell the chosen one from."""
    if isinstance(target, Offer):
        return not target.passed_over or not all(text.strip() for text in target.candidates)
    return not target.chosen.strip() or not (target.rejected or "").strip() or target.same


def _rows(groups: UserGroups, counts: dict[str, int]) -> Iterator[Row]:
    """The rows back from disk, the first of each id (ids are hashes of the content, or come from the raw file)."""
    for user, texts in groups:
        counts["dropped: a row of the same id came before"] += len(texts) - 1
        history, target, *extras = json.loads(texts[0])
        yield Row(user, [Interaction(*x) for x in history], _target_of(target), *extras)


def _dealt_by(row: Row) -> str:
    """What says to which split, and to which range of persons, a row belongs: its user; where it names none its
    target, whichever answer was chosen."""
    return person_of(row.user) if _names_user(row) else _choice_of(row.target)


def _names_user(row: Row) -> bool:
    return "#" in row.user


def _choice_of(pair: Interaction) -> str:
    """What was to be chosen from, whatever was."""
    return content_hash([words_of(pair.query or ""), sorted(map(words_of, pair.candidates))])


def _record(row: Row, foreign_targets: Collection[str], job: Job, counts: dict[str, int]) -> UserRecord | None:
    """The record of a row, or None with the reason counted.

    Args:
        foreign_targets: what rows that are left out choose from, for rows that name no user.
    """
    query, target = job.dataset.default_query, row.target
    if not job.wanted(_dealt_by(row)):
        counts[f"left out: {job.unwanted}"] += 1
        return None
    if _torn_target(target):
        counts["dropped: an answer is empty, or both are the same"] += 1
        return None
    history: dict[tuple, Interaction] = {}
    for pair in row.history:
        words = tuple(text and words_of(text) for text in _fields(pair))
        if not pair.chosen.strip() or pair.same or pair.rejected is not None and not pair.rejected.strip():
            counts["dropped from a history: an answer is empty, or both are the same"] += 1
        elif stands_in(target, [pair]):
            counts["dropped from a history: it holds the answer to be predicted"] += 1
        elif foreign_targets and pair.rejected is not None and _choice_of(pair) in foreign_targets:
            counts["dropped from a history: a target of another part"] += 1
        elif words in history:
            counts["dropped from a history: repeated"] += 1
        else:
            history[words] = Interaction(pair.chosen, pair.rejected, pair.query or query)
    if len(history) + 1 < job.least:
        counts[f"dropped: fewer than {job.least} interactions"] += 1
        return None
    target = replace(target, query=target.query or query)
    return UserRecord(row.user, tuple(history.values()), target, row.persona, question_type=row.question_type)


def _draw(row: Row, job: Job) -> int:
    return hash_seed(job.seed, "balance", row.user)


def _longer(row: Row) -> int:
    """How many characters the chosen answer has more than the other one."""
    chosen, rejected = row.target.items
    return len(chosen) - len(rejected)


def _balance(groups: UserGroups, foreign_targets: Collection[str], job: Job) -> Callable[[Row], bool]:
    """A predicate that keeps as many longer as shorter chosen answers in each stratum (and all of equal length)."""
    draws: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for row in _rows(groups, defaultdict(int)):
        if _record(row, foreign_targets, job, defaultdict(int)) is not None and (longer := _longer(row)):
            draws[row.stratum, longer > 0].append(_draw(row, job))
    limit = {}
    for (stratum, is_longer), values in draws.items():
        count = min(len(values), len(draws.get((stratum, not is_longer), ())))
        limit[stratum, is_longer] = sorted(values)[count - 1] if count else -1

    def keep(row: Row) -> bool:
        longer = _longer(row)
        return not longer or _draw(row, job) <= limit[row.stratum, longer > 0]

    return keep
