"""What a statement rests on."""

from alignxplore.ask.evidence import LONGEST, MOST, Statement, statements
from alignxplore.records import Interaction


def film(year: int, *genres: str) -> str:
    return f"Title: Film ({year}), Genres: {'|'.join(genres)}"


def test_what_was_chosen_speaks_for_a_liking_and_what_was_passed_over_for_a_dislike():
    history = [
        Interaction(film(1995, "Comedy"), film(1965, "War")),
        Interaction(film(1991, "War"), film(2004, "Comedy")),
        Interaction(film(2004, "Comedy", "War")),
    ]
    assert statements("Films: Comedy loved, War hated, 1990s liked, pre-1970 disliked, Western liked.", history) == [
        Statement("Comedy loved", chosen=(0, 2), rejected=(1,), sign=1),
        Statement("War hated", chosen=(1, 2), rejected=(0,), sign=-1),
        Statement("1990s liked", chosen=(0, 1), sign=1),
        Statement("pre-1970 disliked", rejected=(0,), sign=-1),
        Statement("Western liked"),
    ]


def test_attributes_are_known_of_the_simulated_world_too():
    history = [Interaction("a farce on a ship", "a thriller in the city"), Interaction("a manhunt", "a satire")]
    assert statements("Likes humour. Dislikes the sea.", history) == [
        Statement("Likes humour", chosen=(0,), rejected=(1,), sign=1),
        Statement("Dislikes the sea", chosen=(0,), sign=-1),
    ]


def test_other_statements_rest_on_the_items_that_share_their_rare_words():
    history = [Interaction(f"a story of {word}", f"a story without {word}") for word in ("whales", "cars", "the sea")]
    claims = statements("Likes whales and stories.\nPrefers the sea! Nothing of this", history)
    assert [statement.text for statement in claims] == [
        "Likes whales and stories",
        "Prefers the sea!",
        "Nothing of this",
    ]
    assert [(statement.chosen, statement.rejected) for statement in claims] == [((0,), (0,)), ((2,), (2,)), ((), ())]


def test_it_is_bounded_and_takes_anything():
    history = [Interaction(f"rare {n}", None) for n in range(50)] + [Interaction("other")]
    assert len(statements("rare. " * 1000, history)) == LONGEST
    assert len(statements("rare", history)[0].chosen) == MOST
    assert statements("", history) == [] and statements("Films: ", history) == []
    assert statements("x" * 1_000_000, [Interaction("y" * 1_000_000)])[0].chosen == ()
