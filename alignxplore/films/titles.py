"""Films by the titles that people type: "Heat (1995)", "the matrix", "Terminator 2", also without the year where it is
one film.

Tiny models read of a film its genres and decade only, so that a bare title tells them nothing. And they know choices
that answer one request, so that without it they write nothing (`python -m alignxplore.ask`, the demo).
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from alignxplore import datasets
from alignxplore.environment import ROOT
from alignxplore.films.text import attributes

REQUEST = datasets.get("movielens").default_query
MOVIES = ROOT / "data/movielens/ml-latest-small/movies.csv"
_ARTICLES = "the|a|an|le|la|les|l'|der|die|das|el|il"
_ARTICLE = re.compile(rf"^(.*), ({_ARTICLES})( \(.*)?$")
_LAST_ARTICLE = re.compile(rf", ({_ARTICLES})$", re.IGNORECASE)
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_BRACKETS = re.compile(r"\s*\((?:a\.k\.a\. )?([^()]*)\)")


def _key(title: str) -> str:
    """A title without what people write in different ways: case, an article that was moved, marks."""
    title = _ARTICLE.sub(r"\2 \1\3", title.lower().strip())
    return " ".join(re.findall(r"\w+", title))


def _short(title: str) -> Iterator[str]:
    """Shorter names: what stands in brackets, before them, or before a colon; without the article. "Seven (1995)" and
    "Se7en" of "Seven (a.k.a. Se7en) (1995)"."""
    year = match[0] if (match := _YEAR.search(title)) else ""
    body = title.removesuffix(year)
    article = match[0] if (match := _LAST_ARTICLE.search(body)) else ""
    plain = _LAST_ARTICLE.sub("", _BRACKETS.sub("", body))
    start = plain.partition(":")[0]
    for name in (plain, plain + article, start, start + article, *_BRACKETS.findall(body)):
        yield from (name, name + year)


@cache
def _known(path: Path = MOVIES) -> dict[str, str]:
    """Key → the film as the builder writes it. A title without its year, or a shorter name, is a key where one film
    alone has it; a shorter name moreover where it is no film's title."""
    films: dict[str, set[str]] = defaultdict(set)
    films_by_short: dict[str, set[str]] = defaultdict(set)
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            text = f"Title: {row['title']}, Genres: {row['genres']}"
            for name in (row["title"], _YEAR.sub("", row["title"])):
                films[_key(name)].add(text)
            for name in _short(row["title"]):
                films_by_short[_key(name)].add(text)
    return {key: min(texts) for key, texts in (films_by_short | films).items() if len(texts) == 1}


def complete(text: str) -> str:
    """A film with its genres where the text is a title that is known; any other text as it is."""
    return text if attributes(text) else _known().get(_key(text), text)


def unknown(items: Iterable[str]) -> list[str]:
    """Those items of which tiny models read nothing."""
    return [item for item in items if not attributes(item)]
