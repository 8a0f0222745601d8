"""A server that takes no request (no credit, an expired key) says nothing about a policy: the run stops, and the next
one asks again. What can never fit its window is final."""

import json
from collections import Counter

import pytest
from aiohttp import web

from alignxplore.evaluation.benchmarks import SummarySet, load_benchmarks
from alignxplore.evaluation.conditions import MissingSummary, ReadSummaries, of_summaries
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.judging.judgement import JudgeError
from alignxplore.records import Interaction, UserRecord
from alignxplore.serving.endpoint import TransportError
from alignxplore.summarize import count_tokens
from alignxplore.work import TooManyErrors
from tests.judging.test_letters import LetterServer


@pytest.fixture
def setup(tokenizer, record, benchmark_file, tmp_path):
    """`setup(users)`: the benchmark, the set of its summaries, and arguments for an endpoint."""

    def make(users: int):
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        (benchmark,) = load_benchmarks([str(benchmark_file("world_films", [record(f"u{i}") for i in range(users)]))])
        return (
            benchmark,
            SummarySet(tmp_path, "ours", "world_films", "full", 0),
            lambda url: GenerationArguments(
                model=[f"ours={url}#{tmp_path / 'tokenizer'}"],
                data=[str(benchmark.path)],
                settings=["full"],
                out=str(tmp_path),
                concurrency=4,
            ),
        )

    return make


@pytest.mark.parametrize("status", [400, 402])
async def test_refusals_stop_the_run_and_are_asked_again(fake_server, say, setup, status):
    benchmark, target, arguments = setup(60)
    credit = 20
    async with fake_server(
        lambda body: (
            say("<think>\nI read\n</think>\n\nfilms")
            if len(server.bodies) <= credit
            else web.Response(status=status, text="no")
        ),
        max_model_len=16384,
    ) as server:
        with pytest.raises(TooManyErrors, match=f"HTTP {status}: no"):
            await generate(arguments(server.url))
        questions = of_summaries(target, benchmark).questions
        assert Counter(map(type, questions)) == {ReadSummaries: 20, MissingSummary: 40}
        credit, count = 1000, len(server.bodies)
        await generate(arguments(server.url))
        assert len(server.bodies) - count == 40
    assert all(isinstance(q, ReadSummaries) for q in of_summaries(target, benchmark).questions)


async def test_a_history_that_cannot_be_made_to_fit_is_bad_format_for_good(fake_server, say, setup):
    benchmark, target, arguments = setup(2)
    async with fake_server(lambda body: say("films"), max_model_len=4100) as server:  # the answer alone may take 4,096
        for _ in range(2):
            await generate(arguments(server.url))
        assert not server.bodies
    assert all("the budget is 4" in q.problem for q in of_summaries(target, benchmark).questions)


async def test_a_target_that_no_window_takes_is_missing_for_good_and_stops_nothing(
    fake_server, tokenizer, record, benchmark_file, tmp_path
):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    large_record = UserRecord("huge", (Interaction("a", "b"),), Interaction("x" * 200_000, "a film"))
    path = benchmark_file("world_films", [large_record, *(record(f"u{i}") for i in range(3))])
    letters, window = LetterServer(tokenizer, lambda a, b: (0.9, 0.05) if "last" in a else (0.05, 0.9)), 4096

    def strict(body):
        tokens = count_tokens(tokenizer, body["messages"][:-1], False)
        return letters(body) if tokens < window else web.Response(status=400, text=f"{tokens} tokens are too many")

    async with fake_server(strict, max_model_len=window) as server:
        arguments = EvaluationArguments(
            judge=[f"judge={server.url}#{tmp_path / 'tokenizer'}"],
            data=[str(path)],
            out=str(tmp_path / "out"),
            direct=False,
            cues=[],
            baselines=["none"],
        )
        rows = [result.row() for result in await evaluate(arguments)]
        count = len(server.bodies)
        await evaluate(arguments)
        second_bodies = server.bodies[count:]
    assert [(row["coverage"], row["bad_format"]) for row in rows] == [(0.75, 0)]
    assert len([body for body in second_bodies if "x" * 99 in str(body)]) <= 2, (
        "none but to check the judge, by either way"
    )
    rows_on_disk = [
        json.loads(line) for line in (tmp_path / "out/judgements/judge/choice.jsonl").read_text().splitlines()
    ]
    assert {(row["user"], row["whose"]) for row in rows_on_disk} == {
        (user, "no summary, none") for user in ("huge", "u0", "u1", "u2")
    }
    (final,) = [row for row in rows_on_disk if row["status"] != "ok"]
    assert final["status"] == "too_long" and "tokens of prompt, and 4064 fit: HTTP 400" in final["error"]


async def test_protocol_paper_alone_needs_no_probabilities_but_answers_that_can_be_read(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path
):
    """A server that reports no log-probabilities, asked by either protocol."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path, text = benchmark_file("world_films", [record(f"u{i}") for i in range(3)]), '{"selection": "Item A"}'

    async def judge(name: str, protocols: list[str]) -> list[tuple]:
        options = {"data": [str(path)], "out": str(tmp_path / "out"), "cues": [], "baselines": ["none"]}
        spec = f"{name}={server.url}#{tmp_path / 'tokenizer'}"
        results = await evaluate(EvaluationArguments(judge=[spec], protocol=protocols, **options))
        return [(row["setting"], row["n"], row["parse_failures"]) for row in (result.row() for result in results)]

    async with fake_server(lambda body: say(text), max_model_len=16384) as server:
        assert await judge("written", ["paper"]) == [("none", 3, 0), ("direct", 3, 0)]
        assert {body["max_tokens"] for body in server.bodies} == {16}, "no letter is asked for"
        with pytest.raises((JudgeError, TransportError), match="log-probabilities"):
            await judge("letters", ["choice"])
        text = "I cannot choose."
        with pytest.raises(JudgeError, match="only 0% of its answers name an item when read as 'plain' within 16 tok"):
            await judge("unread", ["paper"])
