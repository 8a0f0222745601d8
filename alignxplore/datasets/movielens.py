"""MovieLens → records. Every rated film counts as taken, whatever its stars, as in the published benchmark; with the
protocol liked one that got few stars is not chosen.

    python -m alignxplore.datasets build movielens --raw ml-latest-small --out movielens_upi.jsonl

Reads 100K (`u.data`), 1M and 10M (`ratings.dat`) and the CSV editions (20M, 25M, 32M, latest, latest-small).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.recommendation import Catalogue, Event, build_records
from alignxplore.records import RecordError

# ml-100k marks genres by a row of 0/1 in this order.
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# Ratings file, films file, what separates the fields of a rating; CSV ratings hold numbers only, so no quotes.
_LAYOUTS = (("ratings.csv", "movies.csv", ","), ("ratings.dat", "movies.dat", "::"), ("u.data", "u.item", "\t"))

_EDITIONS = {
    100_000: "ml-100k",
    1_000_209: "ml-1m",
    10_000_054: "ml-10m",
    20_000_263: "ml-20m",
    25_000_095: "ml-25m",
    32_000_204: "ml-32m",
    100_836: "ml-latest-small",
}  # by their number of ratings


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads; FileNotFoundError for another layout."""
    ratings, films, _ = _layout(job)
    return [ratings, films]


def _layout(job: Job) -> tuple[Path, Path, str]:
    """Ratings, films, and what separates the fields of a rating; ValueError for several editions."""
    found = [
        (ratings, ratings.parent / films, separator)
        for name, films, separator in _LAYOUTS
        for ratings in job.find(name)
        if (ratings.parent / films).is_file()
    ]
    if not found:
        raise job.unknown_layout()
    if len(found) > 1:
        names = ", ".join(str(ratings.relative_to(job.raw)) for ratings, *_ in found)
        raise ValueError(f"{job.raw}: holds several editions ({names}); give the folder of one")
    return found[0]


def build(job: Job) -> Iterator[Example]:
    """Records of a MovieLens folder, negatives drawn among the films that somebody rated."""
    ratings, films, separator = _layout(job)
    catalogue = Catalogue(job.scratch)
    for key, title, genres in _films(films, job):
        job.counts["films read"] += 1
        catalogue.add(key, f"Title: {title}, Genres: {genres}")
    return build_records(_events(ratings, separator, catalogue, job), catalogue, job, pool="taken", ties="item")


def _films(path: Path, job: Job) -> Iterator[tuple[str, str, str]]:
    """(id, title, genres joined by |) of each film, in any of the three forms."""
    rows = job.lines(path, latin_1=path.suffix != ".csv")
    if path.suffix == ".csv":
        yield from ((row[0], row[1], row[2]) for row in _csv(rows, path))
        return
    for number, line in rows:
        fields = line.split("::") if path.suffix == ".dat" else line.split("|")
        if len(fields) != (3 if path.suffix == ".dat" else 24):
            raise RecordError(f"found {len(fields)} fields; the file is damaged or of another edition", path, number)
        if path.suffix == ".dat":
            yield fields[0], fields[1], fields[2]
        else:
            genres = [name for name, flag in zip(_GENRES_100K, fields[5:], strict=True) if flag == "1"]
            yield fields[0], fields[1], "|".join(genres)


def _csv(rows: Iterator[tuple[int, str]], path: Path) -> Iterator[list[str]]:
    if next(csv.reader([next(rows, (1, ""))[1]]), None) != ["movieId", "title", "genres"]:
        raise RecordError("expected the header movieId,title,genres", path, 1)
    for number, line in rows:
        row = next(csv.reader([line]), [])
        if len(row) != 3:
            raise RecordError(f"found {len(row)} fields, expected movieId,title,genres", path, number)
        yield row


def _events(path: Path, separator: str, catalogue: Catalogue, job: Job) -> Iterator[Event]:
    """Each rating of a listed film."""
    index, unlisted, number = catalogue.index, 0, 0
    rows = job.lines(path)
    if separator == "," and next(rows, (1, ""))[1] != "userId,movieId,rating,timestamp":
        raise RecordError("expected the header userId,movieId,rating,timestamp", path, 1)
    for number, line in rows:
        try:
            user, film, rating, time = line.split(separator)
            moment, stars = int(time), float(rating)
        except ValueError:
            raise RecordError(
                f"'{line[:60]}' is not user{separator}film{separator}rating{separator}time", path, number
            ) from None
        if film in index:
            yield Event(user, moment, index[film], stars)
        else:
            unlisted += 1
    job.counts["ratings read"] = number - (separator == ",")
    job.edition = _EDITIONS.get(job.counts["ratings read"], f"{job.counts['ratings read']:,} ratings")
    job.counts["dropped: the film is not listed"] = unlisted
