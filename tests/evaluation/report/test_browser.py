"""report.html in a real browser (headless Chromium by Playwright): every control does what it says, and the browser
has nothing to complain about."""

import pytest

from alignxplore.evaluation.report import page as report_page
from alignxplore.evaluation.report.tables import Table
from alignxplore.evaluation.rows import Result

OUTCOMES = {  # user → (sft, rl): value, outcome, P(chosen) shown first and second
    "both": ((1, "ok", (0.9, 0.8)), (1, "ok", (0.7, 0.6))),
    "gain": ((0, "ok", (0.2, 0.3)), (1, "ok", (0.7, 0.6))),
    "flip": ((0.5, "ok", (0.9, 0.1)), (0, "ok", (0.4, 0.3))),
    "bad": ((0.5, "bad_format", None), (1, "ok", (0.6, 0.9))),
    "unread": ((0.5, "parse_failure", None), (0.5, "ok", (0.5, 0.5))),
    "lost": ((None, "missing", None), (0, "ok", (0.1, 0.2))),
}
SHOWN = {  # what is left of them by each choice of "show", for sft, beside rl
    "all": list(OUTCOMES),
    "right": ["both"],
    "wrong": ["gain"],
    "undecided": ["flip"],
    "bad format": ["bad"],
    "answer not read": ["unread"],
    "missing": ["lost"],
    "the choice flips with the order": ["flip"],
    "the two policies disagree": ["gain", "flip", "bad", "unread", "lost"],
}
ATTACK = "</script><img src=x onerror=\"document.title='broken'\">"


def summary(policy: str, user: str, outcome: str) -> dict:
    bad = outcome == "bad_format"
    stage = {"reasoning": "because", "summary": "" if bad else f"{policy} says: comedy liked, westerns hated."}
    stage |= {"problem": "no think block" if bad else None, "dropped": 2, "prompt": 0}
    stage |= {"text": "a raw answer"} if bad else {}
    return {"policy": policy, "setting": "full", "seed": 0, "error": None, "stages": [stage]}


def score(policy: str, judge: str, value: float | None, outcome: str, orders: tuple | None) -> dict:
    unread_texts = ["hm?"] if outcome == "parse_failure" else []
    of = {"policy": policy, "setting": "full", "seed": 0, "judge": judge, "protocol": "choice", "unread": unread_texts}
    return of | {"value": value, "outcome": outcome, "p": None, "orders": [orders] if orders else None, "prompt": 1}


def sample(benchmark: str, user: str) -> dict:
    history = [{"query": "q", "chosen": f"comedy {i} {ATTACK}", "rejected": "a drama"} for i in range(2)]
    outcome_of = dict(zip(("sft", "rl"), OUTCOMES[user]))
    baseline = score("BM25", "none", float(user != "gain"), "ok", None) | {"setting": "direct"}
    return {
        "benchmark": benchmark,
        "record": f"r-{user}",
        "user": user,
        "kinds": ["wrong"],
        "target": {"query": None, "chosen": ["a farce", "a romp"], "rejected": ["a western", "a war film"]},
        "shown": 3,
        "history": history,
        "prompts": ["the prompt", "the question"],
        "summaries": [summary(policy, user, outcome) for policy, (_, outcome, _) in outcome_of.items()],
        "scores": [score(policy, judge, *values) for judge in ("qwen", "gpt") for policy, values in outcome_of.items()]
        + [baseline],
    }


def html(texts: str = "all") -> str:
    head, body = ["policy", "accuracy"], [["sft", "50.00 [1.00, 99.00]"], ["rl", "–"], ["base", "9.00"]]
    body.insert(1, ["published: A", "80.00"])
    first = Table("a", "First", head, body, cells={(0, 1): ("books", "sft", "full", "gpt", "choice")})
    samples = [sample(name, user) for name in ("films", "books") for user in OUTCOMES]
    key = {"protocol": "choice", "setting": "full", "benchmark": "films", "policy": "sft", "judge": "qwen"}
    rows = [Result(**key, n=9, accuracy=0.6, ci_low=0.5, ci_high=0.7)]
    return report_page.page([first], [Table("b", "More", ["x"], [["1"]])], rows, [], samples, "", "", texts=texts)


def users(page) -> list[str]:
    """The users one sees by going through what is shown."""
    names, count = [], page.inner_text("#count")
    total = 0 if count == "none" else int(count.split()[-1])
    for _ in range(total):
        names.append(page.inner_text("#sample > p").split()[1])
        page.click("#after")
    return names


def browse(page):
    page.evaluate("document.getElementById('samples').scrollIntoView()")
    page.wait_for_selector("#sample > p")


def test_a_heading_sorts_and_a_published_row_stays_with_ours(new_page):
    page = new_page(html())
    column = "#tables tbody tr td:first-child"
    page.click("#tables th:nth-child(2) button")
    assert page.locator(column).all_inner_texts() == ["base", "sft", "published: A", "rl"]
    page.locator("#tables th:nth-child(2) button").press("Enter")  # by keyboard, downwards
    assert page.locator(column).all_inner_texts() == ["sft", "published: A", "base", "rl"]
    assert page.get_attribute("#tables th:nth-child(2)", "aria-sort") == "descending"


def test_a_column_is_hidden_and_comes_back(new_page):
    page = new_page(html())
    page.click("#tables .columns summary")
    assert page.is_visible("text=80.00")
    page.uncheck("#tables .columns input")
    assert not page.is_visible("text=80.00") and page.is_visible("text=published: A")
    page.check("#tables .columns input")
    assert page.is_visible("text=80.00")


def test_samples_are_unpacked_when_they_are_looked_at_and_each_filter_finds_its_own(new_page):
    page = new_page(html(), viewport={"width": 1000, "height": 60})
    assert page.locator("#sample > *").count() == 0
    page.set_viewport_size({"width": 1000, "height": 900})
    browse(page)
    page.select_option("#left", "sft|full|0")
    page.select_option("#right", "rl|full|0")
    for name, names in SHOWN.items():
        page.select_option("#outcome", name)
        assert users(page) == names, name
    page.select_option("#outcome", "all")
    page.fill("#search", "RL SAYS")
    assert page.inner_text("#count") == "1 of 6"
    page.fill("#search", "nobody wrote this")
    assert page.inner_text("#count") == "none" and "No sample fits" in page.inner_text("#sample")


def test_a_baseline_which_no_downstream_model_reads_stands_beside_each_of_them(new_page):
    page = new_page(html())
    browse(page)
    page.select_option("#left", "BM25|direct|0")
    page.select_option("#right", "sft|full|0")
    for reader in ("gpt|choice", "qwen|choice"):
        page.select_option("#reader", reader)
        page.select_option("#outcome", "wrong")
        assert users(page) == ["gain"]
        page.select_option("#outcome", "the two policies disagree")
        assert users(page) == [user for user, ((value, *_), _) in OUTCOMES.items() if value != float(user != "gain")]


def test_a_number_leads_to_its_samples(new_page):
    page = new_page(html())
    page.click("text=50.00 [1.00, 99.00]")
    page.wait_for_selector("#sample > p")
    chosen = [page.input_value(f"#{name}") for name in ("benchmark", "left", "reader")]
    assert chosen == ["books", "sft|full|0", "gpt|choice"]


def test_a_number_leads_to_its_own_samples_whatever_signs_are_in_a_name_or_to_none(new_page):
    """What several training runs have together, and the bounds of a world, are of no sample."""
    names = ["sft", "a|full", "a", "a%7Cfull"]
    rows = [("a (2 training runs)", "full", "gpt"), ("best possible", "bound", "none"), ("BM25", "direct", "none")]
    rows += [(name, "full", "g|t") for name in names]
    cells = {(line, 1): ("films", *row, "choice") for line, row in enumerate(rows)}
    entry = sample("films", "both")
    entry["scores"] = [entry["scores"][-1], score("sft", "gpt", 1, "ok", None) | {"protocol": "paper"}]
    entry["scores"] += [score(name, "g|t", 1, "ok", None) for name in names]
    body = [[policy, f"{line}.00"] for line, (policy, *_) in enumerate(rows)]
    table = Table("a", "First", ["policy", "accuracy"], body, cells=cells)
    page = new_page(report_page.page([table], [], [], [], [entry], "", ""))
    assert page.locator("[data-cell]").all_inner_texts() == ["2.00", "3.00", "4.00", "5.00", "6.00"]
    chosen = []
    for button in page.locator("[data-cell]").all():
        button.click()
        page.wait_for_selector("#sample > p")
        chosen.append(
            page.evaluate("['left', 'reader'].map(id => document.getElementById(id).selectedOptions[0].text)")
        )
    assert chosen == [["BM25, direct", "g|t, choice"], *([f"{name}, full", "g|t, choice"] for name in names)]


def test_a_statement_marks_its_words_in_the_history_and_again_unmarks_them(new_page):
    page = new_page(html())
    browse(page)
    page.click(".statement:has-text('comedy liked') >> nth=0")
    assert page.locator("mark").all_inner_texts() == ["comedy", "comedy"]
    assert "2 hold a word of the statement" in page.inner_text("details.history summary")
    page.click(".statement[aria-pressed=true] >> nth=0")
    assert page.locator("mark").count() == 0


def test_a_statement_shows_the_choices_for_it_and_against_it(new_page):
    """Where eval/faithfulness.py has looked for them; of a history of 3 the newest 2 are in the page."""
    evidence = [
        {"start": 10, "end": 22, "verdict": "supported", "supports": [0, 2], "contradicts": [1]},
        {"start": 24, "end": 38, "verdict": "not there", "supports": [], "contradicts": []},
    ]
    samples = [sample("films", user) for user in OUTCOMES]
    for entry in samples:
        entry["summaries"][0]["evidence"] = {"qwen": evidence}
    page = new_page(report_page.page([], [], [], [], samples, "", ""))
    browse(page)
    page.select_option("#left", "sft|full|0")
    page.select_option("#right", "rl|full|0")
    page.click(".statement.supported")
    cards = [card.get_attribute("class") for card in page.locator("details.history .card").all()]
    assert cards == ["card against-it", "card for-it"]
    assert "supported: 2 for it, 1 against it" in page.inner_text("details.history summary")
    assert page.inner_text(".statement.supported") == "comedy liked" and page.locator("mark").count() == 0
    page.click(".statement:has-text('westerns hated') >> nth=1")  # of the other policy: its words alone
    assert page.locator(".for-it").count() == 0 and "hold a word" in page.inner_text("details.history summary")
    page.click(".statement.not-there")
    assert "not there: 0 for it" in page.inner_text("details.history summary")
    page.click(".statement.not-there")
    assert "for it" not in page.inner_text("details.history summary")


def test_everything_known_of_a_sample_is_there(new_page):
    page = new_page(html())
    browse(page)
    page.select_option("#left", "sft|full|0")
    page.select_option("#outcome", "bad format")
    for box in page.locator("#sample details summary").all():
        if box.evaluate("x => !x.parentNode.open"):
            box.click()
    page_text = page.inner_text("#sample")
    for text in (
        "a raw answer",
        "the prompt",
        "the question",
        "no think block",
        "2 oldest",
        "a farce",
        "a romp",
        "a war film",
    ):
        assert text in page_text, text
    assert ATTACK in page_text and page.title() == "Results", "a text of a user stays a text"
    page.select_option("#outcome", "answer not read")
    assert "answer that could not be read" in page.inner_text("#sample")


def test_keys_go_on_and_back_and_search_but_not_while_one_types(new_page):
    page = new_page(html())
    browse(page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.inner_text("#count") == "2 of 6"
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.input_value("#search") == "jk" and page.inner_text("#count") == "none"


def test_without_texts_no_text_of_users_or_models_is_in_the_page(new_page):
    page = new_page(html(texts="none"))
    browse(page)
    page.select_option("#left", "sft|full|0")
    page.select_option("#outcome", "right")
    assert page.inner_text("#count") == "1 of 1"
    all_data = page.evaluate("JSON.stringify(view.all)")
    for text in ("comedy", "farce", "because", "the prompt", "the question", "raw answer", "hm?"):
        assert text not in all_data, text
    assert "Texts are left out" in page.inner_text("#left_out")


PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# The smaller side of what a finger can hit, in CSS pixels. A statement is a part of a sentence: its lines are wide
# apart instead.
SIZES = """selector => [...document.querySelectorAll(selector)].filter(x => x.offsetParent).map(x => {
    const box = x.getBoundingClientRect(); return [x.outerHTML.slice(0, 60), Math.min(box.width, box.height)]; })"""


def test_a_finger_hits_what_can_be_tapped(new_page):
    page = new_page(html(), **PHONE)
    browse(page)
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    controls = page.evaluate(SIZES, "button:not(.statement), select, input, summary, nav a")
    assert len(controls) > 20 and [control for control in controls if control[1] < 24] == []
    lines = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.statement')).lineHeight)")
    assert lines >= 24


def test_on_a_phone_a_probability_stands_beside_its_bar_and_a_plot_is_as_large_as_ever(new_page):
    page = new_page(html(), **PHONE)
    browse(page)
    heights = page.evaluate("[...document.querySelectorAll('.order')].map(x => x.offsetHeight)")
    assert heights and max(heights) < 30, "two lines are higher"
    plot = page.evaluate("(x => [x.offsetWidth, x.naturalWidth])(document.querySelector('.plot img'))")
    assert plot[0] == plot[1] > 390 == page.evaluate("document.documentElement.scrollWidth")


def difference_page() -> str:
    """A main table of nine benchmarks, with a long name and differences."""
    marks = "(1 2 4 5 21 22 23 24)"
    body = [
        ["ours", *["71.00 [69.00, 73.00]"] * 9],
        ["published: DS-R1-Distill-Qwen-7B (not run here)", *["58.40"] * 9],
    ]
    body += [["ours − published", *[f"+12.60 [10.10, 15.10] {marks}"] * 9]]
    return report_page.page([Table("a", "First", ["policy", *"ABCDEFGHI"], body)], [], [], [], [], "", "")


def test_on_a_phone_the_first_column_leaves_room_for_numbers(new_page):
    page = new_page(difference_page(), **PHONE)
    widths = page.evaluate("[...document.querySelectorAll('#tables tr > :first-child')].map(x => x.offsetWidth)")
    heights = page.evaluate("[...document.querySelectorAll('#tables td')].map(x => x.getBoundingClientRect().height)")
    assert {height % 1 for height in heights} == {0}, "else a first cell may hide the line between two rows"
    assert max(widths) < 390 / 2 and page.locator("#tables tr").last.inner_text().endswith("(1 2 4 5 21 22 23 24)")


def test_on_a_projector_what_differs_stands_below_the_difference_and_seven_of_nine_columns_are_seen(new_page):
    page = new_page(difference_page(), viewport={"width": 1920, "height": 1080})
    ends = page.evaluate("[...document.querySelectorAll('#tables th')].map(x => x.getBoundingClientRect().right)")
    assert len([end for end in ends[1:] if end < 1920]) >= 7
    lines = page.evaluate("[...document.querySelectorAll('#tables td > span')].map(x => x.getClientRects().length)")
    assert lines == [1] * 9, "a difference and its interval stay on a line"


@pytest.mark.parametrize(
    "view",
    [
        {"viewport": {"width": 390, "height": 800}},
        {"color_scheme": "dark"},
        {"viewport": {"width": 2560, "height": 1440}},
    ],
)
def test_phone_projector_and_dark(new_page, view):
    page = new_page(html(), **view)
    browse(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "the page itself never scrolls sideways"
    )
    light = page.evaluate("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'")
    assert light == ("color_scheme" not in view)
