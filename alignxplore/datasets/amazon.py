"""Amazon reviews → records, one category at a time. Every reviewed product counts as taken, whatever its stars (the
protocol liked apart).

    python -m alignxplore.datasets build amazon --raw DIR --out amazon_upi.jsonl

Reads the 2018 files (`Books_5.json.gz` and `meta_Books.json.gz`) and the 2023 ones (`Books.jsonl.gz` and
`meta_Books.jsonl.gz`, side by side or in `review_categories` and `meta_categories` as on the hub), packed or not. In
place of the reviews of 2023 the ready-made 5-core ratings will do (`Books.csv` or `Books.parquet`: user_id,
parent_asin, rating, timestamp), and Parquet in place of the metadata.
Where the rejected product comes from:

* published: any product with a title, reviewed or not. Most were never reviewed, so being reviewed at all gives the
  chosen one away.
* reviewed: any product that somebody reviewed.
* matched: a reviewed product about as popular; a choice of one of the least or most popular products, which have no
  match, is dropped and counted.
* matched_both: a reviewed product about as popular over all time and before the review.
* liked: as matched_both, and a product with few stars is not chosen, but may be the rejected one of the same user.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from alignxplore.datasets.building import Job
from alignxplore.datasets.catalogue import Catalogue
from alignxplore.datasets.engine import Engine
from alignxplore.datasets.events import Raw, load
from alignxplore.datasets.parts import Records
from alignxplore.datasets.recommendation import build_records
from alignxplore.datasets.rows import check_id, number_of_stars, objects, read_rows
from alignxplore.datasets.tables import json_is_plain, sql_json, sql_name, sql_stars, sql_whole
from alignxplore.records import RecordError
from alignxplore.texts import table_id

_TABLES = ("csv", "parquet")  # forms that need no JSON
# Names of fields in 2018 and 2023.
_USER, _KEY = ("reviewerID", "user_id"), ("parent_asin", "asin")
_TIME, _STARS = ("unixReviewTime", "timestamp"), ("overall", "rating")
_SCALE = (0.0, 5.0)  # stars; reviews are written from 1, and 0 says no more than that


def build(job: Job) -> Records:
    """Records of the one category in the raw folder."""
    reviews, products = sources(job)
    category, _, form = reviews.name.removesuffix(".gz").partition(".")
    job.edition = f"{category} of 2018" if form == "json" else f"{category} of 2023"
    if form in _TABLES:
        job.edition += ", ready-made ratings"  # of 5-core users, as a rule
    with Engine(job) as engine:
        catalogue = Catalogue(engine.folder)
        for number, row in _products(products, engine) or _rows(products, job):
            job.counts["products read"] += 1
            key, title = row.get("parent_asin") or row.get("asin"), row.get("title")
            if not isinstance(key, str):
                raise RecordError("missing; is this the metadata of the same edition?", products, number, "asin")
            title = job.plain(title) if isinstance(title, str) else ""
            if title.strip():
                catalogue.add(key, product_text(title, row.get("description"), job.plain), "product", job)
            else:
                job.counts["dropped: a product without a title"] += 1
        catalogue.sort()
        catalogue.close()
        rows = partial(_reviews, reviews, job)
        statement = _statement(reviews, job) if json_is_plain(reviews, engine) else None
        row_counts = load(engine, catalogue, statement, rows, path=reviews, ties="row")
        job.counts["reviews read"] = row_counts.rows
        if row_counts.nameless:
            job.counts["dropped: a review without a user"] = row_counts.nameless
        if row_counts.unlisted:
            job.counts["dropped: the product has no title or is not listed"] = row_counts.unlisted
        # The 2018 times are days, and most users wrote several reviews on one: as published, the rows' order decides.
        return build_records(engine, catalogue, job, pool="catalogue", ties="row")


def product_text(title: str, description: object, clean: Callable[[str], str] = str) -> str:
    """What a reader sees of a product. A description is a list of paragraphs in most rows, one text in some; `clean`
    takes the HTML out of them."""
    paragraphs = description if isinstance(description, list) else [description]
    text = clean(" ".join(" ".join(x.split()) for x in paragraphs if isinstance(x, str) and x.strip()))
    return f"Title: {' '.join(title.split())}" + (f"\nDescription: {text}" if text else "")


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads: reviews and metadata of one category; of a file that is there packed and
    unpacked the unpacked one."""
    pairs: dict[tuple, tuple[Path, Path]] = {}
    for products in job.find(*(f"meta_*.{ending}" for ending in ("json", "json.gz", "jsonl", "jsonl.gz", "parquet"))):
        category, _, ending = products.name.removeprefix("meta_").partition(".")
        form = ending.removesuffix(".gz")
        names = [
            f"{category}{core}.{kind}{suffix}"
            for kind in ([form] if form == "json" else ["jsonl", *_TABLES])
            for core in ("_5", "")
            for suffix in ("", ".gz")
        ]
        folder = (
            products.parent.with_name("review_categories")
            if products.parent.name == "meta_categories"
            else products.parent
        )
        reviews = next((folder / name for name in names if (folder / name).is_file()), None)
        if reviews:
            pairs.setdefault((products.parent, category, form), (reviews, products))
    if not pairs:
        raise job.unknown_layout()
    if len(pairs) > 1:
        names_of_pairs = ", ".join(str(reviews.relative_to(job.raw)) for reviews, _ in pairs.values())
        raise ValueError(f"{job.raw}: holds several categories or editions ({names_of_pairs}); give a folder with one")
    return list(next(iter(pairs.values())))


def _rows(path: Path, job: Job) -> Iterator[tuple[int, dict]]:
    return read_rows(path, job) if path.name.removesuffix(".gz").rpartition(".")[2] in _TABLES else objects(path, job)


def _statement(path: Path, job: Job) -> str | None:
    """What reads all reviews at once; see `tables.py`."""
    columns = sql_json(path, (*_USER, *_KEY, *_TIME, *_STARS))
    if columns is None:
        return None
    user, time = f"coalesce({', '.join(_USER)})", f"coalesce({', '.join(_TIME)})"
    stars_field = f"coalesce({', '.join(_STARS)})"
    stars = sql_stars(f"({stars_field}->>'$')", _SCALE)
    if job.protocol != "liked":
        stars = f"CASE WHEN {stars_field} IS NULL THEN 0 ELSE {stars} END"
    parent, key = (f"({name}->>'$')" for name in _KEY)
    return f"""
        SELECT CASE WHEN json_type({user}) = 'VARCHAR' THEN {sql_name(f"({user}->>'$')")} END AS "user",
            CASE WHEN json_type(parent_asin) <> 'VARCHAR' THEN NULL WHEN {parent} <> '' THEN {parent}
                WHEN json_type(asin) = 'VARCHAR' THEN {key} END AS "key",
            CASE WHEN json_type({time}) IN ('UBIGINT', 'VARCHAR') THEN {sql_whole(f"({time}->>'$')")} END AS time,
            {stars} AS stars
        FROM ({columns})"""


def _products(path: Path, engine: Engine) -> Iterator[tuple[int, dict]] | None:
    """(number, row) of each product, read at once; None where a row must be looked at."""
    columns = sql_json(path, (*_KEY, "title", "description"))
    odd = "json_type(coalesce(parent_asin, asin)) IS DISTINCT FROM 'VARCHAR' OR coalesce(parent_asin, asin)->>'$' = ''"
    if columns is None or not json_is_plain(path, engine) or not engine.reads("products", columns, odd, path):
        return None
    rows = engine.rows("SELECT * FROM products")
    return (
        (number, dict(zip((*_KEY, "title", "description"), map(_value, row)))) for number, row in enumerate(rows, 1)
    )


def _value(text: str | None) -> object:
    return None if text is None else json.loads(text)


def _reviews(path: Path, job: Job) -> Iterator[Raw]:
    """Each review, one by one; 2023 rows name their fields differently."""
    for number, row in _rows(path, job):
        user, time = row.get("reviewerID", row.get("user_id")), row.get("unixReviewTime", row.get("timestamp"))
        key = row.get("parent_asin") or row.get("asin")
        if isinstance(time, str) and table_id(time).removeprefix("-").isdecimal():  # a CSV holds text alone
            time = int(table_id(time))
        elif isinstance(time, float) and time.is_integer():
            time = int(time)
        for field, value, kind in (("reviewerID", user, str), ("asin", key, str), ("unixReviewTime", time, int)):
            if not isinstance(value, kind):
                raise RecordError(
                    f"expected {kind.__name__}, found {value!r} (2023 files: user_id, parent_asin, timestamp)",
                    path,
                    number,
                    field,
                )
        if not -(1 << 63) <= int(time or 0) < 1 << 63:
            raise RecordError(
                f"{str(time)[:30]} ... is no time; repair or delete this line", path, number, "unixReviewTime"
            )
        check_id(str(user), "reviewerID", path, number)
        nameless = not table_id(str(user))
        yield Raw("" if nameless else str(user), str(key), int(time or 0), _stars(row, path, number, job))


def _stars(row: dict, path: Path, number: int, job: Job) -> float:
    """They may be missing (0), except for the protocol `liked`."""
    stars = row.get("overall", row.get("rating"))
    if job.protocol != "liked" and stars in (None, ""):
        return 0.0
    return number_of_stars(stars, _SCALE, path, number, "overall")
