"""What is said about films: attributes, tallies, levels; a summary is read as it was written."""

import random

import pytest

from alignxplore.films.text import (
    LEVEL_WORDS,
    NOTHING,
    attributes,
    in_order,
    level_of,
    number,
    read_summary,
    reasoning_text,
    summary_text,
    tally,
    true_statements,
)
from alignxplore.records import Interaction

COMEDY, DRAMA = "Title: One (1994), Genres: Comedy", "Title: Two (1941), Genres: Drama|War"


@pytest.mark.parametrize(
    ("film", "names"),
    [
        ("Title: Toy Story (1995), Genres: Adventure|Comedy", ("1990s", "Adventure", "Comedy")),
        ("Title: Metropolis (1927), Genres: Drama|Sci-Fi", ("pre-1970", "Drama", "Sci-Fi")),
        ("Title: Woodstock (1970), Genres: Musical", ("1970s", "Musical")),
        ("Title: Seven (a.k.a. Se7en) (1995), Genres: Thriller", ("1990s", "Thriller")),
        ("Title: 2001: A Space Odyssey (1968), Genres: Drama", ("pre-1970", "Drama")),
        ("Title: War, Genres: of Drama (2003), Genres: Comedy", ("2000s", "Comedy")),
        ("Title: Babylon 5, Genres: Sci-Fi", ("Sci-Fi",)),
        ("Title: Green Room (2015), Genres: (no genres listed)", ("2010s",)),
        ("Title: Cosmos, Genres: (no genres listed)", ()),
        ("Title: Balto (1995), Genres: Animation|Children's|unknown", ("1990s", "Animation", "Children's", "unknown")),
        ("A book about 1995", ()),
        ("", ()),
    ],
)
def test_decade_and_genres_of_a_film(film, names):
    assert attributes(film) == names


def test_a_tally_counts_choices_and_what_was_known_before():
    history = [Interaction(COMEDY, DRAMA), Interaction(COMEDY)]
    assert tally(history) == {"Comedy": 2, "1990s": 2, "Drama": -1, "War": -1, "pre-1970": -1}
    past = [("Comedy", -2), ("Drama", 1), ("War", 2), ("Horror", -1)]
    assert tally(history, past) == {"Comedy": -2, "1990s": 2, "Drama": 1, "War": 3, "pre-1970": -1, "Horror": -2}


@pytest.mark.parametrize(
    ("count", "level", "text"),
    [(0, 0, "0"), (1, 1, "+1"), (3, 1, "+3"), (4, 2, "+4"), (5, 2, "+5"), (17, 2, "+5"), (-3, -1, "-3")]
    + [(-1, -1, "-1"), (-4, -2, "-4"), (-9, -2, "-5")],
)
def test_levels_and_numbers_of_counts(count, level, text):
    assert (level_of(count), number(count)) == (level, text)


def test_reasoning_tells_every_count_in_the_order_of_the_names():
    assert reasoning_text({"War": 7, "Comedy": -1}, ["Comedy", "Drama", "War"]) == "Counts: Comedy -1 Drama 0 War +5"


def test_a_summary_in_both_phrasings():
    statements = [("Comedy", 1), ("Film-Noir", 2), ("1990s", -2), ("War", -1)]
    assert summary_text(statements) == "Films: Comedy liked, Film-Noir loved, 1990s hated, War disliked."
    assert summary_text(statements, 1) == "Films: Comedy enjoyed, Film-Noir adored, 1990s loathed, War avoided."
    assert summary_text([]) == NOTHING


def test_summaries_are_read_as_they_were_written():
    rng = random.Random(0)
    names = ["Comedy", "Film-Noir", "pre-1970", "1990s", "Children's", "two words"]
    for _ in range(200):
        statements = [(rng.choice(names), rng.choice(list(LEVEL_WORDS))) for _ in range(rng.randint(0, 8))]
        assert read_summary(summary_text(statements, rng.randint(0, 1))) == statements


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("", []),
        (NOTHING, []),
        ("Films:", []),
        ("liked, loved", []),
        ("The user likes a good comedy.", []),
        ("Films: Comedy, Drama hated, War +2, Horror", [("Drama", -2)]),
        ("  Comedy liked, Comedy hated \n", [("Comedy", 1), ("Comedy", -2)]),
    ],
)
def test_what_has_another_form_tells_nothing(text, statements):
    assert read_summary(text) == statements


def test_true_statements_are_some_of_what_is_counted_at_its_level():
    counts = {"Comedy": 5, "Drama": -1, "War": 0, "Horror": -4, "1990s": 2}
    truth = {"Comedy": 2, "Drama": -1, "Horror": -2, "1990s": 1}
    names = set()
    for seed in range(40):
        statements = true_statements(counts, random.Random(seed), 2)
        assert len(dict(statements)) == 2 and statements == true_statements(counts, random.Random(seed), 2)
        assert all(truth[name] == level for name, level in statements)
        names |= {name for name, _ in statements}
        assert [name for name, _ in true_statements(counts, random.Random(seed), 2, True)] == ["Comedy", "Horror"]
    assert names == set(truth)
    assert dict(true_statements(counts, random.Random(0), 9)) == truth


def test_what_is_told_has_the_order_of_the_names_and_a_name():
    statements = [("War", 1), ("unknown", 2), ("Comedy", -1)]
    assert in_order(statements, ["Comedy", "Drama", "War"]) == [("Comedy", -1), ("War", 1)]
