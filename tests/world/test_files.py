"""The simulated world keeps its promises: reproducible, disjoint users, symmetric, and choices as noisy as stated."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from alignxplore.benchmark_files import read_users
from alignxplore.prompts import PromptSet, parse_answer
from alignxplore.world import files
from alignxplore.world.reader import foresee
from alignxplore.world.text import _ITEMS, ATTRIBUTES, DOMAINS, PHRASINGS, item_phrases, item_text, summary_text
from alignxplore.world.users import (
    Taste,
    choice_probability,
    draw_choice,
    draw_item,
    draw_stream,
    draw_user,
    faulty_statements,
    tally,
    utility,
)

SIZES = {"train_users": 30, "val_users": 10, "test_users": 40, "sft_users": 8, "judge_rows": 40, "reader_rows": 10}


def make(out: Path, **options) -> None:
    files.make_world(files.WorldOptions(out=str(out), **SIZES | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    make(out)
    return out


def _lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_files_follow_the_contracts(folder):
    for name, n in (("train_users", 30), ("val_users", 10), ("test_films_upi", 40), ("test_news_upi", 40)):
        users = list(read_users(folder / f"{name}.jsonl"))
        assert len(users) == n
        assert all(len(user.history) == files.HISTORY and user.persona for user in users)
        assert all(user.target not in user.history for user in users)
    for row in _lines(folder / "rl_train.jsonl"):
        assert len(row["history"]) == files.HISTORY + 1 and row["mid_position"] == files.HISTORY // 2
    for name in ("sft", "judge", "judge2"):
        for row in _lines(folder / f"{name}.jsonl"):
            assert [m["role"] for m in row["prompt"] + row["completion"]] == ["system", "user", "assistant"]
    assert all(parse_answer(row["completion"][0]["content"]).well_formed for row in _lines(folder / "sft.jsonl"))


def test_same_seed_same_bytes_other_seed_other_world(folder, tmp_path):
    make(tmp_path / "again")
    make(tmp_path / "other", seed=2)
    for path in folder.glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()


def test_more_users_leave_the_first_ones_as_they_are(folder, tmp_path):
    make(tmp_path, train_users=60)
    assert _lines(tmp_path / "train_users.jsonl")[:30] == _lines(folder / "train_users.jsonl")


def test_splits_share_no_user_and_domains_share_all(folder):
    users = {
        name: {user.user for user in read_users(folder / f"{name}.jsonl")}
        for name in ("train_users", "val_users", "test_films_upi")
    }
    for first in users:
        assert all(first == second or not users[first] & users[second] for second in users)
    assert users["test_films_upi"] == {user.user for user in read_users(folder / "test_news_upi.jsonl")}
    assert {row["uid"] for row in _lines(folder / "rl_train.jsonl")} == users["train_users"]
    prompts = {
        name: {json.dumps(row["prompt"]) for row in _lines(folder / f"{name}.jsonl")} for name in ("judge", "judge2")
    }
    assert not prompts["judge"] & prompts["judge2"]


def test_choices_are_as_noisy_as_stated():
    rng, preferences = random.Random(0), {"mood": Taste("humour", "suspense", 2), "place": Taste("city", "sea", 1)}
    outcomes: dict[float, list[bool]] = {}
    for _ in range(6000):
        choice = draw_choice(preferences, "films", rng)
        assert choice.followed == (utility(preferences, choice.chosen) > utility(preferences, choice.rejected))
        outcomes.setdefault(round(choice.certainty, 6), []).append(choice.followed)
    assert len(outcomes) >= 4
    for stated, followed in outcomes.items():
        assert sum(followed) / len(followed) == pytest.approx(
            stated, abs=4 * (stated * (1 - stated) / len(followed)) ** 0.5 + 1e-9
        )
    # Bradley and Terry: the two probabilities of a pair sum to 1, and swapping all likes and dislikes mirrors them.
    mirrored = {a: Taste(t.disliked, t.liked, t.strength) for a, t in preferences.items()}
    for _ in range(50):
        a, b = draw_item(rng), draw_item(rng)
        p = choice_probability(preferences, a, b)
        assert p + choice_probability(preferences, b, a) == pytest.approx(1)
        assert p + choice_probability(mirrored, a, b) == pytest.approx(1)


def test_whoever_does_not_know_the_user_is_right_half_of_the_time():
    n = 3000
    margin = 3.5 * 0.5 / n**0.5
    hits = Counter()
    previous = draw_user(7, "symmetry", n)
    for index in range(n):
        user = draw_user(7, "symmetry", index)
        target = draw_stream(user, DOMAINS[index % 2], 1, 0, 7)[0]
        # Another user's preferences, where they prefer one of the two at all.
        for name, value in (
            ("other", utility(previous.late, target.chosen) - utility(previous.late, target.rejected)),
            ("length", len(target.interaction.chosen) - len(target.interaction.rejected)),
        ):
            hits[name] += 1 if value > 0 else 0.5 if value == 0 else 0
        previous = user
    assert hits["other"] / n == pytest.approx(0.5, abs=margin)
    assert hits["length"] / n == pytest.approx(0.5, abs=margin)
    likes = Counter(t.liked for i in range(n) for t in draw_user(7, "symmetry", i).late.values())
    for values in ATTRIBUTES.values():
        assert likes[values[0]] / (likes[values[0]] + likes[values[1]]) == pytest.approx(0.5, abs=0.04)


def test_the_ideal_reader_is_as_often_right_as_it_says():
    n, confidence, right, less = 800, 0.0, 0.0, 0.0
    for index in range(n):
        stream = draw_stream(draw_user(5, "reader test", index), DOMAINS[index % 2], 9, 4, 5)
        p = foresee(stream[:8], 4, stream[8])
        confidence, right = confidence + max(p, 1 - p), right + (p > 0.5)
        less += foresee(stream[6:8], 0, stream[8]) > 0.5
    assert right / n == pytest.approx(confidence / n, abs=3.5 * 0.5 / n**0.5)
    assert 0.6 < less / n < right / n < 0.92  # two choices say less than eight; eight do not say everything


def test_best_possible_accuracy_is_that_of_the_true_preferences(folder):
    report = json.loads((folder / "world.json").read_text())["benchmarks"]
    for name, domain in (("test_films_upi", "films"), ("test_news_upi", "news")):
        right = 0
        for index in range(40):
            user = draw_user(1, "test", index)
            target = draw_stream(user, domain, files.HISTORY + 1, files.HISTORY // 2, 1)[-1]
            right += utility(user.late, target.chosen) > utility(user.late, target.rejected)
        assert report[name]["best_accuracy"] == right / 40 and report[name]["n"] == 40
        assert 0.5 < report[name]["expected_best_accuracy"] < 1 and report[name]["chance"] == 0.5


def test_some_users_change_between_the_early_and_the_late_part():
    users = [draw_user(3, "change", index) for index in range(500)]
    changed = [user for user in users if user.early != user.late]
    assert 0.33 < len(changed) / len(users) < 0.47
    kinds = Counter("fades" if len(user.late) < len(user.early) else "turns" for user in changed)
    assert min(kinds["fades"], kinds["turns"]) > 30
    assert all(len(user.late) >= 2 for user in users)


def test_stated_share_of_errors_and_gaps_is_what_comes_out():
    rng, counts = random.Random(0), Counter()
    for index in range(1500):
        late = draw_user(5, "faults", index).late
        stated = {frozenset(s[:2]): s for s in faulty_statements(late, rng, 0.25, 0.10)}
        for taste in late.values():
            statement = stated.get(frozenset(taste[:2]))
            counts["gap" if statement is None else "right" if statement == tuple(taste) else "wrong"] += 1
    total = counts.total()
    assert counts["wrong"] / total == pytest.approx(0.25, abs=0.025)
    assert counts["gap"] / total == pytest.approx(0.10, abs=0.02)


def test_allusions_differ_between_domains_and_from_preference_texts():
    words = {
        domain: {w for value in _ITEMS for phrase in _ITEMS[value][domain][1:] for w in phrase.split()}
        for domain in DOMAINS
    }
    texts = {
        w.strip(".,").lower()
        for i in range(300)
        for w in summary_text(
            [(t.liked, t.disliked, t.strength) for t in draw_user(1, "words", i).late.values()], random.Random(i)
        ).split()
    }
    function_words = {"a", "about", "an", "at", "by", "from", "in", "on", "the", "with", "one", "two"}
    assert not (words["films"] & words["news"]) - function_words
    assert not (texts & (words["films"] | words["news"])) - function_words
    phrases = [item_phrases({"place": "sea"}, "films", random.Random(seed)) for seed in range(400)]
    assert len({item_text(p) for p in phrases}) >= 9
    assert sum("sea" in p[1][1] for p in phrases) / 400 == pytest.approx(0.5, abs=0.1)


def test_phrasings_differ_in_frequency_only():
    statements = [("humour", "suspense", 2)]
    counts = {
        name: Counter(summary_text(statements, random.Random(i), name) for i in range(2000)) for name in PHRASINGS
    }
    assert set(counts["plain"]) == set(counts["vivid"]) == set(counts["even"]) and len(counts["even"]) >= 4
    plain, vivid = (sum(n for text, n in counts[name].items() if "Loves" in text) for name in ("plain", "vivid"))
    assert plain > 2 * vivid


def test_tally_counts_what_was_chosen_against_what_was_passed_over():
    user = draw_user(1, "tally", 0)
    choices = draw_stream(user, "news", 8, 4, 1)
    counts = tally(choices)
    for value in (value for values in ATTRIBUTES.values() for value in values):
        chosen = sum(value in choice.chosen.values() for choice in choices)
        assert counts.get(value, 0) == chosen - sum(value in choice.rejected.values() for choice in choices)
        assert tally(choices, one_sided=True).get(value, 0) == chosen


def test_judge_rows_hide_no_answer_in_the_order_of_the_items():
    rows = list(files.judge_rows(1, "order", 1500, 0.15, "plain", PromptSet()))
    answers = [row["completion"][0]["content"] for row in rows]
    assert sum(answer.endswith('Item A"}') for answer in answers) / len(rows) == pytest.approx(0.5, abs=0.045)
    direct = sum("oldest first" in row["prompt"][1]["content"] for row in rows)
    assert direct / len(rows) == pytest.approx(0.15, abs=0.035)


def test_votes_follow_what_the_judge_is_told():
    tastes = {"mood": Taste("humour", "suspense", 2)}
    statements = faulty_statements(tastes, random.Random(0), 0.0, 0.0)
    assert files._votes([("humour", "farce"), ("sea", "on a ship")], statements, "AB") == [
        ("farce", "A"),
        ("on a ship", "none"),
    ]
    assert files._votes([("suspense", "thriller"), ("", "film")], statements, "BA") == [
        ("thriller", "A"),
        ("film", "none"),
    ]
    for row in files.judge_rows(1, "votes", 50, 0.0, "even", PromptSet()):
        items = row["prompt"][1]["content"].rpartition(row["after"])[2].replace("\nItem B: ", " ")
        assert items == " ".join(words for words, _ in row["votes"])
        assert row["completion"][0]["content"].endswith(f'Item{row["learn"]}"}}')


def test_reader_rows_tell_the_value_that_each_phrase_speaks_for():
    opposite = {a: b for pair in ATTRIBUTES.values() for a, b in (pair, pair[::-1])}
    values = {phrase: value for value in _ITEMS for domain in DOMAINS for phrase in _ITEMS[value][domain] if value}
    for row in files.reader_rows(1, 30, PromptSet()):
        excerpt = row["prompt"][1]["content"].rpartition(row["after"])[2]
        at = 0
        for words, vote in row["votes"]:
            at = excerpt.index(words, at)
            passed_over = excerpt[:at].rfind("Passed over:") > excerpt[:at].rfind("Chosen:")
            assert vote == (opposite[values[words]] if passed_over else values[words])
            at += len(words)


def test_sft_rows_are_short_histories_streams_and_full_histories(folder):
    rows = _lines(folder / "sft.jsonl")
    lengths = Counter(
        (row["prompt"][1]["content"].count("Chosen: "), "known about the user before" in row["prompt"][1]["content"])
        for row in rows
    )
    assert lengths[12, False] == 3 and lengths[6, False] == 5 and lengths[6, True] == 5
    assert sum(n for (length, past), n in lengths.items() if length < 6 and not past) == 8
    for before, after in zip(rows, rows[1:]):  # the past summary is the one that the row before it was taught to write
        if "known about the user before" in after["prompt"][1]["content"]:
            assert parse_answer(before["completion"][0]["content"]).summary in after["prompt"][1]["content"]


def test_shares_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 1"):
        files.WorldOptions(out=str(tmp_path), error_rate=0.8, gap_rate=0.4)
