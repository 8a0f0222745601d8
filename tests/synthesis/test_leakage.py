"""What a teacher saw as a hint must not reach what is trained: what counts as naming it, and what becomes of a merge
that does."""

import json

import pytest

from alignxplore.records import Interaction
from alignxplore.synthesis.leakage import named
from alignxplore.synthesis.outputs import EXAMPLES
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import GOOD, MERGED, MERGING, Models, leaking

FILMS = Interaction("Title: Lion King, The (1994), Genres: Drama|IMAX", "Title: Romance (1999), Genres: Drama|Romance")
CRIME = Interaction("Title: True Crime (1999), Genres: Crime", "Title: Up (2009), Genres: Children")
NEWS = Interaction(
    "Title: Seven things that nobody ever told you about the moon\nAbstract: They are odd.",
    "Title: Who won?\nAbstract: Nobody.",
)
ANSWER = Interaction("Dear friend, take the early train\n- it is cheap", "No.")
TOKYO = Interaction("東京物語", "晩春")


@pytest.mark.parametrize(
    ("text", "hint", "is_named"),
    [
        ("Item A is a comedy, so", FILMS, ["Item A"]),
        ("both items B and", FILMS, ["items B"]),
        ("would pick option “B” here", FILMS, ["option “B"]),
        ("items. A good story pleases; buys an item a month", FILMS, []),
        ("would love The Lion King most", FILMS, ["Lion King"]),
        ("would love a lion king", FILMS, []),
        ("as in 'Lion King, The (1994)'", FILMS, ["Lion King, The (1994", "Lion King"]),
        ("Films: Romance loved, Drama liked, 1990s loved.", FILMS, []),
        ('the pair holds "Romance", which', FILMS, ['"Romance"']),
        ("Romance (1999) is too slow", FILMS, ["Romance (1999"]),
        ("likes true crime and what looks up", CRIME, []),
        ("likes True Crime", CRIME, ["True Crime"]),
        (
            "read seven things that nobody ever told you about it",
            NEWS,
            ["seven things that nobody ever told you about"],
        ),
        ("asks who won? and why", NEWS, []),
        ("Dear friend, take the early train", ANSWER, ["Dear friend, take the early train"]),
        ("No. Nothing else.", ANSWER, []),
        ("喜欢《東京物語》", TOKYO, ["東京物語"]),
    ],
)
def test_a_pair_is_named_by_letter_title_or_first_line(text, hint, is_named):
    assert named(text, [Interaction("Other thing here", "else"), hint], "") == is_named


def test_each_item_of_each_hinted_pair_is_looked_for():
    hints = [Interaction(f"Number {word} of the chosen", f"Number {word} of the others") for word in "abcde"]
    for hint in hints:
        for item in hint.items:
            assert named(f"would take {item.lower()} now", hints, "") == [item.lower()]
    assert len(named(" ".join(item for hint in hints for item in hint.items), hints, "")) == 10


def test_what_the_policy_reads_itself_may_be_named():
    text = "watched Lion King, and Item A"
    assert named(text, [FILMS], "Chosen: Title: Lion King, The (1994)") == ["Item A"]
    assert named(text, [FILMS], "Item A: Lion King, The") == []


async def test_a_user_whose_merge_names_a_hint_falls_and_is_shown(fake_server, tokenizer, arguments, tmp_path):
    async with fake_server(Models(tokenizer, leaking)) as server:
        counts = await synthesise(arguments(server.url, users=24))
    fell = [counts["outcomes"][f"merge_names_hint_{number}"] for number in (1, 2)]
    assert min(fell) > 0 and counts["outcomes"] == dict(zip(("merge_names_hint_1", "merge_names_hint_2"), fell)) | {
        DONE: 24 - sum(fell)
    }
    counts_of_step = counts["left"]
    assert counts_of_step["round 1: merged"] - counts_of_step["round 1: hint not named"] == fell[0]
    rows = [json.loads(line)["completion"][0]["content"] for line in (tmp_path / "out/sft.jsonl").open()]
    assert len(rows) == counts["sft_rows"] > 0 and set(rows) == {GOOD}, "not one leaking row"
    merges = [json.loads(line)["rounds"][-1]["merge"] for line in (tmp_path / "out/failures.jsonl").open()]
    assert len(merges) == sum(min(EXAMPLES, number) for number in fell)
    assert all(merge["named"] and merge["named"][0] in merge["text"] for merge in merges)


@pytest.mark.parametrize("part", ["reasoning", "summary"])
async def test_reasoning_and_summary_are_both_looked_at(through, part):
    part_text = {"reasoning": "chooses red", "summary": "Likes red."}[part]

    def say(text: str) -> str:
        return MERGED.replace(part_text, f"{part_text} Item B suits.") if MERGING in text else GOOD

    row, _ = await through(say=say)
    assert (row["outcome"], row["rounds"][0]["merge"]["named"]) == ("merge_names_hint_1", ["Item B"])
