"""The rows of tallrec.py: both items of a question, and what is left out to fit."""

import json
import random
import re
from collections import Counter

from alignxplore.baselines.tallrec import TallrecOptions, tallrec_rows, write_rows
from alignxplore.benchmark_files import user_row
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.sft.tokenised_set import prepare as prepare_rows
from alignxplore.synthesis.streams import all_behaviours


def user(name: str, length: int = 14) -> UserRecord:
    items = [Interaction(f"{name} good {i}", f"{name} bad {i}") for i in range(length)]
    return UserRecord(name, tuple(items[:-1]), items[-1])


def test_tallrec_asks_about_both_items_of_a_pair_and_never_shows_the_answer(tokenizer):
    record, args = user("u", 9), TallrecOptions(data="", out="", per_user=3, least_history=3, last=4)
    rows = list(tallrec_rows(record, PromptSet(), tokenizer, args, Counter()))
    assert len(rows) == 6 and [row["completion"][0]["content"] for row in rows] == ["Yes", "No"] * 3
    for yes, no in zip(rows[::2], rows[1::2]):
        texts = [row["prompt"][1]["content"] for row in (yes, no)]
        items = [next(line for line in text.splitlines() if line.startswith("Item: ")) for text in texts]
        assert items[0].replace("good", "bad") == items[1] and texts[0].replace(items[0], items[1]) == texts[1]
        assert texts[0].count("Liked:") <= 4 and items[0].removeprefix("Item: ") not in texts[0].replace(items[0], "")
    assert "Item: u good 8" in rows[-2]["prompt"][1]["content"], "the target is always asked about"


def test_tallrec_fits_both_rows_of_a_question_or_leaves_both_out(tokenizer, model_folder, tmp_path):
    """Lengths of chosen and passed-over items differ, so that at this limit one row of a question may fit where the
    other does not."""
    rng, limit = random.Random(0), 500
    users = []
    for n in range(30):
        texts = [
            [f"{n} {i} {side}" + " x" * rng.randint(1, 60 if i < 9 else 400) for side in ("good", "bad")]
            for i in range(10)
        ]
        *history, target = (Interaction(good, bad) for good, bad in texts)
        users.append(UserRecord(f"u{n}", tuple(history), target))
    write_jsonl(tmp_path / "users.jsonl", map(user_row, users))
    files = {"data": str(tmp_path / "users.jsonl"), "out": str(tmp_path / "rows.jsonl"), "model": str(model_folder)}
    message = write_rows(TallrecOptions(**files, max_length=limit, per_user=3))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    token_set = prepare_rows([str(tmp_path / "rows.jsonl")], tokenizer, tmp_path / "set", limit)
    assert token_set["rows"] == len(rows) and token_set["longest"] > limit - 60, "what fits is kept"
    places = {item.chosen: place for record in users for place, item in enumerate(all_behaviours(record))}
    earlier_count = shown_count = 0
    for yes, no in zip(rows[::2], rows[1::2], strict=True):
        texts, items = zip(*(row["prompt"][1]["content"].split("\nItem: ") for row in (yes, no)))
        assert texts[0] == texts[1] and [row["completion"][0]["content"] for row in (yes, no)] == ["Yes", "No"]
        earlier_count += places[items[0].removesuffix("\nWill the user like this item?")]
        shown_count += texts[0].count("Liked: ")
    figures = re.search(
        r": (\d+) rows, half of them Yes; to fit 500 tokens (\d+) questions lost (\d+) of .*, and (\d+) too long",
        message,
    )
    count, cut, choices, too_long = map(int, figures.groups())
    assert count == len(rows) == 2 * (3 * 30 - too_long) and too_long > 5
    assert choices == earlier_count - shown_count > cut > 5
