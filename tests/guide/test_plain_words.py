"""Texts that are read in one go: sentences of at most 25 words, a README of at most 150 lines."""

import pytest

from alignxplore.guide.site import tracked
from tests import ROOT
from tests.guide.sentences import long_ones, sentences, words

PAGES = [name for name in tracked() if name.endswith(".md") and not name.startswith("data/")]


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_of_a_page_is_longer_than_25_words(page):
    assert long_ones((ROOT / page).read_text()) == []


def test_the_readme_fits_150_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_a_sentence_is_counted_as_it_is_read():
    text = "# A heading\n\nOne `piece of code` and [a link](there.md).\n\n| a | table |\n\n- First: Second.\n- No; no."
    assert [words(one) for one in sentences(text)] == [5, 1, 1, 1, 1]
    assert list(sentences("It gains 4.1 points [1.2, 7.0]. Done.\n\n```\ncode. More. \n```\n")) == [
        "It gains 4.1 points [1.2, 7.0].",
        "Done.",
    ]
    assert words("It gains 4.1 points [1.2, 7.0].") == 4
    assert len(long_ones("word " * 26)) == 1 and not long_ones("word " * 25)
