"""report.html: one file that needs nothing else, whose texts cannot become markup, and whose tables hold every
cell."""

import base64
import gzip
import json
import random
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from alignxplore.evaluation.report import page, samples
from alignxplore.evaluation.report import page as report_page
from alignxplore.evaluation.report.tables import Table
from alignxplore.evaluation.results import result_rows
from tests.evaluation.made_up import score

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 \"'"


class Page(HTMLParser):
    """Counts tags, collects what is loaded from elsewhere, the cells of the tables, and the scripts by type."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.cells, self.scripts, self._in = [], [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [values[key] for key in ("src", "href", "action") if key in values]
        if tag != "button":  # in a cell
            self._in = tag if tag != "script" else values.get("type", "text/javascript")
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self._in in ("td", "th"):
            self.cells[-1] += data
        elif self._in in ("application/gzip", "text/javascript"):
            self.scripts[self._in] = self.scripts.get(self._in, "") + data

    def handle_endtag(self, tag):
        self._in = self._in if tag == "button" else None


def unpacked(page: Page) -> list[dict]:
    """The samples of a page with one benchmark."""
    return json.loads(gzip.decompress(base64.b64decode(page.scripts["application/gzip"])))


@pytest.fixture
def page_parts() -> tuple[str, list[Table], list[dict]]:
    """The text of a page, its tables and its samples; user texts hold an attack."""
    rng = random.Random(0)
    scores = [
        score(
            policy=policy,
            record=f"r{i}",
            user=f"u{i}",
            target=f"t{i}",
            item=f"t{i}",
            value=float(rng.random() < 0.7),
            p=0.6,
            orders=((0.7, 0.5),),
        )
        for policy in ("base", ATTACK)
        for i in range(30)
    ]
    tables = [
        Table("a", "First", ["policy", "accuracy"], [["base", "1.00 [0.50, 1.50]"], [ATTACK, "–"]], ATTACK),
        Table("b", "Second", ["x"], [["1"]]),
    ]
    sample_rows = [
        {
            "benchmark": "mind",
            "record": "r0",
            "user": ATTACK,
            "kinds": [],
            "prompts": [],
            "target": {"chosen": ATTACK, "rejected": "b", "query": None},
            "history": [{"chosen": ATTACK, "rejected": None, "query": "q"}],
            "shown": 1,
            "summaries": [
                {
                    "policy": "base",
                    "setting": "full",
                    "seed": 0,
                    "error": None,
                    "stages": [{"reasoning": ATTACK, "summary": ATTACK, "problem": None, "dropped": 0}],
                }
            ],
            "scores": [{key: scores[0].row().get(key) for key in samples.SCORE_FIELDS}],
        }
    ]
    return (
        page.page(tables[:1], tables[1:], result_rows(scores), scores, sample_rows, "notes", "made by"),
        tables,
        sample_rows,
    )


def test_nothing_is_loaded_from_elsewhere_and_the_plots_are_inside(page_parts):
    page = Page(page_parts[0])
    pictures = [source for source in page.links if not source.startswith("#")]
    assert pictures and all(source.startswith("data:image/svg+xml;base64,") for source in pictures)
    plots = [base64.b64decode(source.split(",")[1]).decode() for source in pictures]
    assert len(plots) == 3 and all("<svg" in text for text in plots)
    assert "accuracy, %" in plots[0] and "MIND" in plots[0] and "shown first" in plots[1] and "Brier" in plots[2]
    assert "default-src 'none'" in page_parts[0] and not re.search(r"url\(|@import", page_parts[0])


def test_texts_of_users_and_models_stay_texts(page_parts):
    text, tables, sample_rows = page_parts
    page = Page(text)
    assert page.tags.count("script") == 2 and page.tags.count("img") == 3  # ours: the data and the code; the plots
    assert unpacked(page) == json.loads(json.dumps(sample_rows))
    assert "innerHTML" not in text and "document.write" not in text
    for table in tables:
        for cell in (*table.head, *(cell for line in table.body for cell in line)):
            assert cell in page.cells


def test_the_script_is_sound(page_parts, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to read the script with")
    script = tmp_path / "page.js"
    script.write_text(Page(page_parts[0]).scripts["text/javascript"])
    process = subprocess.run([node, "--check", str(script)], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("cells", "up", "down"),
    [
        (
            ["10.00", "–", "9.50 [8.00, 11.00]", "not comparable"],
            ["9.50 [8.00, 11.00]", "10.00", "not comparable", "–"],
            ["10.00", "9.50 [8.00, 11.00]", "–", "not comparable"],
        ),
        (["580–600", "590", "5000"], ["580–600", "590", "5000"], ["5000", "590", "580–600"]),
        (
            ["−2.00 [−3.00, −1.00]", "+1.50 [0.50, 2.50]", "+0.00"],
            ["−2.00 [−3.00, −1.00]", "+0.00", "+1.50 [0.50, 2.50]"],
            ["+1.50 [0.50, 2.50]", "+0.00", "−2.00 [−3.00, −1.00]"],
        ),
        (["b", "a"], ["a", "b"], ["b", "a"]),
    ],
)
def test_columns_are_sorted_by_their_numbers_and_what_is_missing_comes_last(page_parts, cells, up, down):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here to run the script with")
    functions = Page(page_parts[0]).scripts["text/javascript"].partition("for (const section")[0]
    sort = "[true, false].map(up => [...cells].sort((a, b) => compare(a, b, up)))"
    process = subprocess.run(
        [node, "-e", f"{functions}; const cells = {json.dumps(cells)}; console.log(JSON.stringify({sort}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout) == [up, down]


def test_a_page_without_samples_or_plots_is_still_a_page():
    page = Page(report_page.page([Table("a", "T", ["x"], [["1"]])], [], [], [], [], "", ""))
    assert "img" not in page.tags and "application/gzip" not in page.scripts


def test_a_published_row_stays_beside_ours_when_a_table_is_sorted():
    names = ["a", "published: A", "a − published", "b", "b, bad format wrong", "published: D (not run here)"]
    table = Table("main", "Main", ["policy", "x"], [[name, "60.00"] for name in names])
    text = report_page.page([table], [], [], [], [], "notes", "made by")
    kinds = re.findall(r"<tr(?: class=\"([a-z ]+)\")?><td>", text)
    assert kinds == ["", "published beside", "published beside", "", "published beside", "published"]
