"""Users and pairs that training rows share with benchmarks, in every kind of row."""

import json

import pytest

from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, user_row, write_jsonl
from alignxplore.synthesis.overlap import check


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
    counts = check(files, [str(tmp_path / "bench_upi.jsonl")], str(tmp_path / "clean"))
    assert counts[files[0]] == {"rows": 4, "user": 1, "without_user": 0, "target": 1, "pair": 2, "dropped": 2}
    assert counts[files[1]] == {"rows": 4, "user": 1, "without_user": 0, "target": 1, "pair": 2, "dropped": 2}
    assert counts[files[2]] == {"rows": 3, "user": 0, "without_user": 3, "target": 1, "pair": 2, "dropped": 1}
    left = [json.loads(line)["userid"] for line in (tmp_path / "clean" / "users.jsonl").read_text().splitlines()]
    assert left == ["x", "z"]
    assert check(files[:1], [str(tmp_path)])[files[0]] == counts[files[0]], "a folder of benchmarks"
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
    for item, found in ((answers, 1), (half, 0)):
        write_jsonl(
            tmp_path / "sft.jsonl", [{"prompt": PromptSet().infer([item, *user("x").history], past), "completion": []}]
        )
        (count,) = check([str(tmp_path / "sft.jsonl")], [str(tmp_path / "bench_upi.jsonl")]).values()
        assert (count["target"], count["pair"]) == (found, found)
