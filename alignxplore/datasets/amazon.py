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

from collections.abc import Callable, Iterator
from pathlib import Path

from alignxplore.datasets.building import Example, Job
from alignxplore.datasets.recommendation import Catalogue, Event, build_records
from alignxplore.datasets.rows import check_id, objects, read_rows
from alignxplore.records import RecordError
from alignxplore.texts import table_id

_TABLES = ("csv", "parquet")  # forms that need no JSON


def build(job: Job) -> Iterator[Example]:
    """Records of the one category in the raw folder."""
    reviews, products = sources(job)
    category, _, form = reviews.name.removesuffix(".gz").partition(".")
    job.edition = f"{category} of 2018" if form == "json" else f"{category} of 2023"
    if form in _TABLES:
        job.edition += ", ready-made ratings"  # of 5-core users, as a rule
    catalogue = Catalogue(job.scratch)
    for number, row in _rows(products, job):
        job.counts["products read"] += 1
        key, title = row.get("parent_asin") or row.get("asin"), row.get("title")
        if not isinstance(key, str):
            raise RecordError("missing; is this the metadata of the same edition?", products, number, "asin")
        title = job.plain(title) if isinstance(title, str) else ""
        if title.strip():
            catalogue.add(key, product_text(title, row.get("description"), job.plain))
        else:
            job.counts["dropped: a product without a title"] += 1
    # The 2018 times are days, and most users wrote several reviews on one: as published, the order of rows decides.
    return build_records(_events(reviews, catalogue, job), catalogue, job, pool="catalogue", ties="row")


def product_text(title: str, description: object, plain: Callable[[str], str] = str) -> str:
    """What a reader sees of a product. A description is a list of paragraphs in most rows, one text in some; `plain`
    takes the HTML out of them."""
    paragraphs = description if isinstance(description, list) else [description]
    text = plain(" ".join(" ".join(x.split()) for x in paragraphs if isinstance(x, str) and x.strip()))
    return f"Title: {' '.join(title.split())}" + (f"\nDescription: {text}" if text else "")


def sources(job: Job) -> list[Path]:
    """The raw files that `build` reads: reviews and metadata of one category; of a file that is there packed and
    unpacked the unpacked one."""
    found: dict[tuple, tuple[Path, Path]] = {}
    for products in job.find(*(f"meta_*.{ending}" for ending in ("json", "json.gz", "jsonl", "jsonl.gz", "parquet"))):
        category, _, ending = products.name.removeprefix("meta_").partition(".")
        form = ending.removesuffix(".gz")
        names = [
            f"{category}{core}.{kind}{packed}"
            for kind in ([form] if form == "json" else ["jsonl", *_TABLES])
            for core in ("_5", "")
            for packed in ("", ".gz")
        ]
        folder = (
            products.parent.with_name("review_categories")
            if products.parent.name == "meta_categories"
            else products.parent
        )
        reviews = next((folder / name for name in names if (folder / name).is_file()), None)
        if reviews:
            found.setdefault((products.parent, category, form), (reviews, products))
    if not found:
        raise job.unknown_layout()
    if len(found) > 1:
        several = ", ".join(str(reviews.relative_to(job.raw)) for reviews, _ in found.values())
        raise ValueError(f"{job.raw}: holds several categories or editions ({several}); give a folder with one")
    return list(next(iter(found.values())))


def _rows(path: Path, job: Job) -> Iterator[tuple[int, dict]]:
    return read_rows(path, job) if path.name.removesuffix(".gz").rpartition(".")[2] in _TABLES else objects(path, job)


def _events(path: Path, catalogue: Catalogue, job: Job) -> Iterator[Event]:
    """Each review of a titled product; 2023 rows name their fields differently."""
    index = catalogue.index
    for number, row in _rows(path, job):
        job.counts["reviews read"] += 1
        user, time = row.get("reviewerID", row.get("user_id")), row.get("unixReviewTime", row.get("timestamp"))
        key = row.get("parent_asin") or row.get("asin")
        if isinstance(time, str) and time.isdecimal():  # a CSV holds text alone
            time = int(time)
        for field, value, kind in (("reviewerID", user, str), ("asin", key, str), ("unixReviewTime", time, int)):
            if not isinstance(value, kind):
                raise RecordError(
                    f"expected {kind.__name__}, found {value!r} (2023 files: user_id, parent_asin, timestamp)",
                    path,
                    number,
                    field,
                )
        check_id(str(user), "reviewerID", path, number)
        if not table_id(str(user)):
            job.counts["dropped: a review without a user"] += 1
        elif key in index:
            yield Event(str(user), int(time or 0), index[key], _stars(row, path, number, job))
        else:
            job.counts["dropped: the product has no title or is not listed"] += 1


def _stars(row: dict, path: Path, number: int, job: Job) -> float:
    """1 to 5; they are needed by the protocol `liked` alone, and 0 elsewhere."""
    if job.protocol != "liked":
        return 0.0
    stars = row.get("overall", row.get("rating"))
    try:
        if isinstance(stars, int | float | str) and not isinstance(stars, bool):
            return float(stars)  # text in the tables of 2023
    except ValueError:
        pass
    raise RecordError(f"expected a number of stars, found {stars!r} (2023 files: rating)", path, number, "overall")
