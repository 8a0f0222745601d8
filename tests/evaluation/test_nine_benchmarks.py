"""The tables by their own commands, main and cross-model over nine benchmarks, direct, full and streaming, two
downstream models and HiCUPID's evaluator; then cross-task and robustness. All models are one tiny one behind real vLLM
that knows its answers by heart."""

import csv
import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.datasets import DATASETS
from alignxplore.evaluation.benchmarks import load_benchmarks, shown_history, slices_of
from alignxplore.evaluation.cross_task import shared_people
from alignxplore.evaluation.hicupid import case_of
from alignxplore.evaluation.perturbations import parse_kind, perturb
from alignxplore.evaluation.report.tables import MISSING, label
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.world import tiny
from tests import ROOT
from tests.conftest import serve
from tests.evaluation.by_heart import learn

pytestmark = pytest.mark.slow

EVAL = ROOT / "eval"
NINE = [name for name, entry in DATASETS.items() if entry.column]
READERS = {
    "Qwen2.5-7B-Instruct": "plain",
    "gpt-oss-20b": "think",
}  # names of the published rows, so that these stand beside ours
DISTURBED, KINDS = "student_phd", ("shuffled", "injected_order:0.5")
REASON, LIMIT = "Chosen by the sea.", 4
FIELDS = ("n", "accuracy", "bad_format", "parse_failures", "coverage")
MATERIALS = ("full", "streaming", "direct", "none")  # by either summary, by the history, not at all
ROWS = list(itertools.product(READERS, MATERIALS))
# Of the eight persons of a benchmark, in how many a downstream model is right: another number in each column of a row
# of the tables, and in each row of a column.
RIGHT = {(name, *row): (9 - column + line) % 9 for column, name in enumerate(NINE) for line, row in enumerate(ROWS)}
SUMMARIES = {
    "full": "Likes sea, as all choices show.",
    "streaming": "Likes sea, as the newer ones show.",
}
REPLIES = ["Look at the sea.", "Look at the city."]


def share_right(name: str, reader: str, material: str, persons=range(8)) -> float:
    return sum(person < RIGHT[name, reader, material] for person in persons) / len(persons)


def users(name: str):
    persona = json.dumps({"type": "persona", "metadata": {"persona": {"relation": "likes", "entity": "the sea"}}})
    history = tuple(Interaction(f"boats, part {i}", f"trams, part {i}", "Which tale?") for i in range(6))
    for person in range(8):
        tales = (f"a tale of the sea for {name} {person}", f"a tale of the city for {name} {person}")
        yield UserRecord(f"u{person}", history, Interaction(*tales, f"Which tale, {name} {person}?"), persona)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in NINE:
        write_jsonl(folder / f"{name}_upi.jsonl", map(user_row, users(name)))
    return folder


def asked_of_reader(prompts, record, name, reader, material, history=None):
    """(prompt, format, answer) of a downstream model's question about a target, with either item first."""
    right = int(record.user[1:]) < RIGHT[name, reader, material]
    for order in (1, -1):
        pair = (record.target.chosen, record.target.rejected)[::order]
        prompt = prompts.judge(SUMMARIES.get(material), record.target.query, *pair)
        answer = f'{{"selection": "Item {"A" if right == (order == 1) else "B"}"}}'
        yield prompts.direct(history, record.target.query, *pair) if history else prompt, READERS[reader], answer


def lessons(benchmark):
    """(prompt, format, answer) of everything that the main and the cross-model table ask of one benchmark."""
    prompts, name = PromptSet(), benchmark.name
    for record in benchmark.records:
        person, query, history = int(record.user[1:]), record.target.query, shown_history(benchmark, record)
        for setting in ("full", "streaming"):
            for number, part in enumerate(slices_of(benchmark, record, setting, 2)):
                past = SUMMARIES["full"] if number else None
                yield prompts.infer(part, past), "think", SUMMARIES["streaming" if number else "full"]
        for reader, material in ROWS:
            raw_history = history if material == "direct" else None
            yield from asked_of_reader(prompts, record, name, reader, material, raw_history)
            if name == "hicupid":
                prompt = prompts.render(
                    "answer", query=query, summary=SUMMARIES.get(material), interactions=raw_history
                )
                yield prompt, READERS[reader], REPLIES[0 if person < RIGHT[name, reader, material] else 1]
        if name == "hicupid":
            for reply, order in itertools.product(REPLIES, (1, -1)):
                a, b = (reply, record.target.chosen)[::order]
                prompt = prompts.render(
                    "hicupid_compare", facts=case_of(record).facts, query=query, item_a=a, item_b=b
                )
                yield prompt, "think", f"Better Response: {'A' if (reply == REPLIES[0]) == (order == 1) else 'B'}"


def of_robustness(benchmark):
    """What the robustness table asks beyond these: disturbed histories, and under the hardened prompts the undisturbed
    ones and the targets, too."""
    copies = [tuple(perturb(benchmark, *parse_kind(kind)[:2], 0)) for kind in KINDS]
    hardened_prompts = PromptSet("hardened")
    for prompts, records in (
        (PromptSet(), copies[0]),
        (PromptSet(), copies[1]),
        (hardened_prompts, (*benchmark.records, *copies[1])),
    ):
        yield from ((prompts.infer(record.history, None), "think", SUMMARIES["full"]) for record in records)
    for record, material in itertools.product(benchmark.records, ("full", "none")):
        yield from asked_of_reader(hardened_prompts, record, benchmark.name, next(iter(READERS)), material)


@pytest.fixture(scope="module")
def url(data, tmp_path_factory):
    all_lessons = [lesson for benchmark in load_benchmarks([str(data)]) for lesson in lessons(benchmark)]
    all_lessons += of_robustness(*load_benchmarks([str(data)], [DISTURBED], limit=LIMIT))
    unique_lessons = {json.dumps(lesson): lesson for lesson in all_lessons}
    folder = learn(
        {"tiny": list(unique_lessons.values())},
        {"tiny": tiny.CHAT_TEMPLATE.lstrip("\n")},
        REASON,
        tmp_path_factory.mktemp("models"),
        one_token_prompts=True,
    )["tiny"]
    arguments = ("--max-model-len", "2048", "--max-num-seqs", "32")
    with serve(str(folder), log_path=tmp_path_factory.mktemp("logs") / "serve.log", arguments=arguments) as url:
        yield url


def cells_of(out: Path) -> dict[tuple, dict]:
    rows = json.loads((out / "results.json").read_text())
    return {tuple(row[key] for key in ("policy", "setting", "benchmark", "judge", "protocol")): row for row in rows}


def table_of(path: Path) -> dict[tuple, dict]:
    with path.open(encoding="utf-8") as file:
        return {(row["policy"], row.get("setting")): row for row in csv.DictReader(file)}


def number(cell: str) -> float:
    return float(cell.split(" ")[0])


def test_both_tables_over_nine_benchmarks(url, data, tmp_path):
    assert all(len({RIGHT[name, *row] for name in NINE}) == 9 == len(NINE) for row in ROWS)
    assert all(len({RIGHT[name, *row] for row in ROWS}) == len(ROWS) for name in NINE)
    models = [f"{name}={url}" for name in READERS]
    environment = os.environ | {
        "MODEL": f"ours={url}",
        "DATA": str(data),
        "OUT": str(tmp_path),
        "GENERATE": "--max_tokens 64",
    }
    options = f"--answer_tokens 64 --evaluator rater={url} --published ours=AlignXplore+"
    for script, variables in (
        ("main_table.sh", {"JUDGE": models[0], "EVALUATE": options}),
        ("cross_model.sh", {"JUDGE": " ".join(models), "EVALUATE": f"--judge_format gpt-oss-20b=think {options}"}),
    ):
        subprocess.run(["bash", str(EVAL / script), "--concurrency", "32"], env=environment | variables, check=True)
        line_counts = {path: path.read_text().count("\n") for path in (tmp_path / "summaries").rglob("*.jsonl")}
        assert len(line_counts) == 9 * 2 and set(line_counts.values()) == {8}  # by the second command, too
    for table, readers in (("main", list(READERS)[:1]), ("cross_model", list(READERS))):
        for reader, protocol in itertools.product(readers, ("choice", "paper")):
            check_tables(tmp_path / "tables" / table, reader, protocol, len(readers) > 1)
    published = {policy for policy, _ in table_of(tmp_path / "tables/cross_model/table_main_gpt-oss-20b_paper.csv")}
    assert {"published: AlignXplore+", "published: GPT-OSS-20B"} <= published


def check_tables(folder, reader, protocol, many_readers):
    """Every number of one downstream model: in results.json, its own table, and that of each benchmark."""
    cells, lines = cells_of(folder), table_of(folder / f"table_main_{reader}_{protocol}.csv")
    keys = (("ours", "full"), ("ours", "streaming"), (reader, "direct"), ("no summary", "none"))
    for (material, key), name in itertools.product(zip(MATERIALS, keys, strict=True), NINE):
        share, row = share_right(name, reader, material), cells[*key, name, reader, protocol]
        assert [row[field] for field in FIELDS] == [8, share, 0, 0, 1], row
        assert number(lines[key][f"{label(name)} (n = 8)"]) == 100 * share
        if many_readers:
            line = f"{reader} reads the history (direct)" if material == "direct" else key[0]
            column = f"{'streaming' if material == 'streaming' else 'full'}, {reader}"
            assert number(table_of(folder / f"table_{name}_{protocol}.csv")[line, None][column]) == 100 * share
    streaming_line = lines["ours", "streaming"]
    assert len(streaming_line) == 2 + 9 + 1 + 4 and MISSING not in streaming_line.values()


def test_cross_task_and_robustness(url, data, tmp_path):
    reader = next(iter(READERS))
    data_options = [f"{name}={data / f'{name}_upi.jsonl'}" for name in ("mind", DISTURBED)]
    environment = os.environ | {
        "MODEL": f"ours={url}",
        "JUDGE": f"{reader}={url}",
        "PROTOCOL": "choice",
        "LIMIT": str(LIMIT),
        "GENERATE": "--max_tokens 64",
        "EVALUATE": "--direct false",
        "SETTINGS": "full",
    }
    for script, variables in (
        ("cross_task.sh", {"DATA": " ".join(data_options)}),
        ("robustness.sh", {"DATA": data_options[1], "KINDS": " ".join(KINDS)}),
    ):
        subprocess.run(
            ["bash", str(EVAL / script), "--concurrency", "32"],
            env=environment | variables | {"OUT": str(tmp_path / script)},
            check=True,
        )
    target_of = {
        f"mind~to~{DISTURBED}": DISTURBED,
        f"{DISTURBED}~to~mind": "mind",
        "mind": "mind",
        DISTURBED: DISTURBED,
    }
    copies = [DISTURBED, f"{DISTURBED}~shuffled", f"{DISTURBED}~injected_order50"]
    people = [int(person[1:]) for person in shared_people(*load_benchmarks(data_options), LIMIT)]
    sample_persons = [int(record.user[1:]) for record in load_benchmarks(data_options[1:], limit=LIMIT)[0].records]
    for folder, policy, names, persons in (
        (tmp_path / "cross_task.sh" / "tables" / "cross_task", "ours", target_of, people),
        (tmp_path / "robustness.sh" / "default", "ours", dict.fromkeys(copies, DISTURBED), sample_persons),
        (
            tmp_path / "robustness.sh" / "hardened",
            "ours-hardened",
            dict.fromkeys(copies[::2], DISTURBED),
            sample_persons,
        ),
    ):
        cells = cells_of(folder)
        assert {name for _, _, name, *_ in cells} == set(names)
        for (name, target), key in itertools.product(names.items(), ((policy, "full"), ("no summary", "none"))):
            row = cells[*key, name, reader, "choice"]
            share = share_right(target, reader, key[1], persons)
            assert [row[field] for field in FIELDS] == [LIMIT, share, 0, 0, 1], row
    line = table_of(tmp_path / f"robustness.sh/table_injection_{reader}_choice.csv")["ours", "full"]
    percentage = 100 * share_right(DISTURBED, reader, "full", sample_persons)
    assert (number(line["hardened prompts"]), line["obeyed %"]) == (percentage, "0.00")
