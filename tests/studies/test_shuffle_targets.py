"""The control whose targets are turned by a coin."""

STUDY = "shuffle_targets"


def test_a_row_is_turned_the_same_way_by_whichever_name_its_user_stands_there(study, jsonl):
    history = [{"chosen": f"a{i}", "rejected": f"b{i}", "query": None} for i in range(6)]
    rows = [{"history": history, "mid_position": 3} for _ in range(20)]
    by_name = [
        [row["history"] for row in study.shuffled(jsonl(*({name: f"u{i}"} | row for i, row in enumerate(rows))))]
        for name in ("uid", "userid")
    ]
    assert by_name[0] == by_name[1] and 0 < sum(turned[3]["chosen"] == "b3" for turned in by_name[0]) < 20
