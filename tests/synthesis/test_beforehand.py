"""What is said of a run before it begins, and on whom its models are tried out."""

import json
import tracemalloc
from dataclasses import replace

import pytest
from aiohttp import web

from alignxplore.judging.judgement import JudgeError
from alignxplore.records import RecordError, write_jsonl
from alignxplore.synthesis.pipeline import Plan, synthesise, synthesize
from alignxplore.synthesis.rounds import DONE
from alignxplore.synthesis.streams import read_behaviours
from tests.synthesis.teachers import Models, asked, is_judge


def with_targets(args, change) -> None:
    """Rewrite the users of a run, who then need no scores."""
    rows = [json.loads(line) for line in open(args.data)]
    write_jsonl(args.data, (row | change(number, row) for number, row in enumerate(rows)))
    args.scores = None


OFFER = {"query": None, "chosen": "red thing 17", "rejected": ["blue a", "blue b"]}


@pytest.mark.parametrize("offers", [{1}, {0, 1, 2}])
async def test_a_user_with_a_target_among_many_items_is_taken_through_like_others(
    fake_server, tokenizer, arguments, offers
):
    models = Models(tokenizer)
    async with fake_server(models) as server:
        args = arguments(server.url, users=3)
        with_targets(args, lambda number, row: {"target": OFFER} if number in offers else {})
        assert (await synthesise(args))["outcomes"] == {DONE: 3}


async def test_models_are_tried_out_on_the_targets_of_the_first_four(fake_server, tokenizer, arguments):
    async with fake_server(Models(tokenizer)) as server:
        args = arguments(server.url, users=6)
        with_targets(args, lambda number, row: {"target": row["target"] | {"chosen": f"red {number}"}})
        await synthesise(args)
    first = [asked(body) for body in server.bodies if is_judge(body) and "Likes red." not in asked(body)]
    assert {number for number in range(6) if any(f"red {number}\n" in text for text in first)} == {0, 1, 2, 3}


@pytest.mark.parametrize("checking", [False, True])
async def test_a_file_without_alternatives_is_named_before_anything_is_opened(arguments, checking):
    args = replace(arguments("http://127.0.0.1:1/v1"), check=checking)
    with_targets(args, lambda _, row: {
        "history": [item | {"rejected": None} for item in row["history"]], "target": OFFER
    })  # fmt: skip
    with pytest.raises(RecordError, match="users.jsonl: no user in it has a choice with an alternative"):
        await synthesize(args)


async def test_a_judge_that_cannot_be_asked_for_letters_has_the_remedy_of_this_command(
    fake_server, tokenizer, arguments
):
    models = Models(tokenizer)

    def answer(body: dict):
        message = "Unrecognized request argument supplied: continue_final_message"
        return web.json_response({"error": message}, status=400) if "continue_final_message" in body else models(body)

    async with fake_server(answer) as server:
        with pytest.raises(JudgeError, match="serve the judge with vLLM, or give another judge: --judge$"):
            await synthesise(arguments(server.url))


async def test_check_counts_the_users_of_this_file_that_are_finished(fake_server, tokenizer, arguments, tmp_path):
    models, is_refusing = Models(tokenizer), True

    def answer(body: dict):
        refused = is_refusing and is_judge(body) and "Likes red." in asked(body)
        return web.json_response({"error": "quota exceeded"}, status=403) if refused else models(body)

    async with fake_server(answer) as server:
        for users, finished in ((2, 0), (3, 0), (3, 3), (2, 2)):
            args = arguments(server.url, users=users, max_error_rate=1, seed=finished)
            is_refusing = not finished
            await synthesise(args)
            text = await synthesize(replace(args, check=True))
            assert f"{tmp_path}/out: {finished} of these users are finished\n" in text


async def test_the_users_are_read_once_before_a_model_is_opened_and_once_at_work(
    fake_server, tokenizer, arguments, monkeypatch
):
    passes = []

    def read(*args):
        passes.append(args)
        return read_behaviours(*args)

    monkeypatch.setattr("alignxplore.synthesis.pipeline.read_behaviours", read)
    async with fake_server(Models(tokenizer)) as server:
        await synthesise(arguments(server.url))
    assert len(passes) == 2


def test_without_scores_the_choices_of_all_users_are_not_held_in_memory(arguments):
    args, users = arguments("http://127.0.0.1:1/v1", users=2000), 2000
    args.scores = None
    Plan.make(args)
    tracemalloc.start()
    plan = Plan.make(args)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.ids) == plan.eligibility.able == users and size / users < 300
