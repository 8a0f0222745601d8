"""Films by the titles that people type: "Heat (1995)", "the matrix", also without the year where it is one film.

Tiny models read of a film its genres and decade only, so that a bare title tells them nothing. And they know choices
that answer one request, so that without it they write nothing (`python -m alignxplore.ask`, the demo).
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from alignxplore import datasets
from alignxplore.environment import ROOT
from alignxplore.films.text import attributes

REQUEST = datasets.get("movielens").default_query
MOVIES = ROOT / "data/movielens/ml-latest-small/movies.csv"
_ARTICLE = re.compile(r"^(.*), (the|a|an|le|la|les|l'|der|die|das|el|il)( \(.*)?$")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")


def _key(title: str) -> str:
    """A title without what people write in different ways: case, an article that was moved, marks."""
    title = _ARTICLE.sub(r"\2 \1\3", title.lower().strip())
    return " ".join(re.findall(r"\w+", title))


@cache
def _known(path: Path = MOVIES) -> dict[str, str]:
    """Key → the film as the builder writes it. A title without its year is a key where no other film has it."""
    films: dict[str, set[str]] = defaultdict(set)
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            text = f"Title: {row['title']}, Genres: {row['genres']}"
            films[_key(row["title"])].add(text)
            films[_key(_YEAR.sub("", row["title"]))].add(text)
    return {key: min(texts) for key, texts in films.items() if len(texts) == 1}


def complete(text: str) -> str:
    """A film with its genres where the text is a title that is known; any other text as it is."""
    return text if attributes(text) else _known().get(_key(text), text)


def unknown(items: Iterable[str]) -> list[str]:
    """Those items of which tiny models read nothing."""
    return [item for item in items if not attributes(item)]
