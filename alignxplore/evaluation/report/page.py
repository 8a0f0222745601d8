"""report.html: tables to sort, plots and a browser of samples in one file that needs nothing else and asks no server.
Used by writing.py and robustness.py.

Texts of users and models are data in it: tables are escaped by the template, samples are packed (gzip, base64) and
shown by `textContent` alone, and a content security policy forbids the page to load anything.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from alignxplore.evaluation.costs import Cost
from alignxplore.evaluation.report import plots
from alignxplore.evaluation.report.tables import Cell, Table
from alignxplore.evaluation.rows import Result
from alignxplore.evaluation.worth import Score

FOLDER = Path(__file__).parent
BUDGET = 12_000_000  # characters of all packed samples: the page stays below 20 MB
SHORTER = ((60, True), (60, False), (30, False), (15, False), (8, False), (4, False))  # interactions, prompts


@dataclass(frozen=True)
class Pack:
    """The samples of one benchmark, packed. `omissions` says what is missing of them."""

    benchmark: str
    data: str
    omissions: str


def data_url(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def packs_of(samples: Sequence[dict], texts: str = "all") -> list[Pack]:
    """One pack a benchmark; long histories and prompts are left out where the page would grow too large."""
    names = list(dict.fromkeys(sample["benchmark"] for sample in samples))
    return [_pack(name, [s for s in samples if s["benchmark"] == name], BUDGET // len(names), texts) for name in names]


def _pack(name: str, samples: list[dict], budget: int, texts: str) -> Pack:
    if texts == "none":
        note = "Texts are left out: no history, summary, prompt or answer is in this page."
        return Pack(name, _packed([_without_texts(sample) for sample in samples]), note)
    longest, prompts = max(len(sample["history"]) for sample in samples), True
    data = _packed(samples)
    for count, prompts in SHORTER:
        if len(data) <= budget:
            break
        longest = min(longest, count)
        data = _packed([_shortened(sample, count, prompts) for sample in samples])
    parts = [] if prompts else ["prompts"]
    if any(len(sample["history"]) > longest for sample in samples):
        parts.append(f"all but the newest {longest} interactions")
    return Pack(name, data, f"Left out for size: {', '.join(parts)}; samples.jsonl has them." if parts else "")


def _packed(samples: list[dict]) -> str:
    text = json.dumps(samples, ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


def _shortened(sample: dict, interactions: int, prompts: bool) -> dict:
    sample_copy = sample | {"history": sample["history"][-interactions:]}
    return sample_copy if prompts else _without_prompts(sample_copy)


def _without_prompts(sample: dict) -> dict:
    summaries = [
        summary | {"stages": [{k: v for k, v in stage.items() if k != "prompt"} for stage in summary["stages"]]}
        for summary in sample["summaries"]
    ]
    scores = [{k: v for k, v in score.items() if k != "prompt"} for score in sample["scores"]]
    return sample | {"prompts": [], "summaries": summaries, "scores": scores}


def _without_texts(sample: dict) -> dict:
    sample_copy = _without_prompts(sample)
    summaries = [
        {key: value for key, value in summary.items() if key != "evidence"}
        | {
            "error": None,
            "stages": [{"problem": s["problem"], "dropped": s["dropped"], "summary": ""} for s in summary["stages"]],
        }
        for summary in sample_copy["summaries"]
    ]
    scores = [score | {"unread": []} for score in sample_copy["scores"]]
    blanks: dict = {"target": None, "history": [], "user": "(left out)"}
    return sample_copy | blanks | {"summaries": summaries, "scores": scores}


def _cells_of(samples: Sequence[dict]) -> set[Cell]:
    """What there are samples of. What several training runs have together, and the bounds of a world, are of none."""
    return {
        (sample["benchmark"], score["policy"], score["setting"], score["judge"], score["protocol"])
        for sample in samples
        for score in sample["scores"]
    }


def _joined(cell: Cell) -> str:
    """As page.js reads it, whatever signs are in the names."""
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in cell)


def page(
    first: list[Table],
    others: list[Table],
    rows: list[Result],
    scores: list[Score],
    samples: list[dict],
    notes: str,
    origin: str,
    title: str = "Results",
    texts: str = "all",
    costs: Sequence[Cost] = (),
) -> str:
    """The whole page.

    Args:
        first: the tables that say most, at the top; `others` come last.
        rows: results.json, `scores` scores.jsonl and `costs` costs.jsonl, for the plots.
        samples: samples.jsonl.
        texts: all, or none: no text of users or models is in the page.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pictures = {name: data_url(plots.svg(figure)) for name, figure in plots.draw(rows, scores, costs).items()}
    return environment.from_string((FOLDER / "page.html.jinja").read_text(encoding="utf-8")).render(
        title=title,
        first=first,
        others=others,
        plots=pictures,
        packs=packs_of(samples, texts),
        sampled=_cells_of(samples),
        joined=_joined,
        notes=notes,
        origin=origin,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
    )
