"""Films by the titles that people type."""

import pytest

from alignxplore.films.titles import complete, unknown

HEAT = "Title: Heat (1995), Genres: Action|Crime|Thriller"
RINGS = "Lord of the Rings: The Fellowship of the Ring, The"
MATRIX = "Title: Matrix, The (1999), Genres: Action|Sci-Fi|Thriller"


@pytest.mark.parametrize(
    ("typed", "film"),
    [
        ("Heat (1995)", HEAT),
        ("  heat  ", HEAT),
        (HEAT, HEAT),
        ("The Matrix (1999)", MATRIX),
        ("matrix, the", MATRIX),
        ("the matrix", MATRIX),
        ("Title: My own (2001), Genres: Drama", "Title: My own (2001), Genres: Drama"),
        ("No such film (1901)", "No such film (1901)"),
        ("Hamlet", "Hamlet"),  # several films
        ("Seven (1995)", "Title: Seven (a.k.a. Se7en) (1995), Genres: Mystery|Thriller"),
        ("se7en", "Title: Seven (a.k.a. Se7en) (1995), Genres: Mystery|Thriller"),
        ("Terminator 2", "Title: Terminator 2: Judgment Day (1991), Genres: Action|Sci-Fi"),
        ("The Lord of the Rings (2001)", f"Title: {RINGS} (2001), Genres: Adventure|Fantasy"),
        ("lion king", "Title: Lion King, The (1994), Genres: Adventure|Animation|Children|Drama|Musical|IMAX"),
        ("Girl", "Girl"),  # and not Girl, Interrupted
        ("Star Wars", "Star Wars"),  # several again
        ("", ""),
    ],
)
def test_a_title_becomes_the_film(typed, film):
    assert complete(typed) == film


def test_what_tells_nothing_is_named():
    assert unknown([HEAT, "Up", "x"]) == ["Up", "x"]
