"""How a history, a summary in the making and a choice are shown in a terminal."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from string import ascii_uppercase

from alignxplore.ask.models import Verdict
from alignxplore.films.example import film
from alignxplore.records import Interaction
from alignxplore.summarize import Summaries

MOST = 20  # interactions that are shown; of a longer history the newest
LONGEST = 200  # characters of an item that are shown
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """A text that cannot move a terminal's cursor, colour it or turn its lines around."""
    return _CONTROL.sub("\ufffd", text)


def short(text: str, width: int = LONGEST) -> str:
    """An item on one line, cut where it is long."""
    line = safe(" ".join(film(text).split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"


def choices(count: int) -> str:
    """So many choices."""
    return "1 choice" if count == 1 else f"{count:,} choices"


def told_history(history: Sequence[Interaction]) -> str:
    """The newest choices, one a line."""
    first = max(0, len(history) - MOST)
    lines = [f"  ... {first:,} older ones"] if first else []
    for place, interaction in enumerate(history[first:], first + 1):
        over = f"  >  {short(interaction.rejected)}" if interaction.rejected else ""
        lines.append(f"{place:5}  {short(interaction.chosen)}{over}")
    return "\n".join(lines)


class Teller:
    """Prints the stages of a summary as they are written.

    Args:
        name: of the policy.
        slices: what each stage reads.
    """

    def __init__(self, name: str, slices: Sequence[Sequence[Interaction]]):
        self.name, self.slices = name, slices
        self._stage, self._text = -1, ""

    def hear(self, stage: int, text: str) -> None:
        """All of a stage's answer so far. One that is asked for again begins on a new line."""
        if stage != self._stage:
            self._open(stage)
        if not text.startswith(self._text):
            print("\n(again, for the connection broke)")
            self._text = ""
        print(safe(text[len(self._text) :]), end="", flush=True)
        self._text = text

    def _open(self, stage: int) -> None:
        stages = len(self.slices)
        past = "" if stage == 0 else " and the summary of the stage before"
        stage_of = "" if stages == 1 else f", stage {stage + 1} of {stages}"
        print(f"\n\n{self.name}{stage_of}: reads {choices(len(self.slices[stage]))}{past}\n")
        self._stage, self._text = stage, ""

    def end(self, summaries: Summaries) -> None:
        """Say what the answers were, by themselves."""
        last = summaries.stages[-1]
        dropped = sum(stage.dropped for stage in summaries.stages)
        print()
        if dropped:
            print(f"{dropped:,} of the oldest choices did not fit the window and were left out.")
        if last.cut:
            print("The answer was cut at --max_tokens.")
        if last.problem:
            print(f"No summary: the answer is in bad format ({last.problem}).")


def aligned(letter: str, item: str, chosen: bool) -> str:
    """An item with its letter."""
    return f"  {letter}  {short(item)}{'   (what the person chose)' if chosen else ''}"


def verdict_lines(rows: Sequence[tuple[str, Verdict]], items: Sequence[str]) -> str:
    """A line a judge and text: the pick, how sure of it on average, and in each order."""
    pair = len(items) == 2
    orders = ("A first", "B first") if pair else ("1st order", "2nd order")
    width = max(len(verdict.judge) for _, verdict in rows)
    text_width = max(len(text) for text, _ in rows)
    lines = [f"\n  {'':{width}}  {'':{text_width}}  picks    sure  {orders[0]:>10}  {orders[1]:>10}"]
    for text, verdict in rows:
        head = f"  {safe(verdict.judge):{width}}  {text:{text_width}}"
        if verdict.error:
            lines.append(f"{head}  failed: {safe(verdict.error)}")
            continue
        shares, pick = verdict.shares, verdict.pick
        place = pick if pick is not None else 0
        each = "  ".join(f"{100 * order[place]:8.1f} %" for order in verdict.orders)
        wavers = "   the order decides" if verdict.wavers else ""
        letter = "neither" if pick is None else ascii_uppercase[pick]
        lines.append(f"{head}  {letter:7} {100 * shares[place]:4.1f} %  {each}{wavers}")
    columns = min(shutil.get_terminal_size().columns, 100)
    note = "Sure: P(the picked item), mean of the orders; in each order beside it. No summary: the items alone."
    return "\n".join([*lines, "", *textwrap.wrap(note, columns)])
