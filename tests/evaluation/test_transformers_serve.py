"""Ours against `transformers serve`, an OpenAI-compatible server that many have already: what it can be here, and how
what it cannot be is said (eval/README.md, Other servers)."""

import asyncio
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import Benchmark, SummarySet, load_benchmarks, slices_of
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.judging.judgement import JudgeError
from alignxplore.processes import Family
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.serving.failures import RequestError, TransportError
from alignxplore.serving.server import free_port
from alignxplore.world import tiny
from tests.evaluation.by_heart import learn

pytestmark = pytest.mark.slow
REASON, SUMMARY = "Chosen by the sea.", "Likes sea. Dislikes city."


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory) -> Benchmark:
    path = tmp_path_factory.mktemp("data") / "world_films_upi.jsonl"
    history = [Interaction(f"comedy by the sea {i}", f"thriller in the city {i}") for i in range(4)]
    targets = [Interaction(f"farce by the sea {n}", f"whodunit in the city {n}") for n in range(3)]
    write_jsonl(path, (user_row(UserRecord(f"u{n}", tuple(history), target)) for n, target in enumerate(targets)))
    return load_benchmarks([str(path)])[0]


@pytest.fixture(scope="module")
def folder(benchmark, tmp_path_factory) -> Path:
    """A model that knows by heart its summaries, with reasoning and without, and its choices."""
    prompts, lessons = PromptSet(), []
    for record in benchmark.records:
        (history,) = slices_of(benchmark, record, "full", 1)
        lessons += [(prompts.infer(history, None, form), form, SUMMARY) for form in ("think", "plain")]
        good, bad = record.target.items
        for summary in (SUMMARY, None):
            lessons += [(prompts.judge(summary, None, good, bad), "think", '{"selection": "Item A"}')]
            lessons += [(prompts.judge(summary, None, bad, good), "think", '{"selection": "Item B"}')]
    template = {"model": tiny.CHAT_TEMPLATE.lstrip("\n")}
    return learn({"model": lessons}, template, REASON, tmp_path_factory.mktemp("models"))["model"]


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory) -> str:
    """A `transformers serve` of it, and the name by which it is asked."""
    port, log = free_port(), tmp_path_factory.mktemp("log") / "serve.log"
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port)]
    with log.open("wb") as out:
        server = Family([*command, "--device", "cpu"], environment=dict(os.environ), stdout=out, stderr=out)
    try:
        for _ in range(240):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except urllib.error.URLError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1@{folder}#{folder}"
    finally:
        server.end()


def written(url: str, benchmark: Benchmark, out: Path, form: str) -> list[dict]:
    sizes = {"max_model_len": 1024, "max_tokens": 64, "concurrency": 2}
    model, data = [f"{form}={url}"], [str(benchmark.path)]
    asyncio.run(
        generate(GenerationArguments(model=model, format=[form], data=data, out=str(out), settings=["full"], **sizes))
    )
    summaries = SummarySet(out, form, "world_films", "full", 0)
    return [row["stages"][0] | {"not_sent": row["not_sent"]} for row in summaries.by_record().values()]


def scored(url: str, benchmark: Benchmark, out: Path, form: str) -> list[dict]:
    about = {"direct": False, "cues": [], "baselines": ["none"], "concurrency": 2}
    about |= {"max_model_len": 1024, "answer_tokens": 512}
    judge, data = [f"reader={url}"], [str(benchmark.path)]
    results = asyncio.run(
        evaluate(EvaluationArguments(judge=judge, judge_format=[form], data=data, out=str(out), **about))
    )
    return [result.row() for result in results]


def test_a_policy_that_only_answers(url, benchmark, tmp_path):
    rows = written(url, benchmark, tmp_path, "plain")
    assert [(row["summary"], row["problem"]) for row in rows] == [(SUMMARY, None)] * 3
    assert "top_k" in rows[0]["not_sent"]


def test_a_policy_that_reasons_loses_its_reasoning_on_the_way(url, benchmark, tmp_path, caplog):
    """transformers 5.10.4 takes it out of the answer and drops it: bad format, which is said."""
    rows = written(url, benchmark, tmp_path, "think")
    assert [row["problem"] for row in rows] == ["not exactly one think block"] * 3
    assert "3 of 3 summaries are in bad format (100 %)" in caplog.text and "--format" in caplog.text


def test_a_judge_of_written_answers(url, benchmark, tmp_path):
    """Read as gpt-oss's, whose final channel may come alone."""
    (row,) = (row for row in scored(url, benchmark, tmp_path, "harmony") if row["policy"] == "no summary")
    assert (row["n"], row["accuracy"], row["parse_failures"], row["coverage"]) == (3, 1, 0, 1)


def test_a_judge_of_letters_is_refused_in_a_sentence(url, benchmark, tmp_path):
    with pytest.raises(
        JudgeError, match=r"cannot be asked for the probability of a letter .*serve the judge with vLLM"
    ):
        scored(url, benchmark, tmp_path, "plain")


def test_its_list_of_models_is_no_help_and_says_what_is(url, benchmark, tmp_path):
    with pytest.raises(
        (RequestError, TransportError), match="name its model, as .*@MODEL|serves none; name one of them"
    ):
        written(url.partition("@")[0], benchmark, tmp_path, "plain")
