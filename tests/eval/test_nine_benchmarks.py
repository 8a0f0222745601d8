"""The main and the cross-model table by their own commands: nine benchmarks, direct, full and streaming, two downstream models and HiCUPID's
evaluator, all of them one tiny model behind real vLLM that knows its answers by heart."""

import csv
import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest
from by_heart import learn
from hicupid import case_of
from suite import load_benchmarks, shown_history, slices_of
from tables import MISSING

from alignxplore import tiny
from alignxplore.datasets import DATASETS
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, user_row, write_jsonl
from alignxplore.serving import serve

pytestmark = pytest.mark.slow

EVAL = Path(__file__).parents[2] / "eval"
NINE = [name for name, entry in DATASETS.items() if entry.column]
READERS = {"Qwen2.5-7B-Instruct": "plain", "gpt-oss-20b": "think"}  # names of the published rows, so that these stand beside ours
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
    """(prompt, format, answer) of everything that the tables of one benchmark ask."""
    prompts = PromptSet()
    for record in benchmark.records:
        query, good, bad, history = record.target.query, record.target.chosen, record.target.rejected, shown_history(benchmark, record)
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


@pytest.fixture(scope="module")
def url(data, tmp_path_factory):
    known = {json.dumps(lesson): lesson for benchmark in load_benchmarks([str(data)]) for lesson in lessons(benchmark)}
    folder = learn({"tiny": list(known.values())}, {"tiny": tiny.CHAT_TEMPLATE.lstrip("\n")}, REASON, tmp_path_factory.mktemp("models"))["tiny"]
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
    shared = os.environ | {"MODEL": f"ours={url}", "DATA": str(data), "OUT": str(tmp_path), "GENERATE": "--max_tokens 64"}
    options = f"--answer_tokens 64 --evaluator rater={url} --published ours=AlignXplore+"
    for script, more in (("main_table.sh", {"JUDGE": models[0], "EVALUATE": options}),
                         ("cross_model.sh", {"JUDGE": " ".join(models), "EVALUATE": f"--judge_format gpt-oss-20b=think {options}"})):
        subprocess.run(["bash", str(EVAL / script), "--concurrency", "32"], env=shared | more, check=True)
        written = {path: path.read_text().count("\n") for path in (tmp_path / "summaries").rglob("*.jsonl")}
        assert len(written) == 9 * 2 and set(written.values()) == {4}  # by the second command, too
    for table, readers in (("main", list(READERS)[:1]), ("cross_model", list(READERS))):
        cells = cells_of(tmp_path / "tables" / table)
        for reader, name, protocol in itertools.product(readers, NINE, ("choice", "paper")):
            for policy, setting in (("ours", "full"), ("ours", "streaming"), (reader, "direct"), ("no summary", "none")):
                row = cells[policy, setting, name, reader, protocol]
                assert [row[key] for key in ("n", "accuracy", "bad_format", "parse_failures", "coverage")] == [4, 1, 0, 0, 1], row
        for reader, protocol in itertools.product(readers, ("choice", "paper")):
            rows = {(row["policy"], row["setting"]): row for row in table_of(tmp_path / "tables" / table / f"table_main_{reader}_{protocol}.csv")}
            ours = rows["ours", "streaming"]
            assert len(ours) == 2 + 9 + 1 + 4 and MISSING not in ours.values() and ours["average"] == "100.00"
            assert (reader, "direct") in rows
    published = [row["policy"] for row in table_of(tmp_path / "tables" / "cross_model" / "table_main_gpt-oss-20b_paper.csv")]
    assert "published: AlignXplore+" in published and "published: GPT-OSS-20B" in published
