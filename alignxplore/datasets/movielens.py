"""MovieLens → records. Every rated film counts as taken, whatever its stars, as in the published benchmark; with the
protocol liked one that got few stars is not chosen.

    python -m alignxplore.datasets build movielens --raw ml-latest-small --out movielens_upi.jsonl

Reads 100K (`u.data`), 1M and 10M (`ratings.dat`) and the CSV editions (20M, 25M, 32M, latest, latest-small), also as
Kaggle and pandas write them: `rating.csv` and `movie.csv`, quoted, with dates for times and other columns beside.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from alignxplore.datasets.building import Job
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.events import Raw, load
from alignxplore.datasets.parts import Records
from alignxplore.datasets.recommendation import build_records
from alignxplore.datasets.rows import check_id, check_once, csv_table, number_of_stars
from alignxplore.datasets.tables import csv_header, sql_id, sql_seconds, sql_stars, sql_table
from alignxplore.records import RecordError
from alignxplore.texts import table_id

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
_GENRE_NAMES = {
    "Children's": "Children"
}  # of 100K and 1M → as the newer editions call them, for equal texts of a film
# Ratings file, films file, what separates the fields of a rating.
_LAYOUTS = (
    ("ratings.csv", "movies.csv", ","),
    ("rating.csv", "movie.csv", ","),
    ("ratings.dat", "movies.dat", "::"),
    ("u.data", "u.item", "\t"),
)

_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"))  # that a table program may write
_RATING = ["userId", "movieId", "rating", "timestamp"]
_SCALE = (0.5, 5.0)  # stars; whole ones from 1 in the older editions
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


def is_of(job: Job, counts: Mapping[str, int]) -> bool:
    """Whether a folder holds the edition whose build left these `counts`, whatever its files are called: as many films
    and as many ratings. Ratings are only counted where there are as many films."""
    ratings, films, separator = _layout(job)
    if sum(1 for _ in _films(films, job)) != counts.get("films read"):
        return False
    return sum(1 for _ in _ratings(ratings, separator, job)) == counts.get("ratings read")


def _layout(job: Job) -> tuple[Path, Path, str]:
    """Ratings, films, and what separates the fields of a rating; ValueError for several editions."""
    layouts = []
    for name, films_name, separator in _LAYOUTS:
        for ratings in job.find(name, f"{name}.gz"):
            films = [
                path
                for path in (ratings.with_name(films_name), ratings.with_name(f"{films_name}.gz"))
                if path.is_file()
            ]
            has_unpacked = ratings.suffix == ".gz" and ratings.with_suffix("").is_file()
            if films and not has_unpacked:
                layouts.append((ratings, films[0], separator))
    if not layouts:
        raise job.unknown_layout()
    if len(layouts) > 1:
        names = ", ".join(str(ratings.relative_to(job.raw)) for ratings, *_ in layouts)
        raise ValueError(f"{job.raw}: holds several editions ({names}); give the folder of one")
    return layouts[0]


def build(job: Job) -> Records:
    """Records of a MovieLens folder, negatives drawn among the films that somebody rated."""
    ratings, films, separator = _layout(job)
    with Engine(job) as engine:
        catalogue = Catalogue(engine.folder)
        for key, title, genres in _films(films, job):
            job.counts["films read"] += 1
            key, title = table_id(key), job.plain(title)
            if key and title.strip():
                title = " ".join(title.split()) if "\n" in title else title  # a quoted one may go over several lines
                catalogue.add(key, f"Title: {title}, Genres: {_genres(job.plain(genres))}", "film", job)
            else:
                job.counts["dropped: a film without an id or a title"] += 1
        catalogue.sort()
        catalogue.close()
        statement = _statement(ratings, separator)
        rows = partial(_rows, ratings, separator, job)
        row_counts = load(engine, catalogue, statement, rows, path=ratings, ties="item")
        if row_counts.nameless:
            job.counts["dropped: a rating without a user or a film"] = row_counts.nameless
        job.counts["ratings read"] = row_counts.rows
        job.edition = _EDITIONS.get(row_counts.rows, f"{row_counts.rows:,} ratings")
        job.counts["dropped: the film is not listed"] = row_counts.unlisted
        return build_records(engine, catalogue, job, pool="taken", ties="item")


def _genres(text: str) -> str:
    return "|".join(_GENRE_NAMES.get(name, name) for name in text.split("|"))


def _films(path: Path, job: Job) -> Iterator[tuple[str, str, str]]:
    """(id, title, genres joined by |) of each film, in any of the three forms."""
    form = path.name.removesuffix(".gz").rpartition(".")[2]
    if form == "csv":
        for _, fields in _named(path, ("movieId", "title", "genres"), job):
            yield fields[0], fields[1], fields[2]
        return
    for number, line in job.lines(path, latin_1=True):
        fields = line.split("::") if form == "dat" else line.split("|")
        if len(fields) != (3 if form == "dat" else 24):
            raise RecordError(f"found {len(fields)} fields; the file is damaged or of another edition", path, number)
        if form == "dat":
            yield fields[0], fields[1], fields[2]
        else:
            genres = [name for name, flag in zip(_GENRES_100K, fields[5:], strict=True) if flag == "1"]
            yield fields[0], fields[1], "|".join(genres)


def _named(path: Path, names: Sequence[str], job: Job) -> Iterator[tuple[int, list[str]]]:
    """(line, the named fields) of each row of a CSV file, whatever other columns it has."""
    header, rows = csv_table(path, job)
    if absent_names := [name for name in names if name not in header]:
        if separator := next((name for mark, name in _SEPARATORS if len(header) == 1 and mark in header[0]), None):
            raise RecordError(f"fields parted by {separator}; part them by commas", path, 1)
        raise RecordError(f"expected the header {','.join(names)}, and {absent_names[0]} is not in it", path, 1)
    check_once(names, header, path)
    places = [header.index(name) for name in names]
    for number, fields in rows:
        yield number, [fields[place] for place in places]


def _ratings(path: Path, separator: str, job: Job) -> Iterator[tuple[int, list[str]]]:
    """(line, [user, film, stars, time]) of each rating."""
    if separator == ",":
        yield from _named(path, _RATING, job)
        return
    for number, line in job.lines(path):
        fields = line.split(separator)
        if len(fields) != 4:
            raise RecordError(
                f"'{line[:60]}' is not user{separator}film{separator}rating{separator}time", path, number
            )
        yield number, fields


def _seconds(time: str) -> int:
    """Seconds since 1970: a number (as pandas may write it, with .0), or a date and time in UTC; else a ValueError."""
    try:
        seconds = int(table_id(time))
    except ValueError:
        moment = datetime.fromisoformat(time.strip())
        seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if not -(1 << 63) <= seconds < 1 << 63:
        raise ValueError("so far from 1970 that no file of ratings means it")
    return seconds


def _statement(path: Path, separator: str) -> str | None:
    """What reads all ratings at once; see `tables.py`."""
    names = csv_header(path) if separator == "," else _RATING
    if any(names.count(name) != 1 for name in _RATING):
        return None
    user, film, stars, time = (f"c{names.index(name)}" for name in _RATING)
    table = sql_table(path, separator, len(names), skip=1 if separator == "," else 0)
    return f"""
        SELECT CASE "key" WHEN '' THEN '' ELSE "user" END AS "user", "key", time, stars
        FROM (SELECT {sql_id(user)} AS "user", {sql_id(film)} AS "key", {sql_seconds(time)} AS time,
            {sql_stars(stars, _SCALE)} AS stars FROM {table})"""


def _rows(path: Path, separator: str, job: Job) -> Iterator[Raw]:
    """Each rating, one by one."""
    for number, (user, film, rating, time) in _ratings(path, separator, job):
        try:
            moment = _seconds(time)
        except ValueError:
            problem = f"'{time[:60]}' is neither seconds since 1970 nor a time like 2005-04-02 23:53:47"
            raise RecordError(problem, path, number, "timestamp") from None
        stars = number_of_stars(rating, _SCALE, path, number, "rating")
        check_id(user, "userId", path, number)
        key = table_id(film)
        yield Raw(table_id(user) if key else "", key, moment, stars)
