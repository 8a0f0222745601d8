"""The kill suite itself: what it strikes after it was ended early."""

import json
import os

import pytest

from tests.reliability import kills
from tests.reliability.kills import Stage, Suite

STAGE = Stage("sleeping", lambda out: ["true"], begun=lambda out: True, made=lambda out: "nothing")


@pytest.fixture
def struck(tmp_path, monkeypatch):
    """Numbers that were struck, in their order; a real undisturbed run, and no real moment."""
    numbers = []
    monkeypatch.setitem(os.environ, "KILLS", "4")
    monkeypatch.setattr(kills, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(kills, "git_commit", lambda: "0123456789ab")
    monkeypatch.setattr(Suite, "moment", lambda self, number, count: numbers.append(number))
    return numbers


def end_early(place):
    """A suite of four of which two are left."""
    suite = Suite(STAGE, place / "first")
    suite.all(4)
    counts = json.loads(suite._results.read_text())
    suite._results.write_text(json.dumps(counts | {"numbers": counts["numbers"][:2], "survived": 2}))


def test_moments_of_an_earlier_run_are_not_struck_again(struck, tmp_path):
    end_early(tmp_path)
    second = Suite(STAGE, tmp_path / "second")
    second.all(4)
    assert sorted(struck[:4]) == [0, 1, 2, 3] and struck[4:] == struck[2:4]
    assert second.counts.survived == 2 and second.counts.numbers == struck[:4]


@pytest.mark.parametrize("case", ["other code", "changed code", "other length", "no kill suite"])
def test_what_was_not_the_same_suite_is_struck_anew(struck, tmp_path, monkeypatch, case):
    end_early(tmp_path)
    if case == "other code":
        monkeypatch.setattr(kills, "git_commit", lambda: "ba9876543210")
    if case == "changed code":
        end = json.loads((kills.RESULTS / "sleeping.json").read_text()) | {"commit": "0123456789ab+"}
        (kills.RESULTS / "sleeping.json").write_text(json.dumps(end))
        monkeypatch.setattr(kills, "git_commit", lambda: "0123456789ab+")
    if case == "no kill suite":
        monkeypatch.delitem(os.environ, "KILLS")
    Suite(STAGE, tmp_path / "second").all(5 if case == "other length" else 4)
    assert len(struck) == 4 + (5 if case == "other length" else 4)
