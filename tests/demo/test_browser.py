"""The demo in a real browser: everything on it is clicked, the browser has nothing to say, nothing is fetched from
elsewhere. The models behind it answer as `tests/demo/served.py` says."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignxplore.serving.server import free_port
from tests import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None and os.environ.get("CHROMIUM_EXPECTED"):
    pytest.fail("CHROMIUM_EXPECTED is set, and there is no Chromium on the PATH", pytrace=False)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")

FILMS = [
    "a film of whales",
    "a car race",
    "the deep sea",
    "a farm",
    "sails",
    "<img src=x onerror=alert(1)> ${1+1} {{7*7}}",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def write_persons(path: Path) -> None:
    def person(number: int) -> dict:
        chosen = [{"chosen": FILMS[(i + number) % 6], "rejected": FILMS[(i + 1 + number) % 6]} for i in range(6)]
        target = {"chosen": "the deep sea again", "rejected": f"a car race {number}", "query": "Which film?"}
        return {"userid": f"p{number}#1", "history": chosen, "target": target}

    path.write_text("".join(json.dumps(person(number)) + "\n" for number in range(3)))


@pytest.fixture(scope="module")
def url(model_folder, tmp_path_factory, environment) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    write_persons(folder / "own_upi.jsonl")
    command = [sys.executable, "-m", "tests.demo.served", str(model_folder), str(port), str(folder / "own_upi.jsonl")]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 400
    try:
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser, url):
    """opens the page; at the end the browser must have had nothing to say, and asked nobody else."""
    messages, pages = [], []

    def open_page(**view):
        page = browser.new_page(**({"viewport": {"width": 1300, "height": 900}} | view))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: messages.append(request.url) if not request.url.startswith(url) else None)
        page.on("response", lambda reply: messages.append(reply.url) if reply.status >= 400 else None)
        page.goto(url)
        page.wait_for_selector("#history li:nth-child(3)")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [line for line in messages if not line.startswith(("data:", "blob:"))] == []


def write(page) -> None:
    page.click("#write")
    page.wait_for_selector("#verdicts td")


def rows(page) -> list[list[str]]:
    """The table of choices, without its head."""
    lines = page.locator("#verdicts tr").all()[1:]
    return [line.locator("td").all_inner_texts() for line in lines]


def wait_for_rows(page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#verdicts')?.innerText.includes(text)", arg=text)


def is_lit(page, selector: str) -> bool:
    return page.locator(selector).evaluate("part => getComputedStyle(part).backgroundColor") == "rgb(255, 213, 77)"


def test_a_summary_is_watched_its_evidence_lights_up_and_models_choose(new_page):
    page = new_page()
    page.click("#write")
    page.wait_for_selector("#stages-0 pre")
    assert "<script>alert(1)</script>" in page.inner_text("#stages-0 pre")
    page.wait_for_selector("#verdicts td")
    assert page.input_value("#summary-1 textarea").startswith("Likes the sea.")
    table = rows(page)
    assert [row[0] for row in table] == ["no summary"] * 2 + ["sft"] * 2 + ["rl"] * 2
    assert table[0][2:] == ["neither (the order decides)", "50.0 %", "95.7 %", "4.3 %"]
    assert table[2][1:] == ["judge", "A", "95.7 %", "95.7 %", "95.7 %"]
    assert "The person took A." in page.inner_text("#choice")
    assert not is_lit(page, "#history .e2c")
    page.click("#evidence-0 label >> nth=0")
    page.mouse.move(0, 0)
    assert is_lit(page, "#history .e2c") and not is_lit(page, "#history .e1c")
    page.click("#evidence-0 label >> nth=0")
    page.mouse.move(0, 0)
    assert not is_lit(page, "#history .e2c")


def test_an_edited_text_is_read_beside_what_was_written(new_page):
    page = new_page()
    write(page)
    page.fill("#summary-0 textarea", "Loves cars.")
    page.wait_for_selector("#change-0 del")
    assert page.inner_text("#change-0 ins") == "Loves"
    page.click("#ask")
    wait_for_rows(page, "sft, edited")
    assert [row[0] for row in rows(page)][::2] == ["no summary", "sft", "sft, edited", "rl"]
    page.fill("#item-A textarea", "")
    page.click("#ask")
    page.wait_for_selector("text=Give two different items")


def test_what_is_left_out_is_not_read(new_page):
    page = new_page()
    page.click("#left-out input")
    page.click("#left-out ul[role=listbox] li >> nth=2")
    page.keyboard.press("Escape")
    page.wait_for_selector("#history li.gone")
    write(page)
    assert "One stage: reads 5 choices" in page.inner_text("#stages-0")
    page.click("#evidence-0 label >> nth=0")
    assert not is_lit(page, "#history .e2c")


def test_another_person_another_policy_and_slices(new_page):
    page = new_page()
    write(page)
    page.click("#person input")
    page.click("#person ul[role=listbox] li >> nth=1")
    page.wait_for_function("() => document.querySelector('#item-B textarea').value == 'a car race 1'")
    page.wait_for_function("() => document.querySelector('#summary-0 textarea').value == ''")
    page.click("#policy-1 input")
    page.click("#policy-1 ul[role=listbox] li:has-text('none')")
    page.click("#reads >> text=in three slices")
    write(page)
    assert "Stage 3 of 3: reads 2 choices and the summary before" in page.inner_text("#stages-0")
    assert {row[0] for row in rows(page)} == {"no summary", "sft"} and page.inner_text("#stages-1").strip() == ""


def test_a_history_of_ones_own(new_page):
    page = new_page()
    page.locator("button[role=tab]", has_text="Your own history").last.click()
    page.click("#read")
    page.wait_for_selector("text=no choice yet; type one choice a line")
    page.fill("#pasted textarea", "the wide sea > cars\n<script>alert(1)</script> > </li><b>x\nships")
    page.click("#read")
    page.wait_for_function("() => document.querySelectorAll('#history li').length == 4")
    assert "<script>alert(1)</script>\n</li><b>x" in page.inner_text("#history")
    write(page)
    assert "reads 3 choices" in page.inner_text("#stages-1") and len(rows(page)) == 6


def choose_second_person(page) -> None:
    page.click("#person input")
    page.click("#person ul[role=listbox] li >> nth=1")
    page.wait_for_function("() => document.querySelector('#item-B textarea').value == 'a car race 1'")


def read_own_history(page) -> None:
    page.locator("button[role=tab]", has_text="Your own history").last.click()
    page.fill("#pasted textarea", "the wide sea > cars\nships")
    page.click("#read")
    page.wait_for_function("() => document.querySelectorAll('#history li').length == 3")


@pytest.mark.parametrize("turn_to_another", [choose_second_person, read_own_history])
def test_what_is_written_about_one_person_never_stands_beside_another(new_page, turn_to_another):
    page = new_page()
    page.click("#reads >> text=in three slices")
    page.click("#write")
    page.wait_for_selector("#stages-0 pre")
    turn_to_another(page)
    page.wait_for_timeout(3000)  # the writing would have ended
    assert [page.input_value(f"#summary-{side} textarea") for side in range(2)] == ["", ""]
    assert [page.inner_text(part).strip() for part in ("#stages-0", "#stages-1", "#choice")] == ["", "", ""]
    write(page)
    assert page.input_value("#summary-0 textarea").startswith("Likes the sea.")


def test_a_text_that_cannot_be_read_does_not_end_the_writing(new_page):
    page = new_page()
    page.locator("button[role=tab]", has_text="Your own history").last.click()
    page.click("#write")
    page.click("#read")
    page.wait_for_selector("text=no choice yet; type one choice a line")
    page.wait_for_selector("#verdicts td")


def test_two_visitors_are_written_for_at_once_and_see_that_they_wait(new_page):
    pages = [new_page(), new_page()]
    for page in pages:
        page.click("#reads >> text=in three slices")
    for page in pages:
        page.click("#write")
    pages[1].wait_for_selector("text=Waiting for the first words")
    pages[1].wait_for_selector("#stages-0 pre")
    assert pages[0].locator("#verdicts td").count() == 0, "the first one is still being written"
    for page in pages:
        page.wait_for_selector("#verdicts td")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_runs_out_of_the_page(new_page, scheme):
    page = new_page(color_scheme=scheme, **PHONE)
    write(page)
    page.tap("#evidence-1 label >> nth=0")
    assert is_lit(page, "#history .e2c")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert min(label.bounding_box()["height"] for label in page.locator(".says label").all()) >= 32, "for a finger"
    box = page.locator(".scroll:has(#verdicts)")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), "nothing of the choices is a swipe away"
    parts = page.locator("#verdicts, #verdicts tbody, #verdicts tr").all()
    sides = "x => ['Top', 'Left', 'Right'].map(side => getComputedStyle(x)[`border${side}Width`])"
    frames = [part.evaluate(sides) for part in parts]
    assert {width for frame in frames for width in frame} == {"0px"}, "lines between rows, and no frame"
    ink = page.evaluate("getComputedStyle(document.body).color.match(/[0-9]+/)[0]")
    assert (int(ink) < 128) == (scheme == "light")


def test_the_page_holds_no_address_of_others_to_fetch(url):
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    for tag in ("<script", "<link"):
        parts = [part.partition(">")[0] for part in text.split(tag)[1:]]
        assert not any("//" in part.replace(url, "") for part in parts), parts
    for path in ("/docs", "/openapi.json", "/gradio_api/runs", "/gradio_api/file=/etc/passwd"):
        try:
            assert urllib.request.urlopen(url + path, timeout=10).status >= 400, path
        except urllib.error.HTTPError as error:
            assert error.code in (403, 404)
