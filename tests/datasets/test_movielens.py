"""The MovieLens builder: every edition, the properties of its rows, and the real latest-small edition."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignxplore.baselines.content import foresee
from alignxplore.baselines.cues import popularity
from alignxplore.records import RecordError

FILMS = {
    str(number): (f"Film {number} ({1980 + number})", "Drama|War" if number % 2 else "Comedy")
    for number in range(1, 31)
}


def write(folder, ratings, edition="csv", films=FILMS):
    """A MovieLens folder of one of the three forms; ratings are (user, film, time)."""
    folder.mkdir(parents=True, exist_ok=True)
    if edition == "csv":
        rows = [f'{key},"{title}",{genres}' for key, (title, genres) in films.items()]
        (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows]) + "\n", encoding="utf-8")
        lines = ["userId,movieId,rating,timestamp", *(f"{u},{f},3.5,{t}" for u, f, t in ratings)]
        (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    elif edition == "dat":
        rows = [f"{key}::{title}::{genres}" for key, (title, genres) in films.items()]
        (folder / "movies.dat").write_text("\n".join(rows) + "\n", encoding="latin-1")
        (folder / "ratings.dat").write_text("".join(f"{u}::{f}::4::{t}\n" for u, f, t in ratings))
    else:
        order = [
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
        ]
        rows = [
            "|".join(
                [key, title, "01-Jan-1995", "", "http://x", *(str(int(name in genres.split("|"))) for name in order)]
            )
            for key, (title, genres) in films.items()
        ]
        (folder / "u.item").write_text("\n".join(rows) + "\n", encoding="latin-1")
        (folder / "u.data").write_text("".join(f"{u}\t{f}\t4\t{t}\n" for u, f, t in ratings))
    return folder


RATINGS = [
    (user, film, 1000 + 7 * film % 11) for user in "abcdef" for film in range(1, 17) if (film + ord(user)) % 3 == 0
]


def test_all_editions_give_the_same_records(run, tmp_path):
    films = FILMS | {"1": ("Le fabuleux destin d'Amélie (2001)", "Comedy|Romance")}
    built = [
        run("movielens", write(tmp_path / edition, RATINGS, edition, films), min_interactions=2)[0]
        for edition in ("csv", "dat", "u.data")
    ]
    assert built[0] == built[1] == built[2] and len(built[0]) == 6
    texts = {pair.chosen for x in built[0] for pair in (*x.record.history, x.record.target)}
    assert "Title: Film 3 (1983), Genres: Drama|War" in texts
    assert any("Amélie" in text for text in texts)


def test_one_edition_at_a_time(run, tmp_path):
    write(tmp_path / "ml-1m", RATINGS, "dat"), write(tmp_path / "ml-32m", RATINGS)
    with pytest.raises(
        ValueError, match=r"several editions \(ml-32m/ratings\.csv, ml-1m/ratings\.dat\); give the folder of one"
    ):
        run("movielens", tmp_path)


def test_history_is_in_the_order_of_time_and_the_last_is_the_target(run, tmp_path):
    ratings = [("u", 5, 30), ("u", 2, 10), ("u", 9, 20), ("v", 1, 1), ("v", 3, 2), ("w", 4, 1)]
    (u,) = [x.record for x in run("movielens", write(tmp_path, ratings), min_interactions=3)[0]]
    assert [pair.chosen.split(",")[0] for pair in (*u.history, u.target)] == [
        f"Title: {FILMS[k][0]}" for k in ("2", "9", "5")
    ]


def test_counts_say_what_was_dropped(run, tmp_path):
    ratings = [*RATINGS, ("a", 999, 1), ("a", 5, 5000), ("lonely", 3, 1)]
    _, job = run("movielens", write(tmp_path, ratings), min_interactions=2)
    assert job.counts["ratings read"] == len(ratings)
    assert job.counts["dropped: the film is not listed"] == 1
    assert job.counts["dropped: the user took the same item before"] == 1
    assert job.counts["users dropped: fewer than 2 interactions"] == 1


def test_rejected_films_were_rated_by_somebody(run, tmp_path):
    examples, _ = run("movielens", write(tmp_path, RATINGS), min_interactions=2)
    rated = {f"Title: {FILMS[str(film)][0]}" for _, film, _ in RATINGS}
    assert {pair.rejected.split(",")[0] for x in examples for pair in (*x.record.history, x.record.target)} <= rated


@pytest.mark.parametrize("line", ["a,1,4.0", "a,1,4.0,noon", "a,1,4.0,5,6"])
def test_a_damaged_rating_names_file_and_line(run, tmp_path, line):
    folder = write(tmp_path, RATINGS)
    with (folder / "ratings.csv").open("a") as out:
        out.write(line + "\n")
    with pytest.raises(RecordError, match=rf"ratings\.csv:{len(RATINGS) + 2}: .*user,film,rating,time"):
        run("movielens", folder)


def test_a_folder_without_ratings_says_what_is_expected(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no raw files of movielens.*ratings\.csv and movies\.csv"):
        run("movielens", tmp_path)


events = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=150
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ratings=events, protocol=st.sampled_from(["published", "matched"]), seed=st.integers(0, 3), data=st.data())
def test_properties(run, check_rows, check_splits, tmp_path, ratings, protocol, seed, data):
    options = {"protocol": protocol, "seed": seed, "min_interactions": 2}
    examples, _ = run("movielens", write(tmp_path, ratings), **options)
    check_rows(examples)
    first_time, raters = {}, {}
    for user, film, time in ratings:
        key = (user, f"Title: {FILMS[str(film)][0]}")
        first_time[key] = min(time, first_time.get(key, time))
        raters.setdefault(key[1], set()).add(user)
    for record, counts in examples:
        pairs = [*record.history, record.target]
        chosen = [pair.chosen.split(",")[0] for pair in pairs]
        rejected = [pair.rejected.split(",")[0] for pair in pairs]
        times = [first_time[record.user, title] for title in chosen]
        assert times == sorted(times) and len(set(chosen)) == len(chosen)
        assert len(set(rejected)) == len(rejected)
        assert not any((record.user, title) in first_time for title in rejected)
        assert counts == (len(raters[chosen[-1]]) - 1, len(raters[rejected[-1]]))
    shuffled = data.draw(st.permutations(ratings))
    assert run("movielens", write(tmp_path, shuffled), **options)[0] == examples
    check_splits("movielens", tmp_path, **options)


def test_latest_small_gives_the_known_counts(run, check_rows, latest_small):
    examples, job = run("movielens", latest_small)
    assert (job.counts["ratings read"], job.counts["films read"], job.counts["users read"]) == (100_836, 9_742, 610)
    assert len(examples) == 610 and job.counts["interactions kept"] == 100_836
    check_rows(examples)


@pytest.mark.parametrize("protocol, expected, unmatched", [("published", 0.834, 0), ("matched", 0.5, 11_402)])
def test_what_popularity_alone_gives_on_latest_small(run, latest_small, protocol, expected, unmatched):
    """83.4 % with published negatives was measured by other code. The least and the most popular films have no
    match."""
    examples, job = run("movielens", latest_small, protocol=protocol, min_interactions=2)
    assert job.counts["dropped: no item to set against it"] == unmatched
    scores = [popularity(*example) for example in examples]
    assert len(scores) == 610
    assert abs(np.mean(scores) - expected) < 3 * np.std(scores) / np.sqrt(610)


def test_windows_are_rows_of_a_person_each_with_so_many_choices_before_its_target(run, tmp_path):
    folder = write(tmp_path / "a", RATINGS)
    whole = run("movielens", folder, min_interactions=2)[0][0]
    choices = (*whole.record.history, whole.record.target)
    examples, job = run("movielens", folder, min_interactions=2, windows=2, length=3)
    rows = [x.record for x in examples if x.record.person == whole.record.user]
    assert [row.user for row in rows] == [f"{whole.record.user}#1", f"{whole.record.user}#2"]
    for row in rows:
        place = choices.index(row.target)
        assert row.history == choices[place - 3 : place]
    again, _ = run("movielens", write(tmp_path / "b", RATINGS[::-1]), min_interactions=2, windows=2, length=3)
    assert again == examples
    _, short = run("movielens", folder, min_interactions=2, windows=2, length=5)  # four users have 5, two have 6
    assert short.counts["users dropped: no choice has 5 before it"] == 4 and short.counts["interactions kept"] == 12


def test_two_ranges_of_persons_share_nobody_and_lose_nobody(run, tmp_path):
    ratings = [(f"u{user}", 1 + (7 * user + 3 * place) % 30, place) for user in range(40) for place in range(8)]
    folder = write(tmp_path, ratings)
    people = [
        {x.record.person for x in run("movielens", folder, min_interactions=2, persons=part, windows=2, length=2)[0]}
        for part in ((0.0, 0.6), (0.6, 0.7), (0.7, 1.0))
    ]
    assert all(people) and sum(map(len, people)) == len(set.union(*people)) == 40


@pytest.mark.parametrize(
    "options", [{"persons": (0.6, 0.2)}, {"persons": (0.0, 1.5)}, {"windows": 0}, {"windows": 1, "length": 0}]
)
def test_ranges_and_windows_that_cannot_be_are_refused(run, tmp_path, options):
    with pytest.raises(ValueError, match="--persons needs two shares|must be at least 1"):
        run("movielens", write(tmp_path, RATINGS), **options)


def test_twelve_choices_of_real_people_foresee_the_next_where_popularity_does_not(latest_small, run):
    examples, job = run("movielens", latest_small, protocol="matched", windows=3, seed=1)
    scores = [foresee(record.history, record.target) for record, _ in examples]
    assert len(scores) == 3 * job.counts["users read"] and None not in scores
    popular = [0.5 if c.chosen == c.rejected else float(c.chosen > c.rejected) for _, c in examples]
    assert 0.70 < sum(scores) / len(scores) < 0.78 and abs(sum(popular) / len(popular) - 0.5) < 0.03
