"""What the demo shows, as HTML. Every text that comes from data or from a model is escaped here.

Evidence lights up by CSS alone: a statement is a checkbox, and a rule names the items that it rests on.
"""

import difflib
import html
from collections.abc import Sequence
from string import ascii_uppercase

from alignxplore.ask.evidence import statements
from alignxplore.ask.models import Verdict
from alignxplore.ask.telling import choices, short
from alignxplore.prompts import parse_answer
from alignxplore.records import Interaction
from alignxplore.summarize import Summaries

MOST = 200  # interactions that are shown; of a longer history the newest
LONGEST = 20_000  # characters of an answer that are shown

CSS = """
.axp ol {list-style: none; padding: 0; margin: 0; max-height: 34em; overflow-y: auto}
.axp li {display: grid; grid-template-columns: minmax(2.2em, max-content) 1fr 1fr; gap: .5em; padding: .25em 0;
  border-bottom: 1px solid var(--border-color-primary); font-size: .9em; overflow-wrap: anywhere}
.axp li > b {font-weight: 400; opacity: .75}
.axp li.gone {opacity: .35; text-decoration: line-through}
.axp .over {opacity: .85}
.axp .head {font-weight: 600; opacity: .85}
.axp pre {white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85em; margin: .2em 0; max-height: 14em;
  overflow-y: auto; background: var(--background-fill-secondary); color: var(--body-text-color); padding: .5em;
  border-radius: 6px}
.axp .note {font-size: .85em; opacity: .85; margin: .2em 0}
.axp .says {display: flex; flex-wrap: wrap; gap: .35em}
.axp .says label {border: 1px solid var(--border-color-primary); border-radius: 1em; padding: .2em .7em;
  cursor: pointer; font-size: .9em; overflow-wrap: anywhere}
.axp .says input {position: absolute; opacity: 0; width: 1px; height: 1px}
.axp .says label:has(input:checked), .axp .says label:hover {background: #ffd54d; color: #1a1a1a}
.axp .says label:has(input:focus-visible) {outline: 2px solid var(--color-accent)}
.axp .says small {opacity: .85; color: inherit}
.axp ins {background: #b9e8c4; color: #10361b; text-decoration: none}
.axp del {background: #f6c3c0; color: #4a1110}
.axp table {border: 0 !important; border-collapse: collapse; width: 100%; font-size: .9em}
.axp tbody, .axp tr {border: 0 !important}
.axp td, .axp th {border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
  padding: .3em .5em; text-align: left}
.axp td:nth-child(3) {min-width: 9em}
.axp .scroll {overflow-x: auto; container-type: inline-size}
.axp td.number, .axp th.number {text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums}
@media (pointer: coarse) {.axp .says label {padding: .6em .9em}}
"""
_LIT = "background: #ffd54d; color: #1a1a1a; opacity: 1; border-radius: 4px"
_AGAINST = "outline: 2px dashed #d55e00; opacity: 1; border-radius: 4px"
# A line of six runs out of a phone: there it is two of three, below a head of two of three. It stands beside the table
# because Gradio takes such a rule out of a page's own style.
_NARROW = """<style>@container (max-width: 34em) {
  #verdicts tr {display: grid; grid-template-columns: 4fr 5fr 6fr; margin: 0 !important; padding: .35em 0 !important;
    border-bottom: 1px solid var(--border-color-primary) !important}
  #verdicts td, #verdicts th {border: 0 !important; min-width: 0; padding: .1em .4em !important;
    overflow-wrap: anywhere; text-align: left !important}
  #verdicts td[colspan] {grid-column: 1 / -1}
}</style>"""


def _box(inside: str) -> str:
    return f'<div class="axp">{inside}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def told(text: str) -> str:
    """A sentence by itself."""
    return _box(_note(text))


def shown_places(count: int) -> range:
    """Places of the interactions that are shown."""
    return range(max(0, count - MOST), count)


def history(interactions: Sequence[Interaction], omissions: Sequence[int] = ()) -> str:
    """The choices, oldest first; those that are left out are struck through."""
    places = shown_places(len(interactions))
    lines = ['<li class="head"><b></b><span>chosen</span><span>passed over</span></li>']
    for place in places:
        interaction, css_class = interactions[place], ' class="gone"' if place in omissions else ""
        over = html.escape(short(interaction.rejected)) if interaction.rejected else ""
        chosen = html.escape(short(interaction.chosen))
        lines.append(
            f'<li{css_class}><b>{place + 1}</b><span class="e{place}c">{chosen}</span>'
            f'<span class="over e{place}r">{over}</span></li>'
        )
    older = _note(f"{places.start:,} older choices are read, too, and not shown.") if places.start else ""
    return _box(f'<div id="history">{older}<ol>{"".join(lines)}</ol></div>')


def stages(
    answers: dict[int, str], slices: Sequence[Sequence[Interaction]], summaries: Summaries | None, form: str
) -> str:
    """The answers of the stages so far: reasoning and summary of each, as they are written."""
    if not answers and not summaries:
        return told("Waiting for the first words ...")
    parts = []
    for stage, text in sorted(answers.items()):
        count, past = choices(len(slices[stage])), " and the summary before" if stage else ""
        of = f"Stage {stage + 1} of {len(slices)}" if len(slices) > 1 else "One stage"
        parts.append(f'<p class="head">{of}: reads {count}{past}</p><pre>{html.escape(_tail(text))}</pre>')
        answer = parse_answer(text, form)
        if summaries and answer.problem:
            parts.append(_note(f"Bad format: {answer.problem}. No summary is handed on."))
    if summaries:
        if not summaries.stages:
            parts.append(_note(f"Nothing was written ({summaries.status}): {summaries.error}"))
        elif dropped := sum(stage.dropped for stage in summaries.stages):
            parts.append(_note(f"{dropped:,} of the oldest choices did not fit the window and were left out."))
        if summaries.stages and summaries.stages[-1].cut:
            parts.append(_note("The answer was cut at the largest number of tokens."))
    return _box("".join(parts))


def _tail(text: str) -> str:
    return text if len(text) <= LONGEST else f"… {text[-LONGEST:]}"


def evidence(panel: int, summary: str, interactions: Sequence[Interaction], omissions: Sequence[int] = ()) -> str:
    """The statements of a summary. Clicking one lights up what speaks for it in the history, and frames what speaks
    against it; what is left out does neither."""
    items = [Interaction("") if place in omissions else interaction for place, interaction in enumerate(interactions)]
    claims, rules, labels = statements(summary, items), [], []
    for number, statement in enumerate(claims):
        name = f"says-{panel}-{number}"
        chosen, rejected = [f".e{x}c" for x in statement.chosen], [f".e{x}r" for x in statement.rejected]
        sides = {1: (chosen, rejected), -1: (rejected, chosen), 0: (chosen + rejected, [])}[statement.sign]
        for places, style in zip(sides, (_LIT, _AGAINST)):
            if places:
                selector = ", ".join(f"#history {place}" for place in places)
                rules.append(f"body:has(#{name}:checked, label[for={name}]:hover) :is({selector}) {{{style}}}")
        count = f"{len(sides[0])} for, {len(sides[1])} against"
        if not statement.sign:
            count = f"{len(sides[0])} item{'' if len(sides[0]) == 1 else 's'}"
        labels.append(
            f'<label for="{name}"><input type="checkbox" id="{name}">{html.escape(statement.text)} '
            f"<small>{count}</small></label>"
        )
    if not labels:
        return _box("")
    has_signs = any(statement.sign for statement in claims)
    frame_note = " Those against it are framed." if has_signs else ""
    basis = "its attribute" if has_signs else "its words"
    head = _note(f"Click a statement: the items that speak for it, by {basis}, light up in the history.{frame_note}")
    return _box(f'<style>{"".join(rules)}</style>{head}<div class="says">{"".join(labels)}</div>')


def difference(before: str, after: str) -> str:
    """What changed from one text to another, word by word; empty where nothing did."""
    if not before or before == after:
        return _box("")
    old_words, new_words = before.split(), after.split()
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old_words, new_words, autojunk=False).get_opcodes():
        if kind in ("delete", "replace"):
            parts.append(f"<del>{html.escape(' '.join(old_words[a:b]))}</del>")
        if kind in ("insert", "replace"):
            parts.append(f"<ins>{html.escape(' '.join(new_words[c:d]))}</ins>")
        if kind == "equal":
            parts.append(html.escape(" ".join(new_words[c:d])))
    return _box(f'<p class="head">What changed</p><p>{" ".join(parts)}</p>')


def verdicts(rows: Sequence[tuple[str, Verdict]], items: Sequence[str], chosen: str | None) -> str:
    """A line a text and downstream model: its pick, how sure it is, P(A) in each order."""
    lines = []
    for text, verdict in rows:
        head = f"<td>{html.escape(text)}</td><td>{html.escape(verdict.judge)}</td>"
        if verdict.error:
            lines.append(f'<tr>{head}<td colspan="4">failed: {html.escape(verdict.error)}</td></tr>')
            continue
        pick = "neither" if verdict.pick is None else ascii_uppercase[verdict.pick]
        pick += " (the order decides)" if verdict.wavers else ""
        shares = [max(verdict.shares), *(order[0] for order in verdict.orders)]
        cells = "".join(f'<td class="number">{100 * share:.1f} %</td>' for share in shares)
        lines.append(f"<tr>{head}<td>{pick}</td>{cells}</tr>")
    numbers = ("sure", "P(A), A first", "P(A), B first")
    head = "".join(f"<th>{name}</th>" for name in ("reads", "downstream model", "picks"))
    head += "".join(f'<th class="number">{name}</th>' for name in numbers)
    truth = f"The person took {ascii_uppercase[items.index(chosen)]}." if chosen in items else ""
    table = f'{_NARROW}<div class="scroll"><table id="verdicts"><tr>{head}</tr>{"".join(lines)}</table></div>'
    return _box(f"{table}{_note(truth)}")
