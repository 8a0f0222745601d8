"""The lessons of studies/stream_lessons.py: what a place is said to show is what stands there, and what was taken before it."""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

from stream_lessons import CLASSES, OPPOSITE, lessons

from alignxplore.world_text import item_values

NAMES = {place: name for name, place in CLASSES.items()}


def test_votes_say_what_the_text_shows_and_letters_are_learnt(tokenizer):
    for lesson in lessons(1, 12, 8, tokenizer):
        votes: dict[int, list[tuple[str, str]]] = {}
        for place, number in lesson.votes:
            votes.setdefault(place, []).append(NAMES[number])
        assert len(lesson.learn) == 8
        seen, before = Counter(), 0
        for place in lesson.learn:
            text, letter = tokenizer.decode(lesson.ids[before:place]), tokenizer.decode(lesson.ids[place]).strip()
            assert text.endswith("Choice:") and letter in "AB"
            items = {name: item_values(text.partition(f"Item {name}: ")[2].partition("\n")[0]) for name in "AB"}
            told = [votes.pop(at) for at in sorted(votes) if at < place]
            assert [value for (_, value), _ in told if value] == items["A"] + items["B"]
            for (kind, value), (past, says) in told:
                assert (kind, past) == ("shows", "past")
                lead = seen[value] - seen[OPPOSITE[value]] if value else 0
                assert says == ("nothing" if not lead else "for" if lead > 0 else "against")
            other = "B" if letter == "A" else "A"
            taken = [*items[letter], *(OPPOSITE[value] for value in items[other])]
            assert Counter(votes.pop(place)) == Counter(("taken", value) for value in taken)
            seen.update(taken)
            before = place + 1
        assert not votes
