"""Interactions of another benchmark: whose they are, and as many as are asked for."""

import pytest

from alignxplore.datasets.sidecars import manifest_path, read_manifest
from alignxplore.evaluation.benchmarks import Benchmark, shown_history
from alignxplore.evaluation.mixtures import Mixture, people_of
from alignxplore.evaluation.perturbations import PerturbOptions, mixed, write_copies
from alignxplore.records import Interaction, UserRecord, write_json
from tests.evaluation.conftest import benchmark


def news_of(bench: Benchmark, record: UserRecord) -> list[str]:
    """What a copy shows of the other benchmark."""
    return [x.chosen for x in shown_history(bench, record) if x.chosen.startswith("news")]


@pytest.mark.parametrize("lengths", [[30, 30, 30], [1, 2, 3, 1, 2, 3, 1, 2, 3]])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.75, 1.0])
def test_as_much_is_put_in_as_is_asked_for(lengths, share, bench, record):
    """Whether one row has enough, or the histories of several people are needed."""
    short_mix = benchmark([record(str(i), n, "news") for i, n in enumerate(lengths)], "selection", "world_news")
    copies, facts = mixed(bench, short_mix, share, 0)
    for old, new in zip(bench.records, copies):
        count = round(share * len(shown_history(bench, old)))
        assert count <= len(news_of(bench, new)) == len(set(news_of(bench, new))) <= count + 1
    assert facts["share"] == pytest.approx(share, abs=0.12) and "asked_share" not in facts


def test_where_there_is_too_little_it_is_said_how_much(bench, record, benchmark_file, tmp_path, caplog):
    short_mix = benchmark([record("x", 4, "news")], "selection", "world_news")
    _, facts = mixed(bench, short_mix, 0.75, 0)
    assert 0 < facts["share"] < 0.7 and facts["asked_share"] == 0.75
    data = [f"{b.name}={benchmark_file(b.name, b.records)}" for b in (bench, short_mix)]
    write_copies(PerturbOptions(data=data[:1], mix=data[1], out=str(tmp_path / "out"), kinds=["mixed:0.75"]))
    manifest = read_manifest(tmp_path / "out" / "world_films~mixed75_upi.jsonl")
    assert manifest["asked_share"] == 0.75 and manifest["strangers"] == len(bench.records)
    assert f"has too few different interactions: {manifest['share']} of what is shown, not 0.75" in caplog.text


def test_the_same_persons_interactions_come_first(bench, mix):
    mixture = Mixture(bench, mix)
    for old, new in zip(bench.records, mixed(bench, mix, 1.0, 0)[0]):
        news = news_of(bench, new)
        assert len(news) - len(shown_history(bench, old)) in (0, 1)
        if old.person in "012":
            own = [x.chosen for x in mix.records[int(old.person)].history]
            assert news == [text for text in own if text in news], "in their own order"
        drawn = mixture.draw(old, 40, 0)
        assert len(drawn.own) == 30 * (old.person in "012") and len(drawn.own) + len(drawn.others) == 40
    assert mixed(bench, mix, 0.5, 0)[1]["strangers"] == 4


def test_each_record_of_a_copy_is_drawn_once(bench, mix, benchmark_file, tmp_path, monkeypatch):
    """Its interactions and what the manifest says of them come of one draw."""
    users, draw = [], Mixture.draw
    monkeypatch.setattr(
        Mixture, "draw", lambda self, record, *others: users.append(record) or draw(self, record, *others)
    )
    data = [f"{b.name}={benchmark_file(b.name, b.records)}" for b in (bench, mix)]
    write_copies(PerturbOptions(data=data[:1], mix=data[1], out=str(tmp_path / "out"), kinds=["mixed:0.5"]))
    assert [record.user for record in users] == [record.user for record in bench.records]


def test_of_several_rows_of_a_person_nothing_comes_twice(record):
    """Nor what the history or the target holds: windows of one person overlap, and what is not shown stays so."""
    whole = record("a", length=12)
    first, second = (UserRecord(f"a#{k}", whole.history[k : k + 8], whole.target) for k in (0, 4))
    original = UserRecord("a#2", whole.history[2:5], Interaction(whole.history[9].chosen, "x"))
    drawn = Mixture(benchmark([original], "selection"), benchmark([first, second], "selection")).draw(original, 20, 0)
    places = sorted(whole.history.index(x) for x in drawn.own)
    assert places == [0, 1, 5, 6, 7, 8, 10, 11] and not drawn.others


@pytest.mark.parametrize(
    ("name", "other_name", "is_one_person"),
    [
        ("world_films", "world_news", True),
        ("movielens", "movielens", True),
        ("movielens~mixed", "movielens", True),
        ("shop_books", "shop_films", True),
        ("personamem", "movielens", False),
        ("movielens", "shop_films", False),
        ("world_films", "movielens", False),
    ],
)
def test_equal_ids_are_one_person_within_a_data_set_alone(name, other_name, is_one_person, record):
    bench = benchmark([record("455")], "selection", name)
    mix = benchmark([record("455", kind="news"), record("9", kind="news")], "selection", other_name)
    drawn = Mixture(bench, mix).draw(bench.records[0], 6, 0)
    assert (len(drawn.own), len(drawn.others)) == ((6, 0) if is_one_person else (0, 6))
    assert mixed(bench, mix, 1.0, 0)[1]["strangers"] == 1 - is_one_person
    namesake = benchmark([record("455", kind="news")], "selection", other_name)
    assert len(news_of(bench, *mixed(bench, namesake, 1.0, 0)[0])) == 6, "the only one there"


def test_a_manifest_says_what_a_file_of_another_name_was_built_from(record, benchmark_file):
    path = benchmark_file("films", [record("455")])
    assert people_of(Benchmark("films", "selection", (), path)) == "own"
    write_json(manifest_path(path), {"dataset": "movielens"})
    assert people_of(Benchmark("films", "selection", (), path)) == "movielens"
