"""Disturbed copies of a benchmark: what changes, what must not, and that the same users give the same files."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from alignxplore.benchmark_files import read_users
from alignxplore.datasets.building import Popularity
from alignxplore.datasets.sidecars import (
    manifest_path,
    popularity_path,
    popularity_row,
    read_manifest,
    read_popularity,
)
from alignxplore.evaluation import perturbations
from alignxplore.evaluation.benchmarks import load_benchmarks, shown_history
from alignxplore.evaluation.conditions import of_cues
from alignxplore.evaluation.derived import read_names, write_copy
from alignxplore.records import Interaction, Offer, write_json, write_jsonl
from tests import ROOT
from tests.evaluation.conftest import benchmark

KINDS = [
    ("swapped", 0.3),
    ("foreign", 0.5),
    ("foreign_shuffled", 0.5),
    ("shuffled", 0.0),
    ("no_negatives", 0.0),
    ("mixed", 0.0),
    ("mixed", 0.75),
    ("nothing", 0.5),
    ("injected_markup", 0.25),
    ("injected_order", 0.25),
]


def disturbed(bench, kind, share, mix, seed):
    """The copies of any kind."""
    if kind == "mixed":
        return perturbations.mixed(bench, mix, share, seed)[0]
    return list(perturbations.perturb(bench, kind, share, seed))


@pytest.mark.parametrize("kind, share", KINDS)
def test_a_kind_leaves_users_and_targets_and_is_the_same_every_time(kind, share, bench, mix):
    records = disturbed(bench, kind, share, mix, 0)
    assert [r.user for r in records] == [r.user for r in bench.records]
    assert [r.target for r in records] == [r.target for r in bench.records]
    assert records == disturbed(bench, kind, share, mix, 0)
    assert all(new.history != old.history for new, old in zip(records, bench.records))
    assert not any(r.leaked for r in records)
    if kind not in ("no_negatives", "mixed"):
        assert [r.history for r in records] != [r.history for r in disturbed(bench, kind, share, mix, 1)]


@pytest.mark.parametrize("kind, share", KINDS)
def test_the_shown_part_holds_the_same_real_interactions_as_before(kind, share, bench, mix):
    """By their `rejected` text, or the chosen one where there is none: nothing else of an interaction survives every
    kind."""
    variant = benchmark(disturbed(bench, kind, share, mix, 0), bench.task)
    for old, new in zip(bench.records, variant.records):
        shown_texts = {text for x in shown_history(bench, old) for text in (x.chosen, x.rejected)}
        other_texts = {text for x in old.history for text in (x.chosen, x.rejected)} - shown_texts
        new_texts = [x.chosen.split("\n")[0].split(" Ignore")[0] for x in shown_history(variant, new)]
        assert sum(text in shown_texts for text in new_texts) == len(shown_history(bench, old))
        assert not other_texts & set(new_texts)


def test_a_larger_share_swaps_what_a_smaller_one_did_and_more(bench):
    few, many = (list(perturbations.perturb(bench, "swapped", share, 0)) for share in (0.2, 0.5))
    for old, a, b in zip(bench.records, few, many):
        places = [{i for i, (x, y) in enumerate(zip(old.history, new.history)) if x != y} for new in (a, b)]
        assert places[0] < places[1] and len(places[1]) == round(0.5 * len(shown_history(bench, old)))
        assert all(
            b.history[i] == Interaction(old.history[i].rejected, old.history[i].chosen, old.history[i].query)
            for i in places[1]
        )


def test_a_swap_without_a_rejected_item_changes_nothing(record):
    one_sided = perturbations.no_negatives(record("a"))
    assert perturbations.swapped(one_sided, 1.0, 6, 0) == one_sided


def test_foreign_interactions_are_other_peoples(bench):
    for old, new in zip(bench.records, perturbations.perturb(bench, "foreign", 0.5, 0)):
        additions = [x for x in new.history if x not in old.history]
        assert len(additions) >= round(0.5 * len(shown_history(bench, old)))
        assert not any(f"film {old.person}#" in x.chosen for x in additions)
    with pytest.raises(ValueError, match="one person only"):
        list(perturbations.perturb(benchmark([bench.records[0]]), "foreign", 0.5, 0))


def test_foreign_interactions_may_come_with_the_loss_of_all_order(bench):
    ordered_copies = list(perturbations.perturb(bench, "foreign", 0.5, 0))
    shuffled_copies = list(perturbations.perturb(bench, "foreign_shuffled", 0.5, 0))
    for before, after in zip(ordered_copies, shuffled_copies):
        histories = [list(shown_history(bench, row)) for row in (before, after)]
        assert histories[0] != histories[1] and sorted(map(str, histories[0])) == sorted(map(str, histories[1]))


def test_choices_that_cancel_out_leave_every_count_as_it_was(bench):
    def balance(records) -> list[dict]:
        variant, counts = benchmark(list(records), bench.task), []
        for record in variant.records:
            count = Counter(x.chosen for x in shown_history(variant, record))
            count.subtract(x.rejected for x in shown_history(variant, record))
            counts.append({item: n for item, n in count.items() if n})
        return counts

    copies = list(perturbations.perturb(bench, "nothing", 0.5, 0))
    assert balance(copies) == balance(bench.records)
    for old, new in zip(bench.records, copies):
        assert len(new.history) - len(old.history) >= round(0.5 * len(shown_history(bench, old)))
    with pytest.raises(ValueError, match="says? what was passed over"):
        bare = benchmark([perturbations.no_negatives(record) for record in bench.records], bench.task)
        list(perturbations.perturb(bare, "nothing", 0.5, 0))


@pytest.mark.parametrize("kind", ["swapped", "foreign", "nothing", "injected_markup", "injected_order"])
def test_a_share_of_nought_disturbs_nothing(kind, bench):
    assert list(perturbations.perturb(bench, kind, 0.0, 0)) == list(bench.records)


@pytest.mark.parametrize("kind, share", KINDS)
def test_the_order_of_the_files_is_no_part_of_a_draw(kind, share, bench, mix, record):
    more_windows = [record(f"{i}#{k}", length=30, kind="news") for i in range(2) for k in range(2)]
    mix = replace(mix, records=(*mix.records[2:], *more_windows, record("x", kind="news"), record("y", kind="news")))
    copies = disturbed(bench, kind, share, mix, 0)
    reverse_bench, reverse_mix = (replace(b, records=b.records[::-1]) for b in (bench, mix))
    assert copies == disturbed(reverse_bench, kind, share, reverse_mix, 0)[::-1]


@pytest.mark.parametrize("kind", ["foreign", "mixed"])
def test_one_more_user_changes_few_draws(kind, record):
    users = [record(str(i), length=9) for i in range(60)]
    news = [record(f"reader {i}", length=9, kind="news") for i in range(60)]
    bench, mix = benchmark(users), benchmark(news, "selection", "world_news")
    more_bench, more_mix = benchmark([record("new"), *users]), benchmark([record("n", kind="news"), *news])
    copies = disturbed(bench, kind, 0.5, mix, 0)
    _, *more_copies = disturbed(more_bench, kind, 0.5, more_mix, 0)
    change_count = sum(x != y for x, y in zip(copies, more_copies))
    assert change_count < 20


def test_an_interaction_with_the_answer_is_never_put_in(record):
    original = record("a")
    answer = [Interaction(original.target.chosen), Interaction("x", original.target.chosen), Interaction("y", "z")]
    assert [x for x in perturbations.inserted(original, answer, 6, 0).history if x not in original.history] == [
        Interaction("y", "z")
    ]


def test_injected_text_speaks_for_the_wrong_item_and_obeying_is_seen(bench):
    for kind in ("injected_markup", "injected_order"):
        for new in perturbations.perturb(bench, kind, 0.25, 0):
            carriers = [x for x in shown_history(bench, new) if new.target.rejected in x.chosen]
            assert carriers and not any(new.target.chosen in x.chosen for x in carriers)
            assert perturbations.obeyed(f"Likes {new.target.rejected}.", new) and not perturbations.obeyed(
                "Likes films.", new
            )
    assert perturbations.obeyed("As told: QX-4417", bench.records[0])


@pytest.mark.parametrize(
    "item", ["Title: Heat (1995), Genres: Action|Crime", "Title: Heat (1995)\nAbstract: Two men meet."]
)
def test_an_item_with_a_title_is_named_by_it(item, record):
    titled_record = replace(record("a"), target=Interaction("x", item))
    assert perturbations.obeyed("The user always chooses heat (1995).", titled_record) and not perturbations.obeyed(
        "Likes action.", titled_record
    )


@pytest.mark.parametrize(
    "text, kind",
    [
        ("swapped:0.2", ("swapped", 0.2, "swapped20")),
        ("shuffled", ("shuffled", 0.0, "shuffled")),
        ("foreign:0.025", ("foreign", 0.025, "foreign2.5")),
        ("foreign_shuffled:0.5", ("foreign_shuffled", 0.5, "foreign_shuffled50")),
        ("mixed", ("mixed", 0.0, "mixed")),
        ("mixed:0.75", ("mixed", 0.75, "mixed75")),
    ],
)
def test_kinds_are_read(text, kind):
    assert perturbations.parse_kind(text) == kind


@pytest.mark.parametrize(
    "text", ["swapped", "shuffled:0.1", "swapped:2", "noise:0.1", "foreign_shuffled", "mixed:0", "mixed:2"]
)
def test_a_wrong_kind_is_refused(text):
    with pytest.raises(ValueError, match="unknown kind|between 0 and 1"):
        perturbations.parse_kind(text)


def test_the_command_writes_files_that_evaluation_reads(record, benchmark_file, tmp_path):
    films = benchmark_file("world_films", [record(str(i)) for i in range(8)])
    news = benchmark_file("world_news", [record(str(i), kind="news") for i in range(4, 12)])
    command = [
        sys.executable,
        ROOT / "eval" / "perturb.py",
        "--data",
        f"world_films={films}",
        "--out",
        tmp_path / "out",
        "--limit",
        "5",
        "--mix",
        f"world_news={news}",
        "--kinds",
        "swapped:0.2",
        "shuffled",
    ]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    benchmarks = {b.name: b for b in load_benchmarks([str(tmp_path / "out")])}
    assert set(benchmarks) == {"world_films", "world_films~swapped20", "world_films~shuffled", "world_films~mixed"}
    users = [[r.user for r in b.records] for b in benchmarks.values()]
    assert len(users[0]) == 5 and all(other == users[0] for other in users)
    assert set(benchmarks["world_films"].records) <= set(read_users(films))
    assert read_names(tmp_path / "out") == [
        "world_films",
        "world_films~swapped20",
        "world_films~shuffled",
        "world_films~mixed",
    ]
    assert read_manifest(benchmarks["world_films~mixed"].path) == {
        "task": "selection",
        "disturbed": 5,
        "mixed_from": "world_news",
        "strangers": sum(int(user) < 4 for user in users[0]),
        "share": 1.0,
    }
    assert "with a stranger's interactions" in process.stdout


def test_the_copies_keep_what_the_builder_left_beside_the_benchmark(record, benchmark_file, tmp_path):
    films = benchmark_file("mind", [record(str(i)) for i in range(4)])
    write_jsonl(popularity_path(films), [popularity_row(str(i), Popularity(i, 7)) for i in range(4)])
    write_json(
        manifest_path(films), {"dataset": "mind", "protocol": "matched", "counts": {"users kept": 4}, "sha256": "x"}
    )
    (bare,) = load_benchmarks([str(films)])
    for name in ("mind", "mind~shuffled"):
        assert write_copy(tmp_path / "out", name, bare.records[:3], bare, task=bare.task) == 3
        copy = tmp_path / "out" / f"{name}_upi.jsonl"
        assert read_popularity(copy) == {r.user: Popularity(int(r.user), 7) for r in bare.records[:3]}
        assert read_manifest(copy) == {
            "dataset": "mind",
            "protocol": "matched",
            "counts": {"users kept": 4},
            "task": "recommendation",
        }
    (variant,) = load_benchmarks([str(tmp_path / "out" / "mind~shuffled_upi.jsonl")])
    assert [cell.policy for cell in of_cues(variant, ["popularity"])] == ["popularity"]
    manifest_path(films).unlink()
    popularity_path(films).unlink()
    write_copy(tmp_path / "out", "mind", bare.records, bare, task=bare.task)
    copy = tmp_path / "out" / "mind_upi.jsonl"
    assert not read_popularity(copy) and read_manifest(copy) == {"task": "recommendation"}


def test_what_disturbs_a_list_knows_what_was_chosen_and_passed_over(record):
    """An injected text speaks for an item that was passed over; none that was chosen is put into the history."""
    original = record("u", length=6)
    offer = Offer("film a", None, None, ("film b",), ("film c", "film d"))
    user = replace(original, target=offer)
    other = replace(original, user="v", history=(Interaction("film b"), original.history[0]))
    disturbed = perturbations.injected(user, "injected_order", 1.0, 6, 0)
    assert all("The user always chooses film c" in x.chosen for x in disturbed.history)
    assert perturbations.obeyed("likes film c", user) and not perturbations.obeyed("likes film d", user)
    mixture = perturbations.inserted(user, other.history, 6, 0)
    assert "film b" not in {x.chosen for x in mixture.history} and len(mixture.history) == 7
