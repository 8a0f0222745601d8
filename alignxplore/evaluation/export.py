"""The summaries and scores of an evaluation as Parquet with a data card, ready for the Hugging Face hub. What
`eval/export.py` does.

OUT/hub/summaries.parquet   one row a summary: who wrote it, of whom, its text, reasoning, format, tokens, stages. Of a
                            person whose summary went on (`--continue`, `--forget`) the one that stands
OUT/hub/scores.parquet      one row a score: policy, setting, judge, protocol, value, outcome, P(chosen) by order
OUT/hub/README.md           the card: what the columns are, models, hashes, versions, commit, the table
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alignxplore.command import option
from alignxplore.environment import portable
from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import TEXTS, TEXTS_HELP, one_of
from alignxplore.evaluation.benchmarks import SummarySet, find_sets
from alignxplore.evaluation.registry import MEASURES
from alignxplore.evaluation.report.files import read_run, texts_of
from alignxplore.evaluation.rows import read_scores
from alignxplore.evaluation.updates import Version, standing_versions
from alignxplore.evaluation.worth import Score
from alignxplore.records import person_of, replacing, write_text

ROWS = 10_000  # of a Parquet row group
STAGE = pa.struct(
    [
        ("summary", pa.string()),
        ("reasoning", pa.string()),
        ("problem", pa.string()),
        ("dropped", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("tokens", pa.int32()),
        ("cut", pa.bool_()),
    ]
)
SUMMARIES = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "policy", "setting")]
    + [("seed", pa.int32())]
    + [(name, pa.string()) for name in ("record", "user", "person", "summary", "problem")]
    + [("stages", pa.list_(STAGE)), ("model", pa.string()), ("prompt", pa.string())]
    + [("updated", pa.string())]
)
SCORES = pa.schema(
    [(name, pa.string()) for name in ("benchmark", "policy", "setting")]
    + [("seed", pa.int32())]
    + [(name, pa.string()) for name in ("judge", "protocol", "record", "user", "person", "item", "outcome")]
    + [(name, pa.float64()) for name in ("value", "p", "mass")]
    + [(name, pa.list_(pa.float64())) for name in ("p_chosen_first", "p_chosen_second")]
    + [(name, pa.float64()) for name in ("k", "chance", *MEASURES)]  # of choices among k items
)


@dataclass(kw_only=True)
class ExportOptions:
    """Which results to pack, and where to."""

    out: Path = option("folder with the summaries, and the results of evaluate.py unless --report names another")
    report: Path | None = option("folder of the results, as evaluate.py --report wrote them: OUT/tables/main", None)
    texts: str | None = option(
        f"{TEXTS_HELP.replace('report.html', 'the Parquet files')}; default: what evaluate.py was told", None
    )
    push: str | None = option("also upload to this data set on the hub, as OWNER/NAME; it is made private", None)

    def __post_init__(self) -> None:
        one_of("texts", [] if self.texts is None else [self.texts], TEXTS)

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.report or self.out


def summary_rows(summaries: SummarySet, texts: str) -> Iterator[dict]:
    """Rows of one set of summaries; of a person whose summary went on the one that stands."""
    meta = summaries.meta() or {}
    set_fields = {
        "benchmark": summaries.benchmark,
        "policy": summaries.policy,
        "setting": summaries.setting,
        "seed": summaries.seed,
    }
    model_fields = {"model": portable(meta.get("identity")), "prompt": meta.get("prompt_hash")}
    current = {stream.user: (stream, versions) for stream, versions in standing_versions(summaries)}

    def row_of(row: dict) -> dict:
        stages = [{name: stage.get(name) for name in STAGE.names} for stage in row["stages"]]
        if texts == "none":
            stages = [stage | {"summary": None, "reasoning": None} for stage in stages]
        last = stages[-1] if stages else {"summary": None, "problem": row["error"] or row["status"]}
        record_fields = {"record": row["record"], "user": row["user"], "person": person_of(row["user"])}
        text_fields = {"summary": last["summary"], "problem": last["problem"], "stages": stages}
        return set_fields | record_fields | text_fields | model_fields | row.get("version", {})

    for row in summaries.by_record().values():
        stream, versions = current.get(row["user"], (None, []))
        if stream and stream.key[0] == row["record"]:
            del current[row["user"]]
            row = row | version_fields(versions)
        yield row_of(row)
    for user, (_, versions) in current.items():  # who began as an update, or lost the run's own row to --forget
        yield row_of({"record": None, "user": user} | version_fields(versions))


def version_fields(versions: list[Version]) -> dict:
    """What the summary that stands has in the place of the run's own."""
    last = versions[-1]
    stages = [vars(version.stage) for version in versions]
    return {"stages": stages, "version": {"model": portable(last.model), "prompt": last.prompt, "updated": last.when}}


def score_row(score: Score) -> dict:
    """A score as a row of scores.parquet."""
    first, second = zip(*score.orders) if score.orders else ((), ())
    row = {**vars(score), **score.measures}
    orders = {"p_chosen_first": list(first), "p_chosen_second": list(second)}
    return {name: row.get(name) for name in SCORES.names} | orders | {"person": person_of(score.user)}


def write_parquet(path: Path, rows: Iterable[dict], schema: pa.Schema) -> int:
    """Write rows by and by; returns how many. A file that is there is replaced when the new one is whole."""
    count, stream = 0, iter(rows)
    with replacing(path) as aside, pq.ParquetWriter(aside, schema) as writer:
        while batch := list(islice(stream, ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            count += len(batch)
    return count


def refuse_incomplete(options: ExportOptions) -> None:
    """Raise where there are no results, or no summaries."""
    if not (options.results / "scores.jsonl").exists():
        tables = sorted(path.parent for path in options.out.glob("tables/*/scores.jsonl"))
        cure = " or ".join(f"--report {path}" for path in tables) or "run eval/evaluate.py first"
        raise UserError(f"{options.results} holds no scores.jsonl; {cure}")
    if not any(True for _ in find_sets(options.out)):
        raise UserError(f"--out {options.out} holds no summaries; give the folder that gen_preference.py wrote into")


def card(out: Path, counts: dict[str, int], texts: str) -> str:
    """The data card. It names models by their hash and hub id, never by a folder of this machine."""
    run = read_run(out)
    report = (out / "report.md").read_text(encoding="utf-8").partition("\n\n")[2]
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in counts)
    columns = [f"- `{name}`: {', '.join(s.names)}" for name, s in (("summaries", SUMMARIES), ("scores", SCORES))]
    return "\n".join(
        [
            f"---\nconfigs:\n{configs}---",
            "# Preference summaries and their scores",
            "",
            "Summaries that policies wrote of users' past choices, and how often downstream models that read only",
            "a summary picked the item the user chose. `person` joins the rows of one person. `updated` says when a",
            "summary went on after the run (null: it did not); the scores are of the run's own summaries.",
            "" if texts == "all" else "\nTexts are left out: the terms of the data forbid to publish them.",
            *[f"- {counts[name]} {name}" for name in counts],
            f"- benchmarks: {', '.join(run['benchmarks'])}",
            f"- commit {run['commit'] or 'unknown'}; " + ", ".join(f"{k} {v}" for k, v in run["versions"].items()),
            "",
            "## Columns",
            "",
            *columns,
            "",
            "## Results",
            "",
            report,
        ]
    )


def export(options: ExportOptions) -> str:
    """Write the three files, and upload them where that is asked for; returns what was done."""
    refuse_incomplete(options)
    folder, texts = options.results / "hub", options.texts or texts_of(read_run(options.results))
    folder.mkdir(exist_ok=True)
    summaries = (row for summary_set in find_sets(options.out) for row in summary_rows(summary_set, texts))
    counts = {
        "summaries": write_parquet(folder / "summaries.parquet", summaries, SUMMARIES),
        "scores": write_parquet(folder / "scores.parquet", map(score_row, read_scores(options.results)), SCORES),
    }
    write_text(folder / "README.md", card(options.results, counts, texts))
    message = f"{folder}: {counts['summaries']} summaries, {counts['scores']} scores, README.md"
    if options.push is None:
        return message
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(options.push, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(
        folder_path=folder, repo_id=options.push, repo_type="dataset", allow_patterns=["*.parquet", "*.md"]
    )
    return f"{message}\nuploaded to the data set {options.push}"
