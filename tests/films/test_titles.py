"""Films by the titles that people type."""

import pytest

from alignxplore.films.titles import complete, unknown

HEAT = "Title: Heat (1995), Genres: Action|Crime|Thriller"
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
        ("", ""),
    ],
)
def test_a_title_becomes_the_film(typed, film):
    assert complete(typed) == film


def test_what_tells_nothing_is_named():
    assert unknown([HEAT, "Up", "x"]) == ["Up", "x"]
