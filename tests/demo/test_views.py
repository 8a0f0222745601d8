"""Texts of data and models are shown as texts, whatever they hold; sizes are bounded."""

import html
import re

from alignxplore.ask.models import Verdict
from alignxplore.demo import views
from alignxplore.records import Interaction
from alignxplore.summarize import Summaries

EVIL = '</span><script>alert(1)</script><img src=x onerror="alert(1)"> ${1+1} {{7*7}} \x1b[2J'
OURS = {
    "div",
    "ol",
    "li",
    "b",
    "span",
    "p",
    "pre",
    "style",
    "label",
    "input",
    "small",
    "ins",
    "del",
    "table",
    "tr",
    "td",
}


def tags(page: str) -> set[str]:
    return set(re.findall(r"<\s*([a-z0-9]+)", page, re.IGNORECASE)) - {"th"}


def test_markup_stays_text_everywhere():
    history = [Interaction(EVIL, EVIL, EVIL), Interaction("the sea")]
    slices, refusal = [history], Summaries(status="refused", error=EVIL)
    verdict = Verdict(EVIL, ((0.6, 0.4), (0.7, 0.3)))
    pages = [
        views.history(history, [0]),
        views.stages({0: EVIL}, slices, None, "think"),
        views.stages({}, slices, refusal, "think"),
        views.evidence(0, f"{EVIL}. Likes script alert.", history),
        views.difference(EVIL, f"{EVIL} <b>more</b>"),
        views.verdicts([(EVIL, verdict), ("x", Verdict(EVIL, error=EVIL))], [EVIL, "b"], EVIL),
        views.told(EVIL),
    ]
    for page in pages:
        assert tags(page) <= OURS and "onerror=&quot;" in page and "\x1b" not in html.unescape(views.history(history))


def test_a_long_history_shows_its_newest_and_keeps_their_numbers():
    page = views.history([Interaction(f"film {place} {'x' * 5000}") for place in range(10_000)])
    assert page.count("<li") == 1 + views.MOST and "9,800 older choices" in page and "<b>10000</b>" in page
    assert len(page) < 150_000


def test_a_statement_lights_up_its_items_and_nothing_that_is_left_out():
    history = [Interaction("whales", "cars"), Interaction("more whales", "houses"), Interaction("x", "y")]
    page = views.evidence(1, "Likes whales.", history)
    assert "#history .e0c, #history .e1c" in page and 'for="says-1-0"' in page and "2 items" in page
    without = views.evidence(1, "Likes whales.", history, [0])
    assert ".e0c" not in without and "#history .e1c" in without and "1 item<" in without


def test_what_speaks_against_a_statement_is_framed_where_attributes_are_known():
    history = [Interaction("a farce", "a thriller"), Interaction("a manhunt", "a satire")]
    page = views.evidence(0, "Likes humour.", history)
    light, frame = re.findall(r":is\(([^)]*)\) {([a-z]+):", page)
    assert (light, frame) == (("#history .e0c", "background"), ("#history .e1r", "outline"))
    assert "1 for, 1 against" in page and "by its attribute" in page


def test_only_what_changed_is_marked():
    page = views.difference("likes the sea", "hates the sea")
    assert "<del>likes</del> <ins>hates</ins> the sea" in page
    assert "What changed" not in views.difference("", "a") + views.difference("a", "a")
