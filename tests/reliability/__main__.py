"""Writes the counts of the last kill suite into RELIABILITY.md: `python -m tests.reliability`, after
`./test.sh --kill`. Stages that were not struck here keep their rows."""

import json
import re

from tests import ROOT
from tests.reliability.kills import RESULTS

PAGE = ROOT / "RELIABILITY.md"
SECTION = re.compile(r"(?<=<!-- kills -->\n).*(?=<!-- end of kills -->)", re.DOTALL)
STAGES = ("building", "synthesis", "scoring", "SFT", "RL", "RL async", "summaries", "judgements")
HEAD = (
    "| stage | moments | SIGKILL | Ctrl-C | survived | with a fault | units done when struck | requests repeated | "
    "commit |"
)
SAID = (
    "On a CPU with tiny models. A moment in which the run had already ended counts as no strike. Stages that ask no\n"
    "endpoint repeat nothing."
)


def row(stage: str, counts: dict) -> str:
    """A stage's line of the table."""
    cells = [counts["moments"], counts["struck"]["SIGKILL"], counts["struck"]["SIGINT"], counts["survived"]]
    cells += [counts["moments"] - counts["survived"], counts["finished"], counts["asked_again"], counts["commit"][:7]]
    return f"| {stage} | {' | '.join(map(str, cells))} |"


def section(results: dict[str, dict], old: str) -> str:
    """The table as Markdown, with the faults of the stages that were found.

    Args:
        old: what stands in the page.
    """
    lines = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| ")}
    none = "| {} | none yet | | | | | | | |"
    rows = [
        row(stage, results[stage]) if stage in results else lines.get(stage, none.format(stage)) for stage in STAGES
    ]
    faults = [(stage, text) for stage in STAGES for text in results.get(stage, {}).get("faults", ())]
    if faults:
        rows += ["", "What was found:", "", *(f"- {stage}, {text.splitlines()[0][:90]}" for stage, text in faults)]
    return "\n".join([HEAD, "|---" * HEAD.count("| ") + "|", *rows, "", SAID, ""])


if __name__ == "__main__":
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    PAGE.write_text(SECTION.sub(lambda old: section(results, old.group()), PAGE.read_text()))
