"""A real browser for the pages: headless Chromium by Playwright."""

import os
import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None and os.environ.get("CHROMIUM_EXPECTED"):
    pytest.fail("CHROMIUM_EXPECTED is set, and there is no Chromium on the PATH", pytrace=False)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser, tmp_path):
    """opens a page; at the end the browser must have had nothing to say of any."""
    messages, pages = [], []

    def open_page(text: str, **view):
        (tmp_path / "report.html").write_text(text, encoding="utf-8")
        page = browser.new_page(**view)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.append(request.url) if "report.html" not in request.url else None)
        page.goto((tmp_path / "report.html").as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [line for line in messages if not line.startswith(("data:", "blob:"))] == []
