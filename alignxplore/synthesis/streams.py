"""A user's behaviour as one stream of A/B choices, tokenised once. The signal model is trained on these and scores
them.

    Item A: ...
    Item B: ...
    Choice: B

Which item is A is drawn from a content hash, so that it never tells anything. The loss and the scores are on the
letters only. Paper: data synthesis, the "signal" that marks which choices can be foreseen from those before them.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore import datasets
from alignxplore.benchmark_files import read_users
from alignxplore.errors import UserError
from alignxplore.prompts import break_markup
from alignxplore.records import Interaction, RecordError, UserRecord, hash_seed, read_jsonl

BEHAVIOURS = 100  # published: the last 100 behaviours of a user


class StreamError(UserError, ValueError):
    """A tokenizer that cannot cut a stream where it must be cut."""


@dataclass(frozen=True)
class Stream:
    """Token ids of a user's newest behaviours that fit, and where their letters stand.

    `letters[i]` is the index in `ids` of the letter of behaviour `behaviours[i]` (its place among all of the user's).
    """

    ids: list[int]
    letters: list[int]
    behaviours: list[int]
    dropped: int


def behaviour_text(item: Interaction, key: object) -> tuple[str, str | None]:
    """(text up to and with the letter's line, the letter); no letter where the user saw no alternative."""
    request = f"Request: {break_markup(item.query)}\n" if item.query else ""
    if item.rejected is None:
        return f"{request}Chosen: {break_markup(item.chosen)}\n", None
    is_chosen_first = hash_seed("stream order", key, item.chosen, item.rejected) % 2 == 0
    a, b = (item.chosen, item.rejected) if is_chosen_first else (item.rejected, item.chosen)
    letter = "A" if is_chosen_first else "B"
    return f"{request}Item A: {break_markup(a)}\nItem B: {break_markup(b)}\nChoice: {letter}\n", letter


def letter_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Token ids of ` A` and ` B` after `Choice:`."""
    ids_a, ids_b = (tokenizer(f"Choice: {letter}\n", add_special_tokens=False)["input_ids"] for letter in "AB")
    differences = [(a, b) for a, b in zip(ids_a, ids_b) if a != b]
    if len(ids_a) != len(ids_b) or len(differences) != 1:
        raise StreamError(
            f"{tokenizer.name_or_path}: 'Choice: A' and 'Choice: B' do not differ in one token; use another model"
        )
    return differences[0]


def read_behaviours(path: str | Path, default_query: str | None) -> Iterator[UserRecord]:
    """The users of a file, a null query replaced as evaluation does it (`datasets.default_query`), so that prompts are
    the same.

    A user may have several lines; lines that say the same count once.
    """
    record_ids: set[str] = set()
    for record in read_users(path, default_query=datasets.default_query(path, default_query), allow_duplicates=True):
        if record.id not in record_ids:
            record_ids.add(record.id)
            yield record


def read_scores(path: str | Path, value: str) -> Iterator[tuple[str, int, dict[int, float]]]:
    """(record id, choices dropped, place → `value`: "p" or "logprob") of each line of a scores.jsonl of
    signal_model.py.

    Raises:
        RecordError: a file that holds something else.
    """
    for line, row in read_jsonl(path):
        fields: list[tuple[str, Any, type | tuple[type, ...]]] = [
            ("id", row.get("id"), str),
            ("dropped", row.get("dropped"), int),
            ("scores", row.get("scores"), list),
        ]
        for number, entry in enumerate(row["scores"] if isinstance(row.get("scores"), list) else ()):
            values = entry if isinstance(entry, dict) else {}
            fields.append((f"scores[{number}].position", values.get("position"), int))
            fields.append((f"scores[{number}].{value}", values.get(value), (int, float)))
        for name, content, kind in fields:
            if not isinstance(content, kind):
                raise RecordError(
                    "missing or of a wrong kind; give the scores.jsonl that signal_model.py score writes",
                    path,
                    line,
                    name,
                )
        yield row["id"], row["dropped"], {entry["position"]: entry[value] for entry in row["scores"]}


def all_behaviours(record: UserRecord) -> tuple[Interaction, ...]:
    """History and target, oldest first: what the signal model reads."""
    return (*record.history, record.target)


def tokenise_stream(
    items: Sequence[Interaction], user: str, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Stream:
    """One call of the tokenizer for the whole stream, then cuts by character offsets: linear in its length.

    The newest `BEHAVIOURS` are taken; the oldest of them are dropped whole until the stream fits into `max_length`
    tokens.
    """
    start = max(0, len(items) - BEHAVIOURS)
    texts = [behaviour_text(item, (user, start + i)) for i, item in enumerate(items[start:])]
    stream_text = "".join(text for text, _ in texts)
    encoding = tokenizer(stream_text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, ends = encoding["input_ids"], [end for _, end in encoding["offset_mapping"]]
    cuts, letters, place = [0], [], 0
    for text, letter in texts:
        place += len(text)
        last_token = bisect_left(ends, place)
        if ends[last_token] != place:
            raise StreamError(
                f"{tokenizer.name_or_path}: a token reaches over the end of a behaviour; use another tokenizer"
            )
        # the letter is the last character but one (before the line end); its token is the first to end after it
        letters.append(bisect_left(ends, place - 1, hi=last_token) if letter else None)
        cuts.append(last_token + 1)
    start_place = next(i for i, cut in enumerate(cuts) if len(ids) - cut <= max_length)
    letter_places = [(i, letter) for i, letter in enumerate(letters) if i >= start_place and letter is not None]
    return Stream(
        ids[cuts[start_place] :],
        [letter - cuts[start_place] for _, letter in letter_places],
        [start + i for i, _ in letter_places],
        start + start_place,
    )
