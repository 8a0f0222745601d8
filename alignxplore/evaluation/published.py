"""The published numbers beside ours, the difference, and what else differs. Used by the report.

A difference stands wherever a benchmark of ours has the name of a published one. Beside it stands the list of what
differs between the two besides the model (`Paper.differs`); only where that list is empty the number is "comparable".
The published rows are in alignxplore/evaluation/published.json; the number of rows behind each is inferred from the
printed digits, so the interval of a difference takes both samples into account.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from alignxplore.datasets import DATASETS, PUBLISHED
from alignxplore.evaluation.arguments import ANSWER_TOKENS, YES_NO
from alignxplore.evaluation.metrics import shown_otherwise, truncated
from alignxplore.evaluation.report.tables import points
from alignxplore.evaluation.rows import Result
from alignxplore.serving.endpoint import is_url
from alignxplore.serving.models import SERVED, weights_of
from alignxplore.statistics import Estimate, two_sample_interval

PATH = Path(__file__).with_name("published.json")
COMPARABLE = "comparable"
MORE_ROWS = {"amazon": 2}  # ours may have: two of Amazon's 3,000 seem to be missing from the published 2,998
# What no option makes as it was published, beside users and rejected items, whose draw is another one.
BUILT_OTHERWISE = {
    "mind": "impressions ordered by time, and so other targets",
    "amazon": "paragraphs of descriptions joined",
    "movielens": "none of them twice for a user",
}
WINDOW = 16384  # tokens of prompt and answer
SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 4096}  # of the published summaries
STAGES = {"full": 1, "streaming": 2}
WORDING = "published"  # name of a prompt set that is taken at its word; the project holds no copy of that wording
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


def _file(name: str, run: dict) -> list[str]:
    """How a benchmark's file differs from the published one, or may."""
    about, dataset = run["benchmarks"].get(name, {}), DATASETS[name]
    build = about.get("built")
    if build is None:
        if (about.get("hub") or "").startswith(f"{PUBLISHED}@"):
            return []
        return [f"the file of {dataset.column}, of which nothing shows that it is the published one"]
    if not dataset.public:
        return [f"the file of {dataset.column}, whose published conversion is not public"]
    differences = []
    if dataset.editions and build["edition"] not in dataset.editions:
        edition = build["edition"] or "files of an unknown edition"
        differences.append(f"built from {edition} for {' or '.join(dataset.editions)}")
    elif len(dataset.editions) > 1:
        differences.append(f"which of {' and '.join(dataset.editions)} it was is not published")
    if build["protocol"] != "published":
        differences.append(f"other negatives ({build['protocol']})")
    if build["min_interactions"] != dataset.min_interactions:
        differences.append(f"at least {build['min_interactions']} interactions for {dataset.min_interactions}")
    if build["split"] != dataset.split:
        differences.append(f"split {build['split']} for {dataset.split}")
    if build.get("windows") or build.get("persons"):
        differences.append("windows of the histories, or some of the persons")
    if build.get("markup") == "removed":
        differences.append("without the HTML of its texts (--markup kept leaves it in)")
    if dataset.task == "recommendation":
        differences += ["another draw of users and rejected items", BUILT_OTHERWISE[name]]
    # A history is a few answers there, which its authors put together.
    elif build["taken_out"]:
        differences.append(
            f"{build['taken_out']} repeats and answers taken out of the histories, which the published one may have"
        )
    return [f"the file of {dataset.column}: {', '.join(differences)}"] if differences else []


def _summaries(row: Result, run: dict) -> list[str]:
    """How the summaries behind a row were written otherwise than the published ones."""
    prefix = f"{row.benchmark}.{row.setting}.s"
    sets = run["policies"].get(row.policy, {}).get("sets", {})
    recipes = [recipe for name, recipe in sets.items() if name.startswith(prefix)]
    if not recipes:
        return ["summaries of which nothing is known"]
    differences = [difference for recipe in recipes for difference in _written(recipe, STAGES[row.setting])]
    if row[shown_otherwise] != 0 and any(recipe.get("fit") != "published" for recipe in recipes):
        differences.append(
            "fit ours, by which some rows were shown otherwise (shown otherwise %: table of every number)"
        )
    if row.setting == "streaming" and DATASETS[row.benchmark].task != "recommendation" and row[truncated]:
        differences.append("stages that lost their oldest interactions, where the published run ends (truncated %)")
    return differences


def _written(recipe: dict, stages: int) -> list[str]:
    """What in the recipe of one set of summaries is not as published."""
    sampling = recipe["sampling"]
    differences = [f"{key} {sampling[key]} for {value}" for key, value in SAMPLING.items() if sampling[key] != value]
    if recipe["stages"] != stages:
        differences.append(f"{recipe['stages']} stages for {stages}")
    if recipe["window"] != WINDOW:
        differences.append(f"a window of {recipe['window']} for {WINDOW}")
    return differences + _refused("policy", recipe) + _wording("infer", recipe)


def _reader(row: Result, run: dict, downstream: str | None) -> list[str]:
    """How the downstream model was asked otherwise than the published one."""
    judge = run["judges"].get(row.judge, {})
    differences = []
    if downstream not in HUB_IDS.get(_hub_id(judge.get("identity", "")), ()):
        differences.append(f"downstream model {row.judge}, taken for {downstream} by its name alone")
    if row.protocol != "paper":
        orders = "one order" if run.get("arguments", {}).get("orders") == "one" else "both orders"
        differences.append(f"protocol {row.protocol} ({orders}) for paper (one order, one sampled answer)")
    elif judge.get("format") == YES_NO:
        differences.append("a choice by P(Yes) of each item; how the published one was read is not said")
    elif judge.get("answer_tokens") != (tokens := ANSWER_TOKENS[judge.get("format") != "plain"]):
        differences.append(f"answers of up to {judge.get('answer_tokens')} tokens for {tokens}")
    return (
        differences
        + _refused("downstream model", judge)
        + _wording("direct" if row.setting == "direct" else "judge", run)
    )


def _refused(role: str, settings: dict) -> list[str]:
    names = ", ".join(settings.get("not_sent", ()))
    return [f"the {role} was asked without {names}, which its server does not know"] if names else []


def _wording(purpose: str, settings: dict) -> list[str]:
    name = settings.get("prompt_set")
    return [] if name == WORDING else [f"wording of the prompt {purpose} (set {name or 'unknown'})"]


def _hub_id(identity: str) -> str:
    """The hub id in the identity of a model (`serving.models.Model.identity`), if there is one."""
    address, _, suffix = weights_of(identity).removeprefix(SERVED).partition("@")
    return suffix.rpartition("=")[2] if is_url(address) else address


def _bare(name: str) -> str:
    """A name without case, spaces and brackets: qwen3-8b-thinking is the row "Qwen3-8B (thinking)"."""
    return re.sub(r"[^a-z0-9.+]", "", name.lower())


def check_pairs(pairs: Sequence[str], names: Collection[str]) -> None:
    """Raise a ValueError for an OURS=THEIRS that is to stand beside none of our models."""
    absent_names = [name for name in (pair.partition("=")[0] for pair in pairs) if name not in names]
    if absent_names:
        problem = f"no policy and no judge is called {', '.join(map(repr, absent_names))}"
        raise ValueError(f"--published: {problem}; there are {', '.join(names)}")


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

    def match(self, name: str, identity: str, aliases: dict[str, str], plain: bool) -> str | None:
        """The published name of one of our models: as given on the command line, by its own name, or by its hub id.

        Args:
            identity: hub id with @revision, address of an endpoint with what it serves, or the fingerprint of a folder
                (which says nothing about the name).
            aliases: our name → published name.
            plain: the model was asked to answer without reasoning first.

        Raises:
            ValueError: a given name that the published tables do not have.
        """
        if name in aliases:
            return self.named(aliases[name])
        return self.names.get(_bare(name)) or HUB_IDS.get(_hub_id(identity), (None, None))[plain]

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

    def differs(self, row: Result, run: dict) -> list[str]:
        """What differs between a number of ours and the published one of its benchmark, besides the model that wrote;
        empty: comparable.

        Args:
            row: one of results.json.
            run: run.json, which says how its benchmark was built, its summaries were written and its judge was asked.
        """
        benchmark, column, size = row.benchmark, DATASETS[row.benchmark].column, self.sizes[row.benchmark]
        differences = []
        if size is None:
            differences.append(f"how many rows of {column} were used, and how they were scored, is not published")
        elif not 0 <= row.n - size <= MORE_ROWS.get(benchmark, 0):
            differences.append(f"n = {row.n} for {size} ({column})")
        if len(row.seeds) > 1:
            differences.append(f"the mean of {len(row.seeds)} generation seeds for one")
        differences += _file(benchmark, run)
        if row.setting == "direct":
            differences.append(
                "how much of a raw history the published readers were shown, and how long their answers might be, is "
                "not published"
            )
        else:
            differences += _summaries(row, run)
        differences += _reader(row, run, run.get("published_names", {}).get("judges", {}).get(row.judge))
        return list(dict.fromkeys(differences))

    def difference(self, row: Result, published: float) -> str:
        """Ours less theirs in points; where both numbers of rows are known with the 95 % interval of two samples,
        theirs taken for as clustered as ours."""
        size = self.sizes[row.benchmark]
        assert row.accuracy is not None
        if size is None or row.ci_low is None or row.ci_high is None:
            return points(row.accuracy - published)
        own_estimate = Estimate(row.accuracy, row.ci_low, row.ci_high, row.n, row.clusters or row.n)
        middle, low, high = two_sample_interval(own_estimate, published, size, row.design_effect)
        return f"{points(middle)} [{points(low)}, {points(high)}]"
