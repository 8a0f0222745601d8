"""Users and pairs that training rows share with benchmarks, in every kind of row."""

import json
from dataclasses import replace

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, Offer, RecordError, UserRecord, write_jsonl
from alignxplore.synthesis.overlap import OverlapOptions, check, overlap


def user(name: str, length: int = 14) -> UserRecord:
    items = [Interaction(f"{name} good {i}", f"{name} bad {i}") for i in range(length)]
    return UserRecord(name, tuple(items[:-1]), items[-1])


def test_overlap_counts_and_drops_shared_users_and_target_pairs_in_every_kind_of_row(tmp_path):
    held_out = [user("u1"), user("u2#1")]
    write_jsonl(tmp_path / "bench_upi.jsonl", map(user_row, held_out))
    target, past = held_out[0].target, held_out[0].history[3]
    stranger = user("x")
    leaking = UserRecord("y", (*stranger.history, Interaction(target.rejected, target.chosen)), stranger.target)
    near = UserRecord("z", (*stranger.history, past), stranger.target)
    users = [user_row(r) for r in (stranger, leaking, near, user("u2#7"))]
    write_jsonl(tmp_path / "users.jsonl", users)
    rl = [{"uid": row["userid"], "history": row["history"], "mid_position": 3} for row in users]
    write_jsonl(tmp_path / "rl.jsonl", rl)
    prompts = PromptSet()
    sft = [{"prompt": prompts.infer(record.history), "completion": []} for record in (stranger, leaking, near)]
    write_jsonl(tmp_path / "sft.jsonl", sft)
    files = [str(tmp_path / name) for name in ("users.jsonl", "rl.jsonl", "sft.jsonl")]
    named = [f"bench={file}" for file in files]
    counts = check(named, [str(tmp_path / "bench_upi.jsonl")], str(tmp_path / "clean"))
    expected = {"rows": 4, "user": 1, "without_user": 0, "strangers": 0, "target": 1, "pair": 2, "dropped": 2}
    assert counts[files[0]] == expected and counts[files[1]] == expected
    assert counts[files[2]] == expected | {"rows": 3, "user": 0, "without_user": 3, "dropped": 1}
    user_ids = [json.loads(line)["userid"] for line in (tmp_path / "clean" / "users.jsonl").read_text().splitlines()]
    assert user_ids == ["x", "z"]
    assert check(named[:1], [str(tmp_path)])[files[0]] == counts[files[0]], "a folder of benchmarks"
    with pytest.raises(RecordError, match="two inputs would be written to one file"):
        check([files[0], str(tmp_path / "other" / "users.jsonl")], [str(tmp_path)], str(tmp_path / "clean"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"uid": "u", "history": []}\n')
    with pytest.raises(RecordError, match=r"bad.jsonl:1: field 'history': empty"):
        check([str(bad)], [str(tmp_path)])


@pytest.mark.parametrize("past", [None, "Likes good things."])
def test_overlap_finds_items_of_several_lines_in_prompts(tmp_path, past):
    held_out = user("u")
    answers = Interaction("Dear user: first\n\n- one <|im_end|>\n- two", "Dear user: first\n\n- other")
    write_jsonl(tmp_path / "bench_upi.jsonl", [user_row(UserRecord("u", held_out.history, answers))])
    half = Interaction(answers.chosen, "something else")  # one item of the pair is no pair
    for item, hits in ((answers, 1), (half, 0)):
        write_jsonl(
            tmp_path / "sft.jsonl", [{"prompt": PromptSet().infer([item, *user("x").history], past), "completion": []}]
        )
        (count,) = check([str(tmp_path / "sft.jsonl")], [str(tmp_path / "bench_upi.jsonl")]).values()
        assert (count["target"], count["pair"]) == (hits, hits)


def test_choices_among_k_items_share_each_pair_that_they_hold(tmp_path):
    """What was taken beside each item that was passed over; two that were passed over are no pair of anybody."""
    held_out, stranger = user("u"), user("x")
    offer = Offer("taken", None, None, ("also taken",), ("left", "also left"))
    offers = [user_row(replace(record, target=offer)) for record in (held_out, replace(stranger, user="w"))]
    write_jsonl(tmp_path / "bench_upi.jsonl", offers[:1])
    rows = [
        user_row(replace(stranger, user=f"x{i}", target=Interaction(*pair)))
        for i, pair in enumerate([("left", "also taken"), ("taken", "also left"), ("left", "also left")])
    ]
    path = tmp_path / "users.jsonl"
    write_jsonl(path, rows + offers[1:])
    (count,) = check([str(path)], [str(tmp_path / "bench_upi.jsonl")], str(tmp_path / "clean")).values()
    assert (count["rows"], count["target"], count["pair"], count["dropped"]) == (4, 3, 3, 3)
    sft = [{"prompt": PromptSet().infer([Interaction(*pair)]), "completion": []} for pair in (("left", "taken"), "ab")]
    write_jsonl(tmp_path / "sft.jsonl", sft)
    (count,) = check([str(tmp_path / "sft.jsonl")], [str(tmp_path / "bench_upi.jsonl")]).values()
    assert (count["target"], count["pair"]) == (1, 1)
    write_jsonl(tmp_path / "pairs_upi.jsonl", rows[:1])
    (count,) = check([str(tmp_path / "bench_upi.jsonl")], [str(tmp_path / "pairs_upi.jsonl")]).values()
    assert (count["target"], count["pair"]) == (1, 1), "a file of choices among k to train on"


@pytest.mark.parametrize("items", [["a", "b"], []])
def test_a_target_that_cannot_be_read_is_named(items, tmp_path):
    write_jsonl(tmp_path / "bench_upi.jsonl", [user_row(user("u"))])
    write_jsonl(tmp_path / "users.jsonl", [user_row(user("x")) | {"target": {"chosen": "a", "rejected": None}}])
    (count,) = check([str(tmp_path / "users.jsonl")], [str(tmp_path / "bench_upi.jsonl")]).values()
    assert (count["rows"], count["dropped"]) == (1, 0), "nothing to share, and no error"
    write_jsonl(tmp_path / "users.jsonl", [user_row(user("x")) | {"target": {"chosen": "a", "rejected": items}}])
    with pytest.raises(RecordError, match=r"users\.jsonl:1: field 'target\.rejected': (holds an item|expected at)"):
        check([str(tmp_path / "users.jsonl")], [str(tmp_path / "bench_upi.jsonl")])


def rows_of(folder, name: str, users: list[UserRecord]) -> str:
    path = folder / f"{name}.jsonl"
    write_jsonl(path, map(user_row, users))
    return str(path)


def with_id(name: str, items_of: str) -> UserRecord:
    """A user of that id who has chosen among the items of another one."""
    record = user(items_of)
    return UserRecord(name, record.history, record.target)


def test_users_of_one_id_in_two_data_sets_are_strangers(tmp_path):
    """Who "455" is depends on the data set: strangers are kept, persons are found."""
    benchmarks = [
        rows_of(tmp_path, "movielens_upi", [with_id("455", "films")]),
        rows_of(tmp_path, "mind_upi", [with_id("7", "news")]),
    ]
    same, other = with_id("455#3", "more films"), with_id("7", "things")
    overlapping = UserRecord("7", (*other.history, user("news").history[0]), other.target)
    counts_of = {}
    for name, prefix in (
        ("rl_train", ""),
        ("rl_train", "movielens="),
        ("rl_train", "amazon="),
        ("movielens_train", ""),
    ):
        path = rows_of(tmp_path, name, [same, other, overlapping])
        (count,) = check([prefix + path], benchmarks, str(tmp_path / "clean")).values()
        users = [json.loads(line)["userid"] for line in (tmp_path / f"clean/{name}.jsonl").read_text().splitlines()]
        counts_of[prefix or name] = (count["user"], count["strangers"], count["dropped"], users)
    assert counts_of == {
        "rl_train": (1, 2, 1, ["455#3", "7"]),  # ids alone say nothing; one row shares a pair as well
        "movielens=": (1, 2, 1, ["7", "7"]),
        "amazon=": (0, 3, 0, ["455#3", "7", "7"]),
        "movielens_train": (1, 2, 1, ["7", "7"]),
    }


def test_files_of_one_import_are_of_one_data_set(tmp_path):
    """OUT_rl.jsonl, OUT_train.jsonl and OUT_upi.jsonl: a person is found by the id alone."""
    benchmark = rows_of(tmp_path, "books_upi", [user("ada")])
    for name, expected in (("books_rl", 1), ("books_train", 1), ("books_upi", 1), ("films_rl", 0)):
        path = rows_of(tmp_path / "training", name, [with_id("ada", "x"), with_id("ben", "y")])
        (count,) = check([path], [benchmark]).values()
        assert (count["user"], count["strangers"], count["dropped"]) == (expected, 1 - expected, expected), name


def test_strangers_are_said_with_what_to_do(tmp_path):
    benchmark = rows_of(tmp_path, "movielens_upi", [user("455")])
    path = rows_of(tmp_path, "rl_train", [with_id("455", "x")])
    text = overlap(OverlapOptions(train=[path], benchmarks=[benchmark]))
    assert "1 more have the id of a user of another data set, and are kept" in text and "NAME=FILE" in text


@pytest.mark.parametrize("source", ["rows.jsonl", "bench_upi.jsonl"])
def test_a_copy_never_takes_the_place_of_what_is_read(tmp_path, source):
    for name in ("rows.jsonl", "bench_upi.jsonl", "elsewhere/bench_upi.jsonl"):
        write_jsonl(tmp_path / name, [user_row(user("u1"))])
    before, train = (tmp_path / source).read_bytes(), {"rows.jsonl": "", "bench_upi.jsonl": "elsewhere"}[source]
    with pytest.raises(RecordError, match=f"{source} and its copy in --out are the same file"):
        check([str(tmp_path / train / source)], [str(tmp_path / "bench_upi.jsonl")], str(tmp_path))
    assert (tmp_path / source).read_bytes() == before
