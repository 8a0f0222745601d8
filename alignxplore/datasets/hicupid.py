"""HiCUPID → records: all dialogues of a user are the history; the target sets the personalised answer against the
general one.

    python -m alignxplore.datasets build hicupid --raw DIR --out hicupid_upi.jsonl

Reads the subsets `dialogue` and `qa` (files or folders of that name; JSON, JSONL or parquet). Where files of `qa` are
named after official test splits, only those are used, as the official evaluator does. `ground_truth_persona` carries
the question's type and metadata as JSON: the evaluator shows them to its judge.

* published: all test questions, all dialogues of a user.
* matched: as many questions whose personalised answer is the longer one as others.
* evidence: questions of type persona of the split test_2, each with only the dialogues that it names (`dialogue_id`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.groups import UserGroups
from alignxplore.datasets.rows import identifier, read_rows, text_field
from alignxplore.datasets.selection import Row, build_records, from_messages
from alignxplore.records import Interaction, RecordError

_FORMS = ("json", "jsonl", "parquet", "json.gz", "jsonl.gz")


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads; FileNotFoundError for another layout."""
    return [*dict.fromkeys(path for paths in _files(job) for path in paths)]


def _files(job: Job) -> tuple[list[Path], list[Path]]:
    """Dialogues and questions: those of the test splits, or all where none is named so; evidence: those of test_2."""
    dialogues, questions = (
        [path for form in _FORMS for path in job.find(f"{name}*.{form}", f"{name}*/*.{form}")]
        for name in ("dialogue", "qa")
    )
    if not dialogues or not questions:
        raise job.unknown_layout()
    if job.protocol == "evidence" and not (questions := [path for path in questions if "test_2" in path.name]):
        raise FileNotFoundError(f"{job.raw}: the protocol evidence needs the split test_2 of qa, e.g. qa_test_2.json")
    test = [path for path in questions if "test" in path.name]
    return sorted(set(dialogues)), sorted(set(test or questions))


def build(job: Job) -> Iterator[Example]:
    """Records of all test questions."""
    dialogues, questions = _files(job)
    return build_records(_rows(dialogues, questions, job), job)


def _read(dialogues: list[Path], questions: list[Path], groups: UserGroups, job: Job) -> None:
    for path in dialogues:
        for number, row in read_rows(path, job):
            job.counts["dialogue turns read"] += 1
            turn = [text_field(row, key, path, number) for key in ("user", "assistant")]
            user, dialogue = (identifier(row, key, path, number) for key in ("user_id", "dialogue_id"))
            groups.add(str(user), json.dumps(["turn", dialogue, number, turn]))
    for path in questions:
        for number, row in read_rows(path, job):
            texts = [
                text_field(row, key, path, number)
                for key in ("question", "personalized_answer", "general_answer", "type")
            ]
            user, question = (identifier(row, key, path, number) for key in ("user_id", "question_id"))
            if job.protocol == "evidence" and texts[-1] != "persona":
                job.counts["questions left out: of another type than persona"] += 1
                continue
            dialogue_ids = _named(row, path, number) if job.protocol == "evidence" else None
            groups.add(
                str(user), json.dumps(["question", question, number, [*texts, row.get("metadata"), dialogue_ids]])
            )


def _named(row: dict, path: Path, number: int) -> list[str]:
    """The dialogues that a question is about: one id or a list of them.

    Raises:
        RecordError: none is named, or something else than ids.
    """
    ids = row.get("dialogue_id")
    ids = ids if isinstance(ids, list) else [ids]
    if not ids or not all(isinstance(x, (str, int)) and not isinstance(x, bool) for x in ids):
        raise RecordError(
            f"expected the ids of dialogues, found {row.get('dialogue_id')!r:.60}", path, number, "dialogue_id"
        )
    return [str(x) for x in ids]


def _rows(dialogues: list[Path], questions: list[Path], job: Job) -> Iterator[Row]:
    with Engine(job) as engine:
        groups = UserGroups(engine, job)
        _read(dialogues, questions, groups, job)
        for user, lines in groups:
            yield from _of_user(user, [json.loads(line) for line in lines])
        engine.close()


def _of_user(user: str, parts: list) -> Iterator[Row]:
    # Dialogues in the order of their ids, numbers before texts; turns of one dialogue in the order of the file.
    turns = sorted((x for x in parts if x[0] == "turn"), key=lambda x: (isinstance(x[1], str), x[1], x[2]))
    turn_pairs = [
        (str(turn[1]), pair)
        for turn in turns
        for pair in from_messages(
            [{"role": "user", "content": turn[3][0]}, {"role": "assistant", "content": turn[3][1]}]
        )
    ]
    for _, key, _, (question, personal, general, kind, metadata, dialogue_ids) in (
        x for x in parts if x[0] == "question"
    ):
        history = [pair for dialogue, pair in turn_pairs if dialogue_ids is None or dialogue in dialogue_ids]
        persona = json.dumps({"type": kind, "metadata": metadata}, ensure_ascii=False)
        yield Row(f"{user}#{key}", history, Interaction(personal, general, question), persona, kind, kind)
