"""The published numbers beside ours, and when a difference between them means anything. Used by the report.

A difference is printed only for protocol `paper` on a benchmark of the published tables with all of its rows;
everything else is "not comparable", and the reason is said. The published rows are in
alignxplore/evaluation/published.json; the number of rows behind each is inferred from the printed digits, so the
interval of a difference takes both samples into account.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from alignxplore.datasets import DATASETS, PUBLISHED
from alignxplore.evaluation.report.tables import points
from alignxplore.statistics import Estimate, two_sample_interval

PATH = Path(__file__).with_name("published.json")
NOT_COMPARABLE = "not comparable"
SLACK = 0.002  # of the rows: two of Amazon's 3,000 seem to be missing from the published 2,998
WINDOW = 16384  # tokens of prompt and answer
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096}  # of the published summaries
STAGES = {"full": 1, "streaming": 2}
DIRECT = (
    "how much of a history the published readers of raw histories were shown, and how long their answers might be, is "
    "not published"
)
# Names of the published rows by hub id: (the model reasons first, it answers at once).
HUB_IDS = {
    "Qwen/Qwen3-8B": ("Qwen3-8B (thinking)", "Qwen3-8B (non-thinking)"),
    "Qwen/Qwen3-32B": ("Qwen3-32B (thinking)", None),
    "openai/gpt-oss-20b": ("GPT-OSS-20B", None),
    "Qwen/Qwen2.5-7B-Instruct": (None, "Qwen2.5-7B-Instruct"),
    "deepseek-ai/DeepSeek-R1": ("DeepSeek-R1-671B", None),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": ("DS-R1-Distill-Qwen-7B", None),
    "JinaLeejnl/AlignXplore-7B-Streaming": ("AlignXplore", None),
    "VanillaH1/AlignXplore-Plus": ("AlignXplore+", None),
}


def _built_otherwise(name: str, run: dict) -> str | None:
    """How a benchmark differs from the published one, or may; None where nothing speaks against its being the same."""
    about, dataset = run["benchmarks"].get(name, {}), DATASETS[name]
    built = about.get("built")
    if built is None and (about.get("hub") or "").startswith(f"{PUBLISHED}@"):
        return None
    if built is None:
        return (
            f"nothing shows that the file of {name} is the published one (it neither comes from {PUBLISHED} nor has "
            "the manifest of a build)"
        )
    if not dataset.public:
        return f"the published conversion of {name} is not public"
    if dataset.editions and built["edition"] not in dataset.editions:
        edition = built["edition"] or "files of an unknown edition"
        return f"{name} was built from {edition}, the published one from {' or '.join(dataset.editions)}"
    if built["protocol"] != "published":
        return f"{name} was built with other negatives ({built['protocol']})"
    if (built["min_interactions"], built["split"]) != (dataset.min_interactions, dataset.split):
        return (
            f"{name} was built of split {built['split']} with at least {built['min_interactions']} interactions, the "
            f"published one of split {dataset.split} with {dataset.min_interactions}"
        )
    if built.get("windows") or built.get("persons"):
        return f"{name} was built of windows of the histories, or of some of the persons"
    # A history is a few answers there, which its authors put together.
    if dataset.task == "selection" and built["taken_out"]:
        return (
            f"{built['taken_out']} repeats and answers were taken out of the histories of {name}; whether the "
            "published one kept them is not said"
        )
    return None


def _written_otherwise(row: dict, run: dict) -> str | None:
    """How the summaries behind a row were written, where that is not the published way; None also for rows without
    summaries."""
    of_row = f"{row['benchmark']}.{row['setting']}.s"
    for name, made in run["policies"].get(row["policy"], {}).get("sets", {}).items():
        if name.startswith(of_row) and (other := _differs(made, STAGES[row["setting"]])):
            return f"summaries of {row['policy']} ({row['setting']}) were not written as published: {', '.join(other)}"
    return None


def _differs(made: dict, stages: int) -> list[str]:
    """What in the recipe of one set of summaries is not as published."""
    sampling = made["sampling"]
    other = [f"{key} {sampling[key]} for {value}" for key, value in SAMPLING.items() if sampling[key] != value]
    not_sent = [name for name in made.get("not_sent", ()) if name in SAMPLING]
    other += [f"without {name}, which its server does not know" for name in not_sent]
    if made["stages"] != stages:
        other.append(f"{made['stages']} stages for {stages}")
    if made["window"] != WINDOW:
        other.append(f"a window of {made['window']} for {WINDOW}")
    return other


def _bare(name: str) -> str:
    """A name without case, spaces and brackets: qwen3-8b-thinking is the row "Qwen3-8B (thinking)"."""
    return re.sub(r"[^a-z0-9.+]", "", name.lower())


class Paper:
    """The published tables."""

    def __init__(self, path: Path = PATH):
        content = json.loads(path.read_text(encoding="utf-8"))
        self.sizes: dict[str, int | None] = content["rows"]
        self.rows: dict[tuple[str, str, str | None], dict[str, float]] = defaultdict(dict)
        self.table: dict[tuple[str, str, str | None], str] = {}
        for cell in content["scores"]:
            self.table[cell["setting"], cell["model"], cell["downstream"]] = cell["table"]
            self.rows[cell["setting"], cell["model"], cell["downstream"]][cell["benchmark"]] = cell["score"] / 100
        self.names = {_bare(name): name for _, model, downstream in self.rows for name in (model, downstream) if name}

    def match(self, name: str, identity: str, given: dict[str, str], plain: bool) -> str | None:
        """The published name of one of our models: as given on the command line, by its own name, or by its hub id.

        Args:
            identity: hub id with @revision, or the fingerprint of a folder (which says nothing about the name).
            given: our name → published name.
            plain: the model was asked to answer without reasoning first.

        Raises:
            ValueError: a given name that the published tables do not have.
        """
        if name in given:
            return self.named(given[name])
        return self.names.get(_bare(name)) or HUB_IDS.get(identity.partition("@")[0], (None, None))[plain]

    def named(self, text: str) -> str:
        """The published name that is meant by a name on the command line; ValueError where there is none."""
        if _bare(text) not in self.names:
            raise ValueError(
                f"--published: no row '{text}' in the published tables; there are: "
                f"{', '.join(sorted(self.names.values()))}"
            )
        return self.names[_bare(text)]

    def row(self, setting: str, model: str | None, downstream: str | None) -> dict[str, float]:
        """Benchmark → published accuracy; empty if there is no such row."""
        return self.rows.get((setting, model, downstream), {}) if model and downstream else {}

    def downstream_rows(self, downstream: str | None) -> list[tuple[str, str]]:
        """(setting, model) of all published rows that this downstream model read, and of models that read raw
        histories only (TALLRec)."""
        tables = {self.table[key] for key in self.rows if key[2] == downstream and downstream}
        readers = {reader for setting, _, reader in self.rows if setting != "direct"}
        return [
            key[:2]
            for key in self.rows
            if self.table[key] in tables and (key[2] == downstream or key[2] not in readers)
        ]

    def why_not(self, row: dict, run: dict) -> str | None:
        """Why a row of ours cannot be compared with the published one; None if it can.

        Args:
            row: a row of results.json.
            run: run.json, which says how its benchmark was built and its summaries were written.
        """
        if row["protocol"] != "paper":
            return "the published numbers are of protocol paper"
        if row["benchmark"] not in self.sizes:
            return f"{row['benchmark']} is not in the published tables"
        size = self.sizes[row["benchmark"]]
        if size is None:
            return f"how many rows of {row['benchmark']} were used is not published"
        if row["setting"] == "direct":
            return DIRECT
        if reason := _built_otherwise(row["benchmark"], run) or _written_otherwise(row, run):
            return reason
        if abs(row["n"] - size) > SLACK * size:
            return f"{row['benchmark']} has n = {row['n']}, the published table {size}"
        return None if row["ci_low"] is not None else "no interval"

    def difference(self, row: dict, published: float) -> str:
        """Ours less theirs in points, with the 95 % interval of two samples, theirs taken for as clustered as ours."""
        ours = Estimate(row["accuracy"], row["ci_low"], row["ci_high"], row["n"], row.get("clusters", row["n"]))
        size = self.sizes[row["benchmark"]]
        assert size is not None, "`why_not` says so"
        middle, low, high = two_sample_interval(ours, published, size, row["design_effect"])
        return f"{points(middle)} [{points(low)}, {points(high)}]"
