"""Writes the counts of the last kill suite into RELIABILITY.md: `python -m tests.reliability`, after
`./test.sh --kill`."""

import json
import re

from tests import ROOT
from tests.reliability.kills import RESULTS

PAGE = ROOT / "RELIABILITY.md"
SECTION = re.compile(r"(?<=<!-- kills -->\n).*(?=<!-- end of kills -->)", re.DOTALL)
STAGES = ("building", "synthesis", "scoring", "SFT", "RL", "RL async", "summaries", "judgements")


def table(found: dict[str, dict]) -> str:
    """The counts as Markdown."""
    rows = [
        "| stage | moments | SIGKILL | Ctrl-C | survived | with a fault | units done when struck | requests repeated |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    for stage in STAGES:
        one = found.get(stage)
        if one is None:
            rows.append(f"| {stage} | none yet | | | | | | |")
            continue
        cells = [one["moments"], one["struck"]["SIGKILL"], one["struck"]["SIGINT"], one["survived"]]
        cells += [one["moments"] - one["survived"], one["finished"], one["asked_again"]]
        rows.append(f"| {stage} | {' | '.join(map(str, cells))} |")
    faults = [(stage, text) for stage in STAGES for text in found.get(stage, {}).get("faults", ())]
    if faults:
        rows += ["", "What was found:", "", *(f"- {stage}, {text.splitlines()[0][:90]}" for stage, text in faults)]
    said = (
        "A moment in which the run had already ended counts as no strike. Stages that ask no endpoint repeat nothing."
    )
    commits = ", ".join(sorted({one["commit"] for one in found.values()}))
    return "\n".join([*rows, "", f"At commit {commits}, on a CPU with tiny models.", said, ""])


if __name__ == "__main__":
    found = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    PAGE.write_text(SECTION.sub(lambda _: table(found), PAGE.read_text()))
