"""PersonaMem v1 and v2 → records: a chat becomes interactions, four options become one pair.

    python -m alignxplore.datasets build personamem --raw DIR --out personamem_upi.jsonl

Reads v1 (`questions_32k.csv` and `shared_contexts_32k.jsonl`, also 128k and 1M: one size in a folder) and v2
(`benchmark/text/benchmark.csv`, for protocol `chat` also `data/chat_history_32k/`).

History: each user message with the reply to it, nothing rejected; the persona in the system messages is left out.
Protocol `evidence`, the default: the conversation that the question is about (it fits the published 16,384-token
window). Protocol `chat`: the whole chat before the question. v1 does not say which conversation that is: there the
default is `chat`. No protocol is called published, because the published conversion is not known.
Target: the right option against one wrong option, drawn by a hash of seed and question. With protocol `matched` it is
the one nearest in length, with rows then balanced by length. With `--whole` it stands against all of them, which is
how the benchmark itself counts (four-way accuracy).
"""

import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.rows import identifier, literal, read_rows, text_field
from alignxplore.datasets.selection import Row, build_records, from_messages
from alignxplore.records import Interaction, Offer, RecordError, hash_seed, read_json
from alignxplore.texts import mistaken, not_utf_8, words_of


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads (v2: and the chats that its rows name); FileNotFoundError for another
    layout, ValueError for several tables or sizes."""
    if tables := job.find("benchmark.csv"):
        # The hub has a multimodal benchmark beside it, whose chats hold images.
        text_tables = [path for path in tables if path.parts[-3:-1] == ("benchmark", "text")]
        return [job.only(text_tables or tables, "tables")]
    tables = job.find("questions_32k.csv", "questions_128k.csv", "questions_1M.csv")
    if not tables:
        raise job.unknown_layout()
    if len(tables) > 1:
        raise ValueError(
            f"{job.raw}: holds several sizes ({', '.join(x.name for x in tables)}); give a folder with one"
        )
    contexts = tables[0].with_name(tables[0].name.replace("questions", "shared_contexts")).with_suffix(".jsonl")
    if not contexts.is_file():
        raise FileNotFoundError(
            f"{contexts}: missing; the chats of {tables[0].name} are in it (hub: bowen-upenn/PersonaMem)"
        )
    return [tables[0], contexts]


def build(job: Job) -> Iterator[Example]:
    """Records of whichever version the raw folder holds."""
    questions, *contexts = sources(job)
    if not contexts:
        job.edition = "v2"
        return build_records(_version_2(questions, job), job)
    job.protocol = "chat" if job.protocol == "evidence" else job.protocol
    job.edition = f"v1 {questions.stem.removeprefix('questions_')}"
    return build_records(_version_1(questions, contexts[0], job), job)


def _version_1(path: Path, contexts: Path, job: Job) -> Iterator[Row]:
    chat = _Contexts(contexts, job)
    for number, row in read_rows(path, job):
        persona = identifier(row, "persona_id", path, number)
        question, kind = (text_field(row, key, path, number) for key in ("question_id", "question_type"))
        chosen, wrong_texts = options(row, path, number, job)
        messages = chat(text_field(row, "shared_context_id", path, number))
        if messages is None:
            job.counts["dropped: its chat is not in the contexts file"] += 1
            continue
        end = text_field(row, "end_index_in_shared_context", path, number)
        if not end.isdecimal():
            raise RecordError(f"expected a number, found {end!r:.60}", path, number, "end_index_in_shared_context")
        messages = messages[: int(end)]
        target = _target(chosen, wrong_texts, question, text_field(row, "user_question_or_message", path, number), job)
        yield Row(f"{persona}#{question}", from_messages(messages), target, _persona(messages), kind, kind)


def options(row: dict, path: Path, number: int, job: Job) -> tuple[str, list[str]]:
    """The right option of a v1 question and the wrong ones, without their letters."""
    option_list = literal(text_field(row, "all_options", path, number), path, number, "all_options", job)
    by_letter = {option[:3].lower(): option[3:].strip() for option in option_list if isinstance(option, str)}
    letter_of_answer = text_field(row, "correct_answer", path, number).strip().lower()
    if letter_of_answer not in by_letter or len(by_letter) < 2:
        raise RecordError(
            f"'{letter_of_answer}' is not among the options {sorted(by_letter)}", path, number, "correct_answer"
        )
    return by_letter[letter_of_answer], [text for letter, text in by_letter.items() if letter != letter_of_answer]


def _version_2(path: Path, job: Job) -> Iterator[Row]:
    for place, (number, row) in enumerate(read_rows(path, job), 1):
        kind = ", ".join(part for part in (row.get("pref_type"), row.get("who")) if part)
        persona, chosen = (
            identifier(row, "persona_id", path, number),
            text_field(row, "correct_answer", path, number).strip(),
        )
        wrong_texts = literal(
            text_field(row, "incorrect_answers", path, number), path, number, "incorrect_answers", job
        )
        if job.protocol == "chat":
            messages = _chat_file(path, text_field(row, "chat_history_32k_link", path, number), number)
        else:
            snippet = text_field(row, "related_conversation_snippet", path, number)
            messages = literal(snippet, path, number, "related_conversation_snippet", job, dict)
        target = _target(chosen, [str(x).strip() for x in wrong_texts], place, _query(row, path, number, job), job)
        yield Row(
            f"{persona}#{place}",
            from_messages(messages),
            target,
            row.get("expanded_persona") or _persona(messages),
            kind,
            kind,
        )


def _query(row: dict, path: Path, number: int, job: Job) -> str:
    """The question: plain text, or a message {role, content} written as text."""
    text = text_field(row, "user_query", path, number)
    if text.lstrip().startswith("{"):
        (message,) = literal(f"[{text}]", path, number, "user_query", job, dict)
        return str(message.get("content", text))
    return text


def _target(chosen: str, wrong_texts: list[str], question: str | int, query: str, job: Job) -> Interaction:
    """The right option against one wrong one, or against all of them. Options that repeat another one are passed
    over."""
    if not job.whole:
        return Interaction(chosen, _one(wrong_texts, chosen, question, job), query)
    text_of_words: dict[str, str] = {}
    for option in _others(wrong_texts, chosen):
        text_of_words.setdefault(words_of(option), option)
    return Offer(chosen, None, query, (), tuple(text_of_words.values()))


def _one(texts: list[str], chosen: str, question: str | int, job: Job) -> str:
    """The wrong option to set against the right one."""
    texts = _others(texts, chosen) or [""]  # an empty one is dropped with its row
    dice = random.Random(hash_seed(job.seed, "option", question))
    dice.shuffle(texts)
    return min(texts, key=lambda option: abs(len(option) - len(chosen))) if job.protocol == "matched" else texts[0]


def _others(texts: list[str], chosen: str) -> list[str]:
    """The options that say something, and not what the right one says."""
    return [option for option in texts if words_of(option) not in ("", words_of(chosen))]


def _persona(messages: list[dict]) -> str | None:
    return next((str(x.get("content")) for x in messages if x.get("role") == "system"), None)


@lru_cache(maxsize=4)
def _chat_file(benchmark: Path, link: str, number: int) -> list[dict]:
    """A v2 chat: the link is relative to the data set's root, two folders above benchmark/text/."""
    path = next((root / link for root in benchmark.parents[:4] if (root / link).is_file()), None)
    if path is None:
        raise RecordError(f"{link} is not at hand; download data/chat_history_32k of the data set", benchmark, number)
    data = read_json(path)
    return _chat(data.get("chat_history") if isinstance(data, dict) else data, path)


def _chat(messages: Any, path: Path, number: int | None = None) -> list[dict]:
    """The messages of a chat; RecordError for what is none."""
    if not isinstance(messages, list):
        raise RecordError(f"expected a list of messages, found {messages!r:.60}", path, number)
    for place, message in enumerate(messages):
        fields = message if isinstance(message, dict) else {}
        if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content") or "", str):
            problem = f"message {place}: expected an object with the texts role and content, found {message!r:.60}"
            raise RecordError(problem, path, number)
    return messages


class _Contexts:
    """The chats of v1 by id, read from their place in the file when asked for (the 1M file is too big to hold)."""

    def __init__(self, path: Path, job: Job):
        self.path, self.job = path, job
        self.places: dict[str, tuple[int, int]] = {}  # id → line and offset
        with path.open("rb") as lines:
            place = 0
            for number, line in enumerate(lines, 1):
                if number == 1 and (problem := mistaken(line)):
                    raise RecordError(problem, path)
                key = line[: line.find(b":")].strip(b'\xef\xbb\xbf {"').decode(errors="replace")
                self.places[key] = number, place
                place += len(line)
        self._load = lru_cache(maxsize=4)(self._read)

    def __call__(self, key: str) -> list[dict] | None:
        return self._load(key) if key in self.places else None

    def _read(self, key: str) -> list[dict]:
        number, place = self.places[key]
        with self.path.open("rb") as lines:
            lines.seek(place)
            raw = lines.readline()
        try:
            line = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RecordError(not_utf_8(error), self.path, number) from None
        row = self.job.parse(line, self.path, number, is_first=number == 1)
        return _chat(row.get(key) if isinstance(row, dict) else row, self.path, number)
