"""Histories that are longer than a window: what fits is asked, what was left out is counted and named below the
tables."""

import json
import math
from dataclasses import replace

import pytest

from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.conditions import (
    BadFormat,
    Cell,
    MissingSummary,
    ReadSummaries,
    of_histories,
    of_no_summary,
    of_other_users,
    of_summaries,
)
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.judgements import direct_budget, first_questions
from alignxplore.evaluation.metrics import truncated
from alignxplore.evaluation.report import writing
from alignxplore.evaluation.report.layouts import details
from alignxplore.evaluation.report.tables import MISSING
from alignxplore.evaluation.results import result_rows
from alignxplore.evaluation.rows import Result
from alignxplore.evaluation.scores import score_rows
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.yes_no import YesNoJudge
from alignxplore.prompts import PromptSet
from alignxplore.records import read_jsonl
from alignxplore.serving.endpoint import Endpoint
from alignxplore.summarize import count_tokens


class Reader:
    """Writes summaries, and as a downstream model prefers the last item of the user whom it was told of."""

    def __init__(self, tokenizer, say):
        self.letters, self.say, self.tokenizer, self.longest = find_letters(tokenizer), say, tokenizer, 0

    def __call__(self, body: dict) -> dict:
        text = body["messages"][1]["content"]
        if "Item A: " not in text:
            return self.say("<think>\nI read\n</think>\n\nlast films")
        self.longest = max(self.longest, count_tokens(self.tokenizer, body["messages"], False))
        first = "last" in text.split("Item A: ")[1].split("\n")[0]
        if not body.get("logprobs"):
            return self.say(f'{{"selection": "Item {"A" if first else "B"}"}}')
        logs = zip(self.letters.tokens, (math.log(0.9), math.log(0.1)) if first else (math.log(0.1), math.log(0.9)))
        entries = [{"token": f"token_id:{token}", "logprob": log} for token, log in logs]
        return {
            "choices": [
                {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}
            ]
        }


@pytest.fixture
def score_in_window(fake_server, say, tokenizer, record, benchmark_file, tmp_path):
    """Rows of results and requests' longest prompt of one short and one long history, read in a window that the server
    would not need."""
    path = benchmark_file("personamem", [record("short", 4), record("long", 90)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    async def run(window: int = 2000) -> tuple[list[Result], int]:
        reader = Reader(tokenizer, say)
        async with fake_server(reader, max_model_len=100_000) as server:
            options = {"data": [str(path)], "out": str(tmp_path / "out"), "max_model_len": window}
            model = f"{server.url}#{tmp_path / 'tokenizer'}"
            await generate(GenerationArguments(model=[f"ours={model}"], max_tokens=64, **options))
            rows = await evaluate(
                EvaluationArguments(
                    judge=[f"reader={model}"], protocol=["choice", "paper"], cues=["longer"], **options
                )
            )
        return rows, reader.longest

    return run


async def test_the_share_of_cut_histories_stands_beside_every_number_that_read_one(score_in_window, tmp_path):
    rows, _ = await score_in_window()
    share_of = {(row.policy, row.setting, row.protocol): row[truncated] for row in rows}
    for protocol in ("choice", "paper"):
        assert [share_of[*key, protocol] for key in (("ours", "full"), ("reader", "direct"))] == [0.5, 0.5]
        assert share_of["ours", "streaming", protocol] == 0.5, "one of its two stages is enough"
        assert share_of["no summary", "none", protocol] is None and share_of["longer", "none", protocol] is None
        table = details(rows, protocol)
        assert {line[0]: line[table.head.index("truncated %")] for line in table.body}["reader"] == "50.00"
    dropped_counts = {
        (row["user"], row["setting"]): row["dropped"]
        for _, row in read_jsonl(tmp_path / "out" / "scores.jsonl")
        if row["policy"] in ("ours", "reader")
    }
    assert {key for key, count in dropped_counts.items() if count} == {
        ("long", setting) for setting in ("full", "streaming", "direct")
    }
    writing.write(tmp_path / "out")
    sentence = (
        "Histories whose oldest part did not fit a window and was left out, in % of the rows of the worst cell: "
        "PersonaMem 50.00."
    )
    assert (
        sentence in (tmp_path / "out" / "report.md").read_text()
        and sentence in (tmp_path / "out" / "report.html").read_text()
    )
    assert "truncated" in (tmp_path / "out" / "results.csv").read_text().splitlines()[0]


async def test_nothing_is_said_where_nothing_was_cut(score_in_window, tmp_path):
    rows, _ = await score_in_window(16384)
    assert {
        row[truncated]
        for row in rows
        if row.setting in ("full", "streaming", "direct") and "other" not in row.policy and row.judge != "none"
    } == {0}
    writing.write(tmp_path / "out")
    assert "did not fit a window" not in (tmp_path / "out" / "report.md").read_text()


async def test_an_endpoints_larger_window_is_not_used_beyond_what_was_asked_for(score_in_window, tmp_path):
    rows, longest = await score_in_window()
    assert 1000 < longest <= 2000 - 32
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["judges"]["reader"]["window"] == 2000
    assert {recipe["window"] for recipe in run["policies"]["ours"]["sets"].values()} == {2000}


@pytest.mark.parametrize(
    ("server", "limit", "window"),
    [(40960, 16384, 16384), (4096, 16384, 4096), (None, 16384, 16384), (40960, 40960, 40960)],
)
def test_the_smaller_window_holds(server, limit, window):
    endpoint = Endpoint("http://host/v1")
    endpoint.max_model_len = server
    assert endpoint.window(limit) == window


@pytest.mark.parametrize(("answer_tokens", "budget"), [(16, 2000 - 32), (100, 1900)])
def test_a_prompt_leaves_room_for_the_answer_and_never_less_than_32_tokens(tokenizer, answer_tokens, budget):
    judge = Judge(Endpoint("http://host/v1"), tokenizer, PromptSet())
    judge.answer_tokens = answer_tokens
    arguments = EvaluationArguments(judge=["j=http://host/v1"], data=["x"], out="x", max_model_len=2000)
    assert direct_budget(judge, arguments) == budget


def test_a_judge_is_first_asked_eight_questions_of_its_own_kind_at_most(tokenizer, record, benchmark_file):
    path = benchmark_file("personamem", [record(f"u{i}") for i in range(20)])
    (benchmark,) = load_benchmarks([str(path)])
    cells = [of_histories("j", benchmark), of_no_summary(benchmark)]
    arguments = EvaluationArguments(judge=["j=http://host/v1"], data=[str(path)], out="x")
    judge, reader = (kind(Endpoint("http://host/v1"), tokenizer, PromptSet()) for kind in (Judge, YesNoJudge))
    targets = [record.target for record in benchmark.records[:8]]
    assert first_questions(arguments, judge, cells) == [(None, target) for target in targets]
    assert [target for _, target in first_questions(arguments, reader, cells)] == targets
    assert all(history for history, _ in first_questions(arguments, reader, cells))


async def test_strangers_summaries_and_bad_format_tell_of_their_own_cuts(
    score_in_window, record, benchmark_file, tmp_path
):
    await score_in_window()
    (benchmark,) = load_benchmarks([str(tmp_path / "personamem_upi.jsonl")])
    cell = of_summaries(SummarySet(tmp_path / "out", "ours", "personamem", "full", 0), benchmark)
    assert [question.dropped > 0 for question in cell.questions] == [
        question.record.user == "long" for question in cell.questions
    ]
    people = tuple(ReadSummaries(record(f"u{i}"), (f"s{i}",), dropped=int(i == 0)) for i in range(4))
    strangers = of_other_users(Cell("ours", "full", benchmark, 0, people)).questions
    assert [question.dropped for question in strangers] == [0, 1, 1, 1], "what the three others lost"
    bad = Cell(
        "ours",
        "full",
        benchmark,
        0,
        (BadFormat(record("a"), "unfinished reasoning", dropped=3), MissingSummary(record("b"))),
    )
    for protocol in ("choice", "paper"):
        (result,) = result_rows(score_rows(bad, "reader", protocol))
        row = result.row()
        assert row["truncated"] == 1.0, "of the one row of which it is known"
    table = details([replace(result, values={**result.values, "truncated": None})], "paper")
    assert table.body[0][table.head.index("truncated %")] == MISSING
