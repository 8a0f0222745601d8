"""The documentation: it is built without a warning, its links lead somewhere, what it quotes stands in the code."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore.guide.commands import helps, runnables
from alignxplore.guide.measured import metrics_page
from alignxplore.guide.messages import messages_page
from alignxplore.guide.method import MethodOptions, draw_method
from alignxplore.guide.site import nested, relinked, tracked
from alignxplore.rl import metrics as rl
from tests import ROOT

PAGES = [name for name in tracked() if name.endswith(".md") and not name.startswith("data/")]
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("MkDocs is not installed: pip install mkdocs-material")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_holds_what_the_code_says(site):
    options, metrics = ((site / f"reference/{name}/index.html").read_text() for name in ("options", "metrics"))
    assert "python -m alignxplore.ask" in options and "--judge_format" in options and "made:" not in options
    assert "accuracy_well_formed" in metrics and "position_bias" in metrics
    assert "Changelog" in (site / "repository/CHANGELOG/index.html").read_text()


@pytest.mark.slow
def test_nothing_of_the_site_is_fetched_from_elsewhere(site):
    page = (site / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"', page) and "fonts.g" not in page


@pytest.mark.slow
def test_no_item_of_a_list_and_no_row_of_a_table_is_taken_for_words(site):
    """Of all pages: Python-Markdown wants other indents than code hosts do."""
    wrong = []
    for page in site.rglob("*.html"):
        text = re.sub(r"<pre\b.*?</pre>", "", page.read_text(), flags=re.DOTALL)
        paragraphs = re.findall(r"<p>(.*?)</p>", text, re.DOTALL)
        wrong += [f"{page.relative_to(site)}: {x[:80]}" for x in paragraphs if re.search(r"(^|\n) *([-*] |\|)", x)]
    assert wrong == []
    tables = re.findall(r"^ *\|[-|]+\|$", (ROOT / "eval/README.md").read_text(), re.MULTILINE)
    assert (site / "repository/eval/index.html").read_text().count("<table>") == len(tables)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n  b\n\n  | c |\n\n- d", "- a\n    b\n\n    | c |\n\n- d"),
        ("- a\n\n  1. b\n     c\n\nd\n\n    code", "- a\n\n    1. b\n        c\n\nd\n\n    code"),
        ("- a\n\n  b\n- c\n- d", "- a\n\n    b\n\n- c\n- d"),
        ("1. a\n\n   ```\n   if b:\n       c\n   ```\n", "1. a\n\n    ```\n    if b:\n        c\n    ```\n"),
        ("```\n- a\n  b\n```\n\n    - code\n      of it", "```\n- a\n  b\n```\n\n    - code\n      of it"),
    ],
)
def test_what_stands_in_an_item_is_indented_as_the_site_wants_it(text, expected):
    assert nested(text) == expected


def anchors(page: Path) -> set[str]:
    """As code hosts name them."""
    names = set()
    for heading in re.findall(
        r"^#+ (.*)$", CODE.sub(lambda m: m[0] if m[0][0:3] != "```" else "", page.read_text()), re.M
    ):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        names.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return names


@pytest.mark.parametrize("name", PAGES)
def test_a_link_leads_to_a_file_of_the_repository_and_a_heading_in_it(name):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", (ROOT / name).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        if not there.exists() or anchor and anchor not in anchors(there / "README.md" if there.is_dir() else there):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("lessons/1-one-person.md", "../../sft/README.md#4-train", "../repository/sft/README.md#4-train"),
        ("lessons/1-one-person.md", "2-train.md", "2-train.md"),
        ("repository/README.md", "docs/index.md", "../index.md"),
        ("repository/README.md", "studies/", "studies/README.md"),
        ("repository/verl/README.md", "../benchmarks/", "../benchmarks/README.md"),
        ("index.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("index.md", "#words", "#words"),
    ],
)
def test_links_between_docs_and_the_other_pages_are_followed_in_the_site(page, link, there):
    assert relinked(f"see [it]({link}).", page) == f"see [it]({there})."


def test_every_script_has_its_help_and_each_command_of_a_script_its_own():
    named = {one.command: one for one in runnables()}
    assert len(named) > 70 and "python alignxplore/rl/train.py" not in named
    texts = helps(named["python -m alignxplore.datasets"])
    assert len(texts) > 4 and any("--test_share" in text for text in texts)
    assert helps(named["./quickstart.sh"])[0].startswith("From nothing to the table")
    assert str(ROOT) not in helps(named["python -m alignxplore.demo"])[0]


def test_every_metric_of_rl_says_what_it_is():
    silent = [
        name for kind in (rl.STAGE, rl.TRAINING, rl.JUDGE, rl.STEP) for name, one in kind.items() if not one.__doc__
    ]
    assert silent == [] and "| `reward` |" in metrics_page()


def test_messages_that_the_page_of_faults_explains_are_said_by_the_code():
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/reference/faults.md").read_text(), re.MULTILINE)
    code = " ".join(path.read_text() for path in (ROOT / "alignxplore").rglob("*.py"))
    assert len(rows) > 6 and [text for text in rows if text not in code] == []
    assert "…: no person '…'" in messages_page()


def test_the_picture_of_the_method_is_what_its_script_draws(tmp_path):
    draw_method(MethodOptions(out=tmp_path / "method.png"))
    assert (tmp_path / "method.svg").read_text() == (ROOT / "docs/figures/method.svg").read_text()
