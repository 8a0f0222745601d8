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
from alignxplore.evaluation.hicupid import case_of
from alignxplore.evaluation.perturbations import parse_kind, perturb
from alignxplore.evaluation.report.tables import MISSING
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.serving.server import serve
from alignxplore.world import tiny
from tests import ROOT
from tests.evaluation.by_heart import learn

pytestmark = pytest.mark.slow

EVAL = ROOT / "eval"
NINE = [name for name, entry in DATASETS.items() if entry.column]
READERS = {
    "Qwen2.5-7B-Instruct": "plain",
    "gpt-oss-20b": "think",
}  # names of the published rows, so that these stand beside ours
DISTURBED, KINDS = "student_phd", ("shuffled", "injected_order:0.5")
REASON, SUMMARY, REPLY = "Chosen by the sea.", "Likes sea. Dislikes city.", "Look at the sea."


def users():
    """Four people. Each item is so long that it is one token, so that choosing is no riddle for a model this small."""
    persona = json.dumps({"type": "persona", "metadata": {"persona": {"relation": "likes", "entity": "the sea"}}})
    for n in range(4):
        sea = f"a tale of the sea, number {n}, with boats, gulls, salt and wind in every line"
        city = f"a tale of the city, number {n}, with trams, smoke, rain and noise in every line"
        history = tuple(Interaction(f"{sea}, part {i}", f"{city}, part {i}", "Which tale?") for i in range(6))
        yield UserRecord(f"u{n}", history, Interaction(sea, city, "Which tale?"), persona)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in NINE:
        write_jsonl(folder / f"{name}_upi.jsonl", map(user_row, users()))
    return folder


def lessons(benchmark):
    """(prompt, format, answer) of everything that the main and the cross-model table ask of one benchmark."""
    prompts = PromptSet()
    for record in benchmark.records:
        query, good, bad, history = (
            record.target.query,
            record.target.chosen,
            record.target.rejected,
            shown_history(benchmark, record),
        )
        for setting in ("full", "streaming"):
            for number, part in enumerate(slices_of(benchmark, record, setting, 2)):
                yield prompts.infer(part, SUMMARY if number else None), "think", SUMMARY
        for form, (a, b) in itertools.product(READERS.values(), ((good, bad), (bad, good))):
            selection = f'{{"selection": "Item {"A" if a == good else "B"}"}}'
            yield from ((prompts.judge(summary, query, a, b), form, selection) for summary in (SUMMARY, None))
            yield prompts.direct(history, query, a, b), form, selection
        if benchmark.name == "hicupid":
            for form, known in itertools.product(READERS.values(), ((SUMMARY, None), (None, None), (None, history))):
                yield prompts.render("answer", query=query, summary=known[0], interactions=known[1]), form, REPLY
            for a, b in ((REPLY, good), (good, REPLY)):
                asked = prompts.render("hicupid_compare", facts=case_of(record).facts, query=query, item_a=a, item_b=b)
                yield asked, "think", f"Better Response: {'A' if a == REPLY else 'B'}"


def of_robustness(benchmark):
    """What the robustness table asks beyond these: disturbed histories, and under the hardened prompts the undisturbed
    ones and the targets, too."""
    copies = [tuple(perturb(benchmark, *parse_kind(kind)[:2], None, 0)) for kind in KINDS]
    for prompts, records in (
        (PromptSet(), copies[0]),
        (PromptSet(), copies[1]),
        (PromptSet("hardened"), (*benchmark.records, *copies[1])),
    ):
        yield from ((prompts.infer(record.history, None), "think", SUMMARY) for record in records)
    for record, summary, order in itertools.product(benchmark.records, (SUMMARY, None), (1, -1)):
        pair = (record.target.chosen, record.target.rejected)[::order]
        yield (
            PromptSet("hardened").judge(summary, record.target.query, *pair),
            "plain",
            f'{{"selection": "Item {"A" if order == 1 else "B"}"}}',
        )


@pytest.fixture(scope="module")
def url(data, tmp_path_factory):
    asked = [lesson for benchmark in load_benchmarks([str(data)]) for lesson in lessons(benchmark)]
    asked += of_robustness(*load_benchmarks([str(data)], [DISTURBED], limit=2))
    known = {json.dumps(lesson): lesson for lesson in asked}
    folder = learn(
        {"tiny": list(known.values())},
        {"tiny": tiny.CHAT_TEMPLATE.lstrip("\n")},
        REASON,
        tmp_path_factory.mktemp("models"),
    )["tiny"]
    arguments = ("--max-model-len", "2048", "--max-num-seqs", "32")
    with serve(str(folder), log_path=tmp_path_factory.mktemp("logs") / "serve.log", arguments=arguments) as url:
        yield url


def cells_of(out: Path) -> dict[tuple, dict]:
    rows = json.loads((out / "results.json").read_text())
    return {tuple(row[key] for key in ("policy", "setting", "benchmark", "judge", "protocol")): row for row in rows}


def table_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_tables_over_nine_benchmarks(url, data, tmp_path):
    assert len(NINE) == 9
    models = [f"{name}={url}" for name in READERS]
    shared = os.environ | {
        "MODEL": f"ours={url}",
        "DATA": str(data),
        "OUT": str(tmp_path),
        "GENERATE": "--max_tokens 64",
    }
    options = f"--answer_tokens 64 --evaluator rater={url} --published ours=AlignXplore+"
    for script, more in (
        ("main_table.sh", {"JUDGE": models[0], "EVALUATE": options}),
        ("cross_model.sh", {"JUDGE": " ".join(models), "EVALUATE": f"--judge_format gpt-oss-20b=think {options}"}),
    ):
        subprocess.run(["bash", str(EVAL / script), "--concurrency", "32"], env=shared | more, check=True)
        written = {path: path.read_text().count("\n") for path in (tmp_path / "summaries").rglob("*.jsonl")}
        assert len(written) == 9 * 2 and set(written.values()) == {4}  # by the second command, too
    for table, readers in (("main", list(READERS)[:1]), ("cross_model", list(READERS))):
        cells = cells_of(tmp_path / "tables" / table)
        for reader, name, protocol in itertools.product(readers, NINE, ("choice", "paper")):
            for policy, setting in (
                ("ours", "full"),
                ("ours", "streaming"),
                (reader, "direct"),
                ("no summary", "none"),
            ):
                row = cells[policy, setting, name, reader, protocol]
                assert [row[key] for key in ("n", "accuracy", "bad_format", "parse_failures", "coverage")] == [
                    4,
                    1,
                    0,
                    0,
                    1,
                ], row
        for reader, protocol in itertools.product(readers, ("choice", "paper")):
            rows = {
                (row["policy"], row["setting"]): row
                for row in table_of(tmp_path / "tables" / table / f"table_main_{reader}_{protocol}.csv")
            }
            ours = rows["ours", "streaming"]
            assert (
                len(ours) == 2 + 9 + 1 + 4 and MISSING not in ours.values() and ours["average"].startswith("100.00 [")
            )
            assert (reader, "direct") in rows
    published = [
        row["policy"] for row in table_of(tmp_path / "tables" / "cross_model" / "table_main_gpt-oss-20b_paper.csv")
    ]
    assert "published: AlignXplore+" in published and "published: GPT-OSS-20B" in published


def test_cross_task_and_robustness(url, data, tmp_path):
    reader = next(iter(READERS))
    shared = os.environ | {
        "MODEL": f"ours={url}",
        "JUDGE": f"{reader}={url}",
        "PROTOCOL": "choice",
        "LIMIT": "2",
        "GENERATE": "--max_tokens 64",
        "EVALUATE": "--direct false",
        "SETTINGS": "full",
    }
    pair = " ".join(f"{name}={data / f'{name}_upi.jsonl'}" for name in ("mind", DISTURBED))
    for script, more in (
        ("cross_task.sh", {"DATA": pair}),
        ("robustness.sh", {"DATA": pair.split()[1], "KINDS": " ".join(KINDS)}),
    ):
        subprocess.run(
            ["bash", str(EVAL / script), "--concurrency", "32"],
            env=shared | more | {"OUT": str(tmp_path / script)},
            check=True,
        )
    crossed = (f"mind~to~{DISTURBED}", f"{DISTURBED}~to~mind", "mind", DISTURBED)
    copies = (DISTURBED, f"{DISTURBED}~shuffled", f"{DISTURBED}~injected_order50")
    for folder, policy, names in (
        (tmp_path / "cross_task.sh" / "tables" / "cross_task", "ours", crossed),
        (tmp_path / "robustness.sh" / "default", "ours", copies),
        (tmp_path / "robustness.sh" / "hardened", "ours-hardened", (copies[0], copies[2])),
    ):
        cells = cells_of(folder)
        assert {name for _, _, name, *_ in cells} == set(names)
        for key in ((who, how, name) for name in names for who, how in ((policy, "full"), ("no summary", "none"))):
            row = cells[*key, reader, "choice"]
            assert [row[field] for field in ("n", "accuracy", "bad_format", "coverage")] == [2, 1, 0, 1], row
    (line,) = [
        row
        for row in table_of(tmp_path / "robustness.sh" / f"table_injection_{reader}_choice.csv")
        if row["policy"] == "ours"
    ]
    assert (line["hardened prompts"][:6], line["obeyed %"]) == ("100.00", "0.00")
