"""Policies and downstream models of other families through real vLLM, its reasoning parsers included.

One tiny model learns to answer in every format; three servers show it under the chat formats of Qwen3, DeepSeek-R1 and
gpt-oss. vLLM's own parser of gpt-oss needs a vocabulary file that it fetches from the net, so its channels arrive here
as text; what a server sends that has taken them apart is in test_free_form.py and test_prompts.py.
"""

import asyncio
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks, slices_of
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.hicupid import case_of
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.serving.server import start, wait_ready
from alignxplore.world import tiny
from tests.evaluation.by_heart import learn

pytestmark = pytest.mark.slow

REASON, SUMMARY, REPLY = "Chosen by the sea.", "Likes sea. Dislikes city.", "Look at the sea."
DEEPSEEK = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
HARMONY = (
    "{%- for m in messages %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{%- endif %}"
)
# Server: chat template, arguments, formats of its policies, format of its downstream model.
SERVERS = {
    "qwen": (tiny.CHAT_TEMPLATE.lstrip("\n"), ("--reasoning-parser", "qwen3"), ("think", "plain"), None),
    "deepseek": (DEEPSEEK, ("--reasoning-parser", "deepseek_r1"), ("r1", "answer"), "r1"),
    "gptoss": (HARMONY, (), ("harmony",), "harmony"),
}


def users():
    for n in range(3):
        history = [Interaction(f"comedy by the sea {i}", f"thriller in the city {n}") for i in range(4)]
        yield UserRecord(f"u{n}", tuple(history), Interaction(f"farce by the sea {n}", f"whodunit in the city {n}"))


def lessons(benchmark, forms, judge_format):
    """(messages, format, what the model is to write) of everything that this run will ask of one server."""
    prompts = PromptSet()
    for record in benchmark.records:
        for form, setting in itertools.product(forms, ("full", "streaming")):
            for number, part in enumerate(slices_of(benchmark, record, setting, 2)):
                yield prompts.infer(part, SUMMARY if number else None, form), form, SUMMARY
        good, bad = record.target.chosen, record.target.rejected
        if judge_format:
            for summary, (a, b) in itertools.product((SUMMARY, None), ((good, bad), (bad, good))):
                yield (
                    prompts.judge(summary, None, a, b),
                    judge_format,
                    f'{{"selection": "Item {"A" if a == good else "B"}"}}',
                )


def written_lessons(questions, server):
    """The same of HiCUPID's score: one server's downstream model answers and chooses, another one's evaluator
    rates."""
    prompts = PromptSet()
    for record in questions.records:
        query, good, bad = record.target.query, record.target.chosen, record.target.rejected
        if server == "gptoss":
            yield prompts.render("answer", query=query, summary=None, interactions=None), "harmony", REPLY
            yield prompts.judge(None, query, good, bad), "harmony", '{"selection": "Item A"}'
        if server == "qwen":
            facts = case_of(record).facts
            if case_of(record).kind == "schedule":
                yield (
                    prompts.render("hicupid_schedule", facts=facts, query=query, answer=REPLY),
                    "think",
                    "Satisfaction: YES",
                )
                continue
            for a, b in ((REPLY, good), (good, REPLY)):
                verdict = "A" if a == REPLY else "B"
                yield (
                    prompts.render("hicupid_compare", facts=facts, query=query, item_a=a, item_b=b),
                    "think",
                    f"Better Response: {verdict}",
                )


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "world_films_upi.jsonl"
    write_jsonl(path, map(user_row, users()))
    return load_benchmarks([str(path)])[0]


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """HiCUPID questions, one of each kind."""
    likes = {"persona": {"relation": "likes", "entity": "the sea"}}
    profile = dict.fromkeys(("age", "gender", "personality", "occupation", "income_range"), "unknown")
    metadata = {
        "persona": likes,
        "profile": likes | {"profile": profile},
        "schedule": {"schedule": {"datetime": "noon", "event": "lunch"}},
    }
    records = [
        UserRecord(
            kind,
            (Interaction("Yes.", None, "Hello"),),
            Interaction("See the sea.", "Go on.", f"What of {kind}?"),
            json.dumps({"type": kind, "metadata": facts}),
        )
        for kind, facts in metadata.items()
    ]
    path = tmp_path_factory.mktemp("data") / "hicupid_upi.jsonl"
    write_jsonl(path, map(user_row, records))
    return load_benchmarks([str(path)])[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, benchmark, questions):
    """A model folder for each server: the same weights and tokens, other chat templates."""
    lessons_of = {
        server: [*lessons(benchmark, forms, judge_format), *written_lessons(questions, server)]
        for server, (*_, forms, judge_format) in SERVERS.items()
    }
    return learn(
        lessons_of,
        {server: template for server, (template, *_) in SERVERS.items()},
        REASON,
        tmp_path_factory.mktemp("models"),
    )


@pytest.fixture(scope="module")
def urls(folders, tmp_path_factory):
    """All servers, started at once."""
    logs, starts = tmp_path_factory.mktemp("logs"), {}
    try:
        for name, folder in folders.items():
            arguments = ("--max-model-len", "1024", "--max-num-seqs", "16", *SERVERS[name][1])
            starts[name] = start(str(folder), log_path=logs / f"{name}.log", arguments=arguments)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: wait_ready(*starts[name], log_path=logs / f"{name}.log"), starts))
        yield {name: url for name, (_, url) in starts.items()}
    finally:
        for process, _ in starts.values():
            process.end()


@pytest.fixture(scope="module")
def summaries_folder(urls, benchmark, tmp_path_factory):
    """The evaluation's output folder with the summaries of all policies, each named after its format."""
    out = tmp_path_factory.mktemp("out")
    policies = [(form, urls[name]) for name, (_, _, forms, _) in SERVERS.items() for form in forms]
    asyncio.run(
        generate(
            GenerationArguments(
                model=[f"{form}={url}" for form, url in policies],
                format=[f"{form}={form}" for form, _ in policies],
                data=[str(benchmark.path)],
                out=str(out),
                max_tokens=64,
                concurrency=8,
            )
        )
    )
    return out


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("setting", ["full", "streaming"])
def test_every_format_gives_its_summary(summaries_folder, benchmark, form, setting):
    rows = SummarySet(summaries_folder, form, "world_films", setting, 0).by_record()
    assert set(rows) == {record.id for record in benchmark.records}
    for row in rows.values():
        assert row["status"] == "ok" and len(row["stages"]) == (1 if setting == "full" else 2)
        for stage in row["stages"]:
            expected = (SUMMARY, REASON if FORMATS[form].reasons else "", None)
            assert (stage["summary"], stage["reasoning"], stage["problem"]) == expected, stage


def test_downstream_models_that_reason_judge_by_their_final_answer(summaries_folder, urls, benchmark):
    judges = {name: judge_format for name, (*_, judge_format) in SERVERS.items() if judge_format}
    results = asyncio.run(
        evaluate(
            EvaluationArguments(
                judge=[f"{name}={urls[name]}" for name in judges],
                judge_format=[f"{name}={form}" for name, form in judges.items()],
                data=[str(benchmark.path)],
                out=str(summaries_folder),
                protocol=["choice", "paper"],
                direct=False,
                answer_tokens=64,
                cues=[],
                baselines=["none"],
                concurrency=8,
            )
        )
    )
    rows = [result.row() for result in results]
    cells = {(row["policy"], row["setting"], row["judge"], row["protocol"]): row for row in rows}
    for form, setting, judge, protocol in itertools.product(
        FORMATS, ("full", "streaming"), judges, ("choice", "paper")
    ):
        row = cells[form, setting, judge, protocol]
        assert (row["n"], row["accuracy"], row["parse_failures"], row["bad_format"], row["coverage"]) == (
            3,
            1,
            0,
            0,
            1,
        ), row
    assert len({row["judge"] for row in rows}) == 2


def test_written_answers_are_rated_in_the_same_run(urls, questions, tmp_path):
    (result,) = asyncio.run(
        evaluate(
            EvaluationArguments(
                judge=[f"reader={urls['gptoss']}"],
                judge_format=["harmony"],
                evaluator=f"rater={urls['qwen']}",
                data=[str(questions.path)],
                out=str(tmp_path),
                protocol=["paper"],
                direct=False,
                answer_tokens=64,
                cues=[],
                baselines=["none"],
                concurrency=8,
            )
        )
    )
    row = result.row()
    assert (row["policy"], row["n"], row["accuracy"], row["win"], row["parse_failures"], row["coverage"]) == (
        "no summary",
        3,
        1,
        1,
        0,
        1,
    ), row
    assert 0 < row["rouge_l"] < 1
