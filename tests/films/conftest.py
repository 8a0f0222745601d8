"""Windows of real films, and a tokenizer that is learnt from them."""

import csv
import random

import pytest

from alignxplore.films.lessons import Words
from alignxplore.films.model import known_attributes, make_tokenizer
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord
from tests import ROOT

QUERY = "Which film will the user watch?"


@pytest.fixture(scope="session")
def films() -> list[str]:
    """All of MovieLens latest-small, as the builder writes them."""
    with (ROOT / "data/movielens/ml-latest-small/movies.csv").open(encoding="utf-8") as file:
        return [f"Title: {title}, Genres: {genres}" for _, title, genres in list(csv.reader(file))[1:]]


@pytest.fixture(scope="session")
def windows(films) -> list[UserRecord]:
    """Twelve choices and a target in each of 60 windows of 20 persons; the films are drawn."""
    rng, records = random.Random(1), []
    for number in range(60):
        pairs = [Interaction(*rng.sample(films, 2), QUERY) for _ in range(13)]
        records.append(UserRecord(f"{number % 20}#{number // 20}", tuple(pairs[:-1]), pairs[-1]))
    return records


@pytest.fixture(scope="session")
def words(windows) -> Words:
    """What the tokens of the tokenizer stand for that is learnt from these windows."""
    return Words(make_tokenizer(known_attributes(windows), [QUERY], PromptSet()))
