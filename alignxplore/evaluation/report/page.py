"""report.html: tables to sort, plots and a browser of samples in one file that needs nothing else and asks no server.
Used by writing.py
and robustness.py.

Texts of users and models are data in it: tables are escaped by the template, samples are shown by `textContent` alone,
and a content security policy forbids the page to load anything.
"""

import base64
from pathlib import Path

import jinja2

from alignxplore.evaluation.report import plots
from alignxplore.evaluation.report.tables import Table

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def page(
    first: list[Table],
    others: list[Table],
    rows: list[dict],
    scores: list[dict],
    samples: list[dict],
    notes: str,
    made_by: str,
    title: str = "Results",
) -> str:
    """The whole page.

    Args:
        first: the tables that say most, at the top; `others` come last.
        rows: results.json, and `scores` scores.jsonl, for the plots.
        samples: samples.jsonl.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pictures = {name: data_url(plots.svg(figure)) for name, figure in plots.draw(rows, scores).items()}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title, first=first, others=others, plots=pictures, samples=samples, notes=notes, made_by=made_by
    )
