"""The Amazon builder: both editions, what is dropped, the properties of its rows."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.datasets.amazon import product_text
from alignxplore.records import RecordError

PRODUCTS = {f"B{number:03}": f"Product {number}" for number in range(1, 25)} | {"B900": "Product 1", "B901": ""}


def write(folder, reviews, edition=2018, packed=False):
    """A category's two files in the schema of an edition; reviews are (user, product, time)."""
    folder.mkdir(parents=True, exist_ok=True)
    if edition == 2018:
        names = "Toys_5.json", "meta_Toys.json"
        rows = [
            {"overall": 5.0, "reviewerID": u, "asin": p, "unixReviewTime": t, "reviewText": "fine"}
            for u, p, t in reviews
        ]
        products = [
            {"asin": key, "title": title, "description": ["One.", "", "Two."]} for key, title in PRODUCTS.items()
        ]
    else:
        names = "Toys.jsonl", "meta_Toys.jsonl"
        rows = [
            {"rating": 5.0, "user_id": u, "asin": "variant", "parent_asin": p, "timestamp": t * 1000}
            for u, p, t in reviews
        ]
        products = [
            {"parent_asin": key, "title": title, "description": ["One.", "", "Two."]}
            for key, title in PRODUCTS.items()
        ]
    for name, content in zip(names, (rows, products)):
        text = "".join(json.dumps(row) + "\n" for row in content).encode()
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(text) if packed else text)
    return folder


REVIEWS = [
    (user, f"B{number:03}", number * 10)
    for user in "abcde"
    for number in range(1, 25)
    if (number + ord(user)) % 4 == 0
]


def test_editions_and_packing_make_no_difference(run, tmp_path):
    built, jobs = zip(
        *(
            run("amazon", write(tmp_path / f"{edition}{packed}", REVIEWS, edition, packed), min_interactions=2)
            for edition in (2018, 2023)
            for packed in (False, True)
        )
    )
    assert [job.edition for job in jobs] == ["Toys_5 of 2018"] * 2 + ["Toys of 2023"] * 2
    assert built[0] == built[1] == built[2] == built[3] and len(built[0]) == 5
    assert any(example.record.target.chosen.endswith("\nDescription: One. Two.") for example in built[0])


@pytest.mark.parametrize("reviews, metadata", [("csv", "jsonl"), ("parquet", "jsonl"), ("csv", "parquet")])
def test_ready_made_ratings_of_2023_stand_in_for_the_reviews(run, tmp_path, reviews, metadata):
    full, _ = run("amazon", write(tmp_path / "full", REVIEWS, 2023), min_interactions=2)
    folder = write(tmp_path / "ready", REVIEWS, 2023)
    table = pa.table(
        {
            "user_id": [user for user, _, _ in REVIEWS],
            "parent_asin": [product for _, product, _ in REVIEWS],
            "rating": [5.0] * len(REVIEWS),
            "timestamp": [1000 * time for _, _, time in REVIEWS],
        }
    )
    (folder / "Toys.jsonl").unlink()
    pa.csv.write_csv(table, folder / "Toys.csv") if reviews == "csv" else pq.write_table(
        table, folder / "Toys.parquet"
    )
    if metadata == "parquet":
        rows = [json.loads(line) for line in (folder / "meta_Toys.jsonl").read_text().splitlines()]
        pq.write_table(pa.Table.from_pylist(rows), folder / "meta_Toys.parquet")
        (folder / "meta_Toys.jsonl").unlink()
    built, job = run("amazon", folder, min_interactions=2)
    assert built == full and built and job.edition == "Toys of 2023, ready-made ratings"


@pytest.mark.parametrize(
    "description, text",
    [
        ([], "Title: A"),
        (None, "Title: A"),
        ("plain", "Title: A\nDescription: plain"),
        (["", " x\ny "], "Title: A\nDescription: x y"),
    ],
)
def test_product_text(description, text):
    assert product_text(" A ", description) == text


def test_counts_say_what_was_dropped(run, tmp_path):
    reviews = [
        *REVIEWS,
        ("a", "B003", 9999),
        ("a", "B901", 1),
        ("a", "B777", 1),
        ("d", "B004", 9),
        ("d", "B001", 10),
        ("d", "B900", 11),
    ]
    _, job = run("amazon", write(tmp_path, reviews), min_interactions=2)
    assert job.counts["reviews read"] == len(reviews)
    assert job.counts["dropped: a product without a title"] == 1
    assert job.counts["dropped: the product has no title or is not listed"] == 2
    assert job.counts["dropped: the user took the same item before"] == 2
    assert job.counts["dropped: the user took an item with the same text before"] == 1


def test_rows_decide_between_reviews_of_one_day(run, tmp_path):
    reviews = [("u", "B007", 5), ("u", "B003", 5), ("u", "B009", 5), ("v", "B001", 1), ("v", "B002", 1)]
    (record,) = [x.record for x in run("amazon", write(tmp_path, reviews), min_interactions=3)[0]]
    assert [pair.chosen.split("\n")[0][15:] for pair in (*record.history, record.target)] == ["7", "3", "9"]


@pytest.mark.parametrize("protocol", ["published", "reviewed", "matched", "matched_both", "liked"])
def test_the_order_of_lines_changes_no_draw(run, tmp_path, protocol):
    dice = random.Random(3)
    reviews = [
        (f"u{number}", f"B{product:03}", time)
        for number in range(30)
        for time, product in enumerate(dice.sample(range(1, 25), 8))
    ]
    folder = write(tmp_path, reviews)
    first, _ = run("amazon", folder, protocol=protocol, min_interactions=2)
    assert len(first) > 5
    for seed in range(3):
        for name in ("Toys_5.json", "meta_Toys.json"):
            lines = (folder / name).read_text().splitlines(keepends=True)
            random.Random(seed).shuffle(lines)
            (folder / name).write_text("".join(lines))
        assert run("amazon", folder, protocol=protocol, min_interactions=2)[0] == first


def test_published_draws_from_all_products_and_reviewed_from_reviewed_ones(run, tmp_path):
    reviews = [
        (user, f"B{number:03}", number) for user in "abcdefgh" for number in range(1, 9) if (number + ord(user)) % 2
    ]
    drawn = {}
    for protocol in ("published", "reviewed"):
        options = {"protocol": protocol, "min_interactions": 2}
        built = [run("amazon", write(tmp_path, reviews), seed=seed, **options)[0] for seed in range(5)]
        drawn[protocol] = {example.popularity.rejected for examples in built for example in examples}
    assert 0 in drawn["published"] and 0 not in drawn["reviewed"]


def test_stars_may_be_missing_where_the_protocol_needs_none(run, tmp_path):
    folder = write(tmp_path, REVIEWS)
    rows = [json.loads(line) | {"overall": 5.0} for line in (folder / "Toys_5.json").read_text().splitlines()]
    del rows[1]["overall"]
    (folder / "Toys_5.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("amazon", folder)
    with pytest.raises(RecordError, match=r"Toys_5\.json:2: field 'overall': expected a number of stars from 0 to 5"):
        run("amazon", folder, protocol="liked")


def test_damaged_files_name_file_and_line(run, tmp_path):
    write(tmp_path, REVIEWS)
    with (tmp_path / "Toys_5.json").open("a") as out:
        out.write('{"reviewerID": "a", "asin": "B001"}\n')
    with pytest.raises(RecordError, match=rf"Toys_5\.json:{len(REVIEWS) + 1}: field 'unixReviewTime'"):
        run("amazon", tmp_path)
    with (tmp_path / "meta_Toys.json").open("a") as out:
        out.write('{"asin": "B9')
    with pytest.raises(RecordError, match=rf"meta_Toys\.json:{len(PRODUCTS) + 1}: not JSON"):
        run("amazon", tmp_path)


def test_the_layout_of_the_hub_and_files_that_are_there_packed_and_unpacked(run, tmp_path):
    plain, both = write(tmp_path / "plain", REVIEWS, 2023), write(tmp_path / "both", REVIEWS, 2023)
    write(both, REVIEWS, 2023, packed=True)
    for name, folder in (("Toys.jsonl", "review_categories"), ("meta_Toys.jsonl", "meta_categories")):
        (tmp_path / "hub" / "raw" / folder).mkdir(parents=True)
        (tmp_path / "hub" / "raw" / folder / name).write_bytes((plain / name).read_bytes())
    built = [
        run("amazon", folder, min_interactions=2)[0]
        for folder in (plain, both, tmp_path / "hub", tmp_path / "hub" / "raw")
    ]
    assert built[0] == built[1] == built[2] == built[3]


def test_one_category_at_a_time(run, tmp_path):
    write(tmp_path / "a", REVIEWS), write(tmp_path / "b", REVIEWS)
    with pytest.raises(ValueError, match=r"several categories or editions \(a/Toys_5\.json, b/Toys_5\.json\)"):
        run("amazon", tmp_path)
    with pytest.raises(FileNotFoundError, match="no raw files of amazon"):
        run("amazon", tmp_path / "a" / "none")


events = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(sorted(PRODUCTS)), st.integers(0, 30)), max_size=120
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reviews=events, protocol=st.sampled_from(["published", "reviewed", "matched"]), seed=st.integers(0, 3))
def test_properties(run, check_rows, check_splits, tmp_path, reviews, protocol, seed):
    options = {"protocol": protocol, "seed": seed, "min_interactions": 2}
    examples, _ = run("amazon", write(tmp_path, reviews), **options)
    check_rows(examples)
    first_time = {}
    for user, key, time in reviews:
        first_time[user, PRODUCTS[key]] = min(time, first_time.get((user, PRODUCTS[key]), time))
    for record, _ in examples:
        pairs = [*record.history, record.target]
        chosen = [pair.chosen.split("\n")[0][7:] for pair in pairs]
        times = [first_time[record.user, title] for title in chosen]
        assert times == sorted(times) and len(set(chosen)) == len(chosen)
        assert not any((record.user, pair.rejected.split("\n")[0][7:]) in first_time for pair in pairs)
    check_splits("amazon", tmp_path, **options)
