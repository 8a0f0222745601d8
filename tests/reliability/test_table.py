"""The table of RELIABILITY.md: what was struck here is written, what was not is kept."""

from tests.reliability.__main__ import STAGES, section

COUNTS = {"moments": 4, "struck": {"SIGKILL": 2, "SIGINT": 1}, "survived": 3, "finished": 9, "asked_again": 0}
FOUND = {"RL": COUNTS | {"faults": ["moment 1: left behind\nmore"], "commit": "0123456789ab+"}}


def test_stages_that_were_not_struck_keep_their_rows():
    first = section({"SFT": COUNTS | {"faults": [], "commit": "aaaaaaaaaaaa"}}, "")
    second = section(FOUND, first).splitlines()
    assert second[2 : 2 + len(STAGES)] == [
        "| building | none yet | | | | | | | |",
        "| synthesis | none yet | | | | | | | |",
        "| scoring | none yet | | | | | | | |",
        "| SFT | 4 | 2 | 1 | 3 | 1 | 9 | 0 | aaaaaaa |",
        "| RL | 4 | 2 | 1 | 3 | 1 | 9 | 0 | 0123456 |",
        "| RL async | none yet | | | | | | | |",
        "| summaries | none yet | | | | | | | |",
        "| judgements | none yet | | | | | | | |",
    ]
    assert "- RL, moment 1: left behind" in second and not any("more" in line for line in second)
    assert {line.count("|") for line in second if line.startswith("|")} == {10}
