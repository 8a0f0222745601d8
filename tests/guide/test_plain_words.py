"""Texts that are read in one go: sentences of at most 25 words, a README of at most 150 lines."""

from dataclasses import fields

import pytest

from alignxplore.guide.site import tracked
from alignxplore.sft.configuration import DataArguments, TrainArguments
from tests import ROOT
from tests.guide.sentences import cells, help_texts, long_ones, sentences, words

PAGES = [name for name in tracked() if name.endswith(".md") and not name.startswith("data/")]


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_of_a_page_is_longer_than_25_words(page):
    assert long_ones((ROOT / page).read_text()) == []


OTHERS = {"alignxplore/torchrun.py", "sft/sft.py"}  # pass on the options of torchrun and of TRL


def test_no_sentence_of_a_help_is_longer_than_25_words(helps_of):
    wrong = {}
    for one, helps in helps_of.items():
        texts = [text.partition("\noptions:\n")[0] if one.path.as_posix() in OTHERS else text for text in helps]
        if long := [sentence for text in texts for part in help_texts(text) for sentence in long_ones(part)]:
            wrong[one.command] = long
    own_texts = [
        one.metadata["help"]
        for kind in (DataArguments, TrainArguments)
        for one in fields(kind)
        if one.name in vars(kind)["__annotations__"]
    ]
    assert len(helps_of) > 70 and len(own_texts) > 10 and wrong == {}
    assert [sentence for text in own_texts for sentence in long_ones(text)] == []


def test_a_help_is_read_in_its_parts():
    help_text = """usage: script.py [-h]
                 [--out OUT]

What it does,
and how. More.

    python script.py --out DIR       the folder
                                     DIR
    python script.py
Afterwards: nothing.

options:
  --out OUT             where to
                        (default: here)
"""
    assert [text.strip() for text in help_texts(help_text) if text.strip()] == [
        "What it does, and how. More.",
        "the folder DIR",
        "Afterwards: nothing.",
        "options:",
        "where to",
    ]


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
    assert list(cells("| One. Two | `a` (first), `b` |\n|---|---|\n")) == [
        "One.",
        "Two",
        "`a` (first)",
        "`b`",
        "---",
        "---",
    ]
    assert len(long_ones(f"| a | {'word ' * 26}|\n")) == 1
    assert len(long_ones("word " * 26)) == 1 and not long_ones("word " * 25)
