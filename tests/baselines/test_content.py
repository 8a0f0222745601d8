"""Content tally: what is read of a film's text, how counts decide, and what it foresees of real people."""

import pytest

from alignxplore.baselines.content import attributes, foresee, tally
from alignxplore.records import Interaction

COMEDY, DRAMA = "Title: One (1994), Genres: Comedy", "Title: Two (2003), Genres: Drama|War"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (COMEDY, ("Comedy", "1990s")),
        (DRAMA, ("Drama", "War", "2000s")),
        ("Title: Odd, Genres: of (1971), Genres: Comedy", ("Comedy", "1970s")),
        ("Title: Babylon 5, Genres: Sci-Fi", ("Sci-Fi",)),
        ("Title: (500) Days (2009), Genres: (no genres listed)", ("2000s",)),
        ("Title: A book\nDescription: about Genres: all", ()),
        ("", ()),
    ],
)
def test_a_films_genres_and_decade_are_read_and_nothing_of_other_texts(text, names):
    assert attributes(text) == names


def test_what_was_passed_over_counts_against_it():
    counts = tally([Interaction(COMEDY, DRAMA), Interaction(COMEDY, None)])
    assert counts == {"Comedy": 2, "1990s": 2, "Drama": -1, "War": -1, "2000s": -1}


@pytest.mark.parametrize(
    ("chosen", "rejected", "score"),
    [(COMEDY, DRAMA, 1.0), (DRAMA, COMEDY, 0.0), (COMEDY, COMEDY, 0.5), ("x", "y", None)],
)
def test_the_greater_sum_is_foreseen(chosen, rejected, score):
    assert foresee([Interaction(COMEDY, DRAMA)], Interaction(chosen, rejected)) == score


def test_a_film_with_many_genres_is_not_ahead_for_their_number():
    history = [Interaction(DRAMA), Interaction(COMEDY), Interaction(COMEDY)]
    many = Interaction(COMEDY, "Title: Three (2004), Genres: Drama|War|Comedy")
    assert foresee(history, many) == 1.0  # 4 / 2 ** 0.5 against 5 / 2
