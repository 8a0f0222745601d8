"""The control whose targets are turned by a coin."""

import re
import subprocess
import sys

from tests import ROOT

STUDY = "shuffle_targets"


def test_a_row_is_turned_the_same_way_by_whichever_name_its_user_stands_there(study, jsonl):
    history = [{"chosen": f"a{i}", "rejected": f"b{i}", "query": None} for i in range(6)]
    rows = [{"history": history, "mid_position": 3} for _ in range(20)]
    by_name = [
        [row["history"] for row in study.shuffled(jsonl(*({name: f"u{i}"} | row for i, row in enumerate(rows))))]
        for name in ("uid", "userid")
    ]
    assert by_name[0] == by_name[1] and 0 < sum(turned[3]["chosen"] == "b3" for turned in by_name[0]) < 20


def test_rows_are_not_written_over_and_need_a_target_in_the_middle(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"uid": "u", "history": [{"chosen": "a", "rejected": "b"}]}\n')
    for out, problem in ((rows, "are the same file"), (tmp_path / "out.jsonl", "rows.jsonl:1.*mid_position")):
        ran = subprocess.run(
            [sys.executable, ROOT / "studies/shuffle_targets.py", "--data", rows, "--out", out],
            capture_output=True,
            text=True,
        )
        assert ran.returncode and re.search(problem, ran.stderr) and "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"] and rows.read_text()
