"""A whole evaluation in which every benchmark, downstream model, setting and policy has an accuracy of its own: what
the downstream models are asked, the journals, results and every table, cell by cell. None can be taken for another."""

import csv
import itertools
import json
import math
import re
from html.parser import HTMLParser

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.datasets import DATASETS
from alignxplore.evaluation.arguments import EvaluationArguments
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.report.tables import label
from alignxplore.evaluation.scoring import evaluate
from alignxplore.journal import Journal
from alignxplore.judging.letters import find_letters
from alignxplore.records import Interaction, UserRecord, write_json, write_jsonl
from alignxplore.summarize import StageSummary, Summaries

pytestmark = pytest.mark.slow

USERS = 80
NINE = [name for name, entry in DATASETS.items() if entry.column]
POLICIES, SETTINGS, JUDGES = ("ours", "theirs"), ("full", "streaming"), ("one", "two")
CELLS = list(itertools.product(NINE, JUDGES, SETTINGS, POLICIES))
RIGHT = {cell: 4 + place for place, cell in enumerate(CELLS)}  # of 80 users, another number in every cell
MORE = {"choice": 0, "paper": 1}  # users who are right by a letter that is read, and by one that is written
# What a summary and an item say of themselves, so that a reader knows which cell it is asked about.
SAYS = re.compile(r"(\w+) wrote of (\w+) as (\w+)\.")
ITEM = re.compile(r"^Item A: (good|bad) item (\d+)", re.MULTILINE)


class Reader:
    """A downstream model that is right for as many users of a cell as was planted."""

    def __init__(self, name, tokenizer, say):
        self.name, self.letters, self.say = name, find_letters(tokenizer), say

    def __call__(self, body):
        text = "\n".join(message["content"] for message in body["messages"])
        match, item = SAYS.search(text), ITEM.search(text)
        right = True
        if match:
            policy, benchmark, setting = match.groups()
            protocol = "choice" if body.get("logprobs") else "paper"
            right = int(item[2]) < RIGHT[benchmark, self.name, setting, policy] + MORE[protocol]
        letter = "A" if (item[1] == "good") == right else "B"
        if not body.get("logprobs"):
            return self.say(f'{{"selection": "Item {letter}"}}')
        logs = dict(zip(self.letters.tokens, [math.log(0.9), math.log(0.09)][:: 1 if letter == "A" else -1]))
        entries = [{"token": f"token_id:{token}", "logprob": log} for token, log in logs.items()]
        return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": entries}]}}]}


def write_summaries(out, policy, benchmark, setting, records):
    summaries = SummarySet(out, policy, benchmark, setting, 0)
    meta = {"run": "r", "policy": policy, "identity": "x", "sampling": {"form": "think"}, "prompt_hash": "0"}
    write_json(summaries.meta_path, meta | {"stages": 1, "window": None})
    text = f"{policy} wrote of {benchmark} as {setting}."
    with Journal(summaries.journal_path) as journal:
        for record in records:
            row = Summaries((StageSummary(text, "why", text, None, 0, 1, 1),)).row()
            journal.append(record.id, {"run": "r", "record": record.id, "user": record.user} | row)


@pytest.fixture
async def report_folder(fake_server, say, tokenizer, tmp_path):
    """The folder of an evaluation by both downstream models, in both protocols."""
    data, out = tmp_path / "data", tmp_path / "out"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    for name in NINE:
        users = [
            UserRecord(
                f"u{i}", (Interaction("a", "b"),) * 3, Interaction(f"good item {i} {name}", f"bad item {i} {name}")
            )
            for i in range(USERS)
        ]
        write_jsonl(data / f"{name}_upi.jsonl", map(user_row, users))
    for benchmark, policy, setting in itertools.product(load_benchmarks([str(data)]), POLICIES, SETTINGS):
        write_summaries(out, policy, benchmark.name, setting, benchmark.records)
    first_reader, second_reader = (Reader(name, tokenizer, say) for name in JUDGES)
    async with (
        fake_server(first_reader, max_model_len=16384) as first,
        fake_server(second_reader, max_model_len=16384) as second,
    ):
        options = {"direct": False, "cues": [], "baselines": ["none"], "other_user": ["none"], "evaluator": "none"}
        servers = [f"{name}={s.url}#{tmp_path / 'tokenizer'}" for name, s in zip(JUDGES, (first, second))]
        await evaluate(
            EvaluationArguments(
                judge=servers, data=[str(data)], out=str(out), protocol=["choice", "paper"], orders="one", **options
            )
        )
    writing.write(out)
    return out


def number(text):
    return float(text.split(" ")[0])


def table_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Tables(HTMLParser):
    """The tables of a page, by their titles: lists of rows."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.title, self.inside = {}, "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "h3":
            self.title = ""
        elif tag == "table":
            self.tables[self.title] = []
        elif tag == "tr":
            self.tables[self.title].append([])
        elif tag in ("th", "td"):
            self.tables[self.title][-1].append("")
        self.inside = tag if tag in ("h3", "th", "td") else self.inside

    def handle_endtag(self, tag):
        self.inside = None if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "h3":
            self.title += data
        elif self.inside:
            self.tables[self.title][-1][-1] += data


def of_latex(path):
    """The rows of a tabular."""
    text = path.read_text(encoding="utf-8").partition("\\toprule\n")[2]
    for mark, sign in (("\\%", "%"), ("\\_", "_"), ("\\&", "&"), ("$-$", "−"), ("$\\kappa$", "κ"), ("--", "–")):
        text = text.replace(mark, sign)
    return [line[:-3].split(" & ") for line in text.splitlines() if line.endswith(" \\\\")]


def check_forms(folder):
    """CSV, LaTeX and the page hold the same tables."""
    page = Tables((folder / "report.html").read_text(encoding="utf-8")).tables
    paths = list(folder.glob("table_*.csv"))
    assert len(paths) == len(page) > 20
    for path in paths:
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert of_latex(path.with_suffix(".tex")) == rows
        assert rows in page.values(), path.name


async def test_every_cell_of_every_table_is_its_own(report_folder):
    assert len(NINE) == 9 and len(set(RIGHT.values())) == len(CELLS) == 72
    chosen = [name for name in NINE if DATASETS[name].task != "generation"]
    for protocol, names in (("choice", NINE), ("paper", chosen)):
        rows = json.loads((report_folder / "results.json").read_text())
        accuracy_of = {
            (row["benchmark"], row["judge"], row["setting"], row["policy"]): row["accuracy"]
            for row in rows
            if row["protocol"] == protocol and row["policy"] in POLICIES
        }
        planted_shares = {cell: (right + MORE[protocol]) / USERS for cell, right in RIGHT.items() if cell[0] in names}
        assert {cell: accuracy_of[cell] for cell in planted_shares} == pytest.approx(planted_shares)
        details = table_of(report_folder / f"table_details_{protocol}.csv")
        details_of = {
            (row["benchmark"], row["judge"], row["setting"], row["policy"]): number(row["accuracy %"])
            for row in details
        }
        for (name, judge, setting, policy), share in planted_shares.items():
            assert details_of[label(name), judge, setting, policy] == pytest.approx(100 * share, abs=0.005)
        for judge in JUDGES:
            wide = {
                (r["policy"], r["setting"]): r for r in table_of(report_folder / f"table_main_{judge}_{protocol}.csv")
            }
            for name, setting, policy in itertools.product(names, SETTINGS, POLICIES):
                text = wide[policy, setting][f"{label(name)} (n = {USERS})"]
                assert number(text) == pytest.approx(100 * planted_shares[name, judge, setting, policy], abs=0.005)
        for name in names:
            compact = {row["policy"]: row for row in table_of(report_folder / f"table_{name}_{protocol}.csv")}
            for judge, setting, policy in itertools.product(JUDGES, SETTINGS, POLICIES):
                text = compact[policy][f"{setting}, {judge}"]
                assert number(text) == pytest.approx(100 * planted_shares[name, judge, setting, policy], abs=0.005)
    check_forms(report_folder)
