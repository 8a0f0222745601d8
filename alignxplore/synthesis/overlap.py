"""Users and pairs that training rows share with benchmark files; `sft/overlap.py` runs it.

User ids are those of a data set: "455" of MovieLens is somebody else than "455" of MIND. Rows of a file whose data set
is known share a user by the id alone: `NAME=FILE`, a file named after it, or after one of the benchmarks
(books_rl.jsonl beside books_upi.jsonl). Of other rows an id says little: they share a user where they also share a
pair with the benchmarks; the rest are counted as strangers of the same id, and kept.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignxplore import datasets
from alignxplore.benchmark_files import parse_history, parse_interaction, parse_target, read_users, user_of
from alignxplore.command import option
from alignxplore.prompts import break_markup
from alignxplore.records import Interaction, Offer, RecordError, person_of, refuse_same_files, write_jsonl
from alignxplore.sft.tokenised_set import read_rows
from alignxplore.synthesis.streams import all_behaviours

Pair = frozenset[str]
COUNTED = ("rows", "user", "without_user", "strangers", "target", "pair", "dropped")


@dataclass(kw_only=True)
class OverlapOptions:
    """What is compared, and where what is left goes."""

    train: list[str] = option(
        "[NAME=]JSONL files or Hub data sets of users, RL rows or prompt/completion rows; NAME: the data set that "
        "their user ids are of, by default the one that the file is named after, _rl and _train aside"
    )
    benchmarks: list[str] = option("benchmarks: files, folders of NAME_upi.jsonl files, or Hub data sets")
    out: str | None = option("folder for copies of the files without the shared rows", None, "--output")


@dataclass
class Seen:
    """What the benchmarks hold."""

    persons: dict[str, set[str]] = field(default_factory=dict)  # by data set
    targets: set[Pair] = field(default_factory=set)
    pairs: set[Pair] = field(default_factory=set)  # those of the targets among them
    partners: dict[str, set[str]] = field(default_factory=dict)  # item → the items it was shown with
    by_first_line: dict[str, set[str]] = field(default_factory=dict)  # items by first line, to find them in a text


def pairs_of(item: Interaction) -> set[Pair]:
    """What was taken beside what was passed over, as prompts show them: one pair, or of a choice among k items all
    of them; none where there was no alternative."""
    passed_over = item.passed_over if isinstance(item, Offer) else (item.rejected,)
    taken = [_shown(text) for text in item.taken]
    return {frozenset((text, _shown(other))) for text in taken for other in passed_over if other is not None}


def _shown(text: str) -> str:
    return break_markup(text).strip()


def read_benchmarks(paths: list[str]) -> Seen:
    """Persons and pairs of all benchmarks."""
    contents = Seen()
    for name, path in (files for place in paths for files in datasets.locate(place).items()):
        persons = contents.persons.setdefault(name, set())
        for record in read_users(path, allow_duplicates=True):
            persons.add(record.person)
            contents.targets |= pairs_of(record.target)
            contents.pairs.update(*map(pairs_of, all_behaviours(record)))
    for pair in contents.pairs:
        for text in pair:
            contents.partners.setdefault(text, set()).update(pair - {text})
            contents.by_first_line.setdefault(text.splitlines()[0].strip(), set()).add(text)
    return contents


def shown_pairs(row: dict, contents: Seen) -> set[Pair]:
    """Pairs of the benchmarks both of whose items stand in the prompt: each from the start of a line, or after its
    label."""
    content = "\n".join(message["content"] for message in row["prompt"])
    lines = [line.strip() for line in content.splitlines()]
    starts = {text for line in lines for text in (line, line.partition(": ")[2].strip())}
    items = {
        text
        for start in starts & contents.by_first_line.keys()
        for text in contents.by_first_line[start]
        if text in content
    }
    return {frozenset((text, partner)) for text in items for partner in contents.partners[text] & items}


def named_file(text: str) -> tuple[str | None, str]:
    """[NAME=]FILE → (data set of its users, where that is known; the file)."""
    name, equals, path = text.partition("=")
    if equals and "/" not in name and not Path(text).exists():
        return name, path
    return datasets.name_of(text), text


def set_of_benchmarks(path: str, contents: Seen) -> str | None:
    """The benchmark that a file was made together with, as its name says: `datasets import` writes OUT_upi.jsonl
    beside OUT_train.jsonl and OUT_rl.jsonl."""
    name = re.sub(r"_(?:upi|train|rl)$", "", Path(path).name.removesuffix(".jsonl"))
    return name if name in contents.persons else None


def training_target(target: Any, place: str) -> Interaction:
    """The target of a training row: a choice among k items, or one that need have no alternative."""
    if isinstance(target, dict) and isinstance(target.get("rejected"), list):
        return parse_target(target, place)
    return parse_interaction(target, place, field="target")


def shared(row: dict, contents: Seen, place: str, name: str | None) -> dict[str, bool]:
    """What one training row shares with the benchmarks; `place` names it in messages, `name` is the data set of its
    user."""
    user = user_of(row)
    if "prompt" in row:
        pairs = shown_pairs(row, contents)
    else:
        items = parse_history(row, place)
        items += (training_target(row["target"], place),) if row.get("target") else ()
        pairs = set[Pair]().union(*map(pairs_of, items))
    person, seen_pair = user and person_of(user), not pairs.isdisjoint(contents.pairs)
    sets = {set_name for set_name, persons in contents.persons.items() if person in persons}
    is_same_person = bool(sets) and seen_pair if name is None else name in sets
    return {
        "user": is_same_person,
        "without_user": user is None,
        "strangers": bool(sets) and not is_same_person,
        "target": not pairs.isdisjoint(contents.targets),
        "pair": seen_pair,
    }


def check(train: list[str], benchmarks: list[str], output: str | None = None) -> dict[str, dict[str, int]]:
    """Counts by training file; with `output`, also copies without the rows that share a user or a target."""
    files = [named_file(text) for text in train]
    outputs = [f"{Path(path).stem}.jsonl" for _, path in files]
    if output is not None and len(set(outputs)) < len(outputs):
        raise RecordError(f"two inputs would be written to one file of {output}; check them one after the other")
    if output is not None:
        sources = [path for _, path in files]
        sources += [str(path) for place in benchmarks for path in datasets.locate(place).values()]
        for file_name in outputs:
            refuse_same_files({"its copy in --out": Path(output) / file_name}, {path: path for path in sources})
    contents, counts = read_benchmarks(benchmarks), {}
    for (name, path), file_name in zip(files, outputs):
        count = counts[path] = dict.fromkeys(COUNTED, 0)
        name = name or set_of_benchmarks(path, contents)

        def clean(path: str = path, name: str | None = name, count: dict[str, int] = count) -> Iterator[dict]:
            for place, row in read_rows(path):
                flags = shared(row, contents, place, name)
                count["rows"] += 1
                for flag, value in flags.items():
                    count[flag] += value
                if flags["user"] or flags["target"]:
                    count["dropped"] += 1
                else:
                    yield row

        if output is None:
            for _ in clean():
                pass
        else:
            write_jsonl(Path(output) / file_name, clean())
    return counts


def overlap(options: OverlapOptions) -> str:
    """The counts in words, a line a file, and as JSON."""
    counts, lines = check(options.train, options.benchmarks, options.out), []
    verb = "dropped" if options.out else "would be dropped"
    for path, count in counts.items():
        nobody = f" (not known of {count['without_user']}, which name none)" if count["without_user"] else ""
        lines.append(
            f"{path}: {count['rows']} rows; {count['user']} share a user{nobody}, {count['target']} a target pair, "
            f"{count['pair']} any pair; {count['dropped']} {verb}"
        )
        if count["strangers"]:
            lines.append(
                f"{path}: {count['strangers']} more have the id of a user of another data set, and are kept; if the "
                "ids are of one of the benchmarks' data sets, name it: NAME=FILE"
            )
    return "\n".join([*lines, json.dumps(counts)])
