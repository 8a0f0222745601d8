"""Synthesis and its servers: what is asked how often and with which limits, what is too long, which address and
key."""

import asyncio
import contextlib
import json
import re
import shutil
from dataclasses import replace

import pytest
from aiohttp import web

from alignxplore.benchmark_files import user_row
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, RecordError, UserRecord, write_jsonl
from alignxplore.serving.endpoint import RequestError
from alignxplore.sft.tokenised_set import prepare
from alignxplore.summarize import count_tokens
from alignxplore.synthesis.pipeline import synthesise, synthesize
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import GOOD, MERGED, MERGING, Models, asked, good, hinted, is_judge

TENTH = re.compile("Item [AB]: red thing 10\n")  # the hint of one draft of the first round


async def test_a_request_may_take_the_time_asked_for_and_as_many_are_in_flight(fake_server, tokenizer, arguments):
    models, flying, most, texts = Models(tokenizer), 0, 0, set()

    async def slow_at_first(body: dict) -> dict:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        text = json.dumps(body)
        try:
            await asyncio.sleep(0 if is_judge(body) or text in texts else 0.3)
            return models(body)
        finally:  # also where the client has hung up
            texts.add(text)
            flying -= 1

    async with fake_server(slow_at_first) as server:
        assert (await synthesise(arguments(server.url, timeout=30, requests=4)))["outcomes"] == {DONE: 2}
        writes = [body for body in server.bodies if not is_judge(body)]
        assert most == 4 and len(writes) == 25, (
            "of two users two rounds of five drafts and a merge each, and the check before them"
        )
        texts.clear()
        assert (await synthesise(arguments(server.url, timeout=0.1, temperature=0.5)))["outcomes"] == {DONE: 2}
        assert sum(not is_judge(body) for body in server.bodies) > 2 * 25, "what took too long was asked again"


@pytest.mark.parametrize(
    ("status", "say", "outcome"),
    [
        (402, "no credit left", "unanswered"),
        (403, "not allowed", "unanswered"),
        (400, "This model's maximum context length is 2048 tokens", "prompt_too_long_1"),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 2048", "prompt_too_long_1"),
    ],
)
async def test_only_a_prompt_that_is_too_long_is_final(fake_server, tokenizer, arguments, status, say, outcome):
    models, refusing = Models(tokenizer), True

    def answer(body: dict):
        hinted = not is_judge(body) and "next have to choose" in body["messages"][-1]["content"]
        return web.json_response({"error": {"message": say}}, status=status) if hinted and refusing else models(body)

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, max_error_rate=1)))["outcomes"] == {outcome: 2}
        refusing = False
        again = (await synthesise(arguments(server.url)))["outcomes"]
    assert again == {DONE if outcome == "unanswered" else outcome: 2}


async def test_a_judge_that_refuses_is_asked_again_unless_the_summary_is_too_long(fake_server, tokenizer, arguments):
    models, text = Models(tokenizer), "quota exceeded"

    def answer(body: dict):
        refused = is_judge(body) and text and "Likes red." in body["messages"][-2]["content"]
        return web.json_response({"error": {"message": text}}, status=403) if refused else models(body)

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, max_error_rate=1)))["outcomes"] == {"unanswered": 2}
        text = "exceeds the maximum allowed length"
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"judge_too_long_1": 2}
        text = ""
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"judge_too_long_1": 2}, "that was final"


@pytest.mark.parametrize(
    ("refused", "outcome", "step"),
    [
        (lambda body: MERGING in body["messages"][-1]["content"], "merge_too_long_1", "merge fits"),
        (
            lambda body: is_judge(body) and "Ever more so." in body["messages"][-2]["content"],
            "merged_too_long_1",
            "merged verified",
        ),
    ],
)
async def test_what_is_too_long_only_once_it_is_merged_leaves_there(
    fake_server, tokenizer, arguments, refused, outcome, step
):
    """The steps of the funnel are in the order in which users take them, so that who is left after one has passed
    it."""
    models = Models(tokenizer, lambda text: MERGED.replace("red.", "red. Ever more so.") if MERGING in text else GOOD)

    def answer(body: dict):
        too_long = {"error": {"message": "exceeds the maximum allowed length"}}
        return web.json_response(too_long, status=400) if refused(body) else models(body)

    async with fake_server(answer) as server:
        counts = await synthesise(arguments(server.url, users=1))
    assert counts["outcomes"] == {outcome: 1}
    assert next(name for name, users_left in counts["left"].items() if not users_left) == f"round 1: {step}"


@pytest.mark.parametrize(
    ("long", "outcome", "problem"),
    [
        (lambda body: hinted(body) and TENTH.search(asked(body)), DONE, "prompt too long"),
        (lambda body: hinted(body) and not TENTH.search(asked(body)), "prompt_too_long_1", "prompt too long"),
        (lambda body: is_judge(body) and "At length." in asked(body), DONE, "too long for the judge"),
    ],
)
async def test_one_draft_that_is_too_long_does_not_end_a_user_whose_others_passed(
    fake_server, tokenizer, arguments, tmp_path, long, outcome, problem
):
    def say(text: str) -> str:
        longer = TENTH.search(text)
        return GOOD.replace("red.", "red. At length.") if longer else MERGED if MERGING in text else GOOD

    models = Models(tokenizer, say)

    def answer(body: dict):
        too_long = {"error": {"message": "exceeds the maximum allowed length"}}
        return web.json_response(too_long, status=400) if long(body) else models(body)

    async with fake_server(answer) as server:
        assert (await synthesise(arguments(server.url, users=1)))["outcomes"] == {outcome: 1}
    note = json.loads((tmp_path / "out/users.jsonl").read_text())["rounds"][0]
    assert [draft["problem"] for draft in note["drafts"]].count(problem) == (1 if outcome == DONE else 4)


async def test_what_the_limit_of_tokens_ended_is_not_well_formed(fake_server, tokenizer, arguments, tmp_path):
    models = Models(tokenizer)

    def answer(body: dict) -> dict:
        reply = models(body)
        if hinted(body) and TENTH.search(asked(body)):
            reply["choices"][0]["finish_reason"] = "length"
        return reply

    async with fake_server(answer) as server:
        for _ in range(2):  # asked, and read from the journal
            assert (await synthesise(arguments(server.url, users=1)))["outcomes"] == {DONE: 1}
            note = json.loads((tmp_path / "out/users.jsonl").read_text())["rounds"][0]
            (tmp_path / "out/users.jsonl").unlink()
            outcome_of = {draft["target"]["chosen"]: (draft["problem"], draft["verified"]) for draft in note["drafts"]}
            assert outcome_of.pop("red thing 10") == ("cut off at the token limit", False)
            assert set(outcome_of.values()) == {(None, True)} and note["well_formed"] == 4


async def test_lines_that_say_the_same_count_once(fake_server, tokenizer, arguments):
    async with fake_server(Models(tokenizer, good)) as server:
        args = arguments(server.url)
        with open(args.data, "a") as file:
            file.write(open(args.data).readline())
        counts = await synthesise(args)
    assert counts["users"] == 2 and counts["sft_rows"] == 4


@pytest.mark.parametrize(("choices", "dropped"), [(18, 0), (118, 18)])
async def test_without_a_signal_model_every_choice_can_be_a_target(
    fake_server, tokenizer, arguments, tmp_path, choices, dropped
):
    items = [Interaction(f"red thing {i}", None if i % 3 == 1 else "blue") for i in range(choices)]
    record, places = UserRecord("u", tuple(items[:-1]), items[-1]), [i for i in range(dropped, choices) if i % 3 != 1]
    async with fake_server(Models(tokenizer)) as server:
        args = arguments(server.url)
        write_jsonl(args.data, [user_row(record)])
        scores = [{"position": i, "p": 0.95} for i in places]
        write_jsonl(args.scores, [{"id": record.id, "scores": scores, "dropped": dropped}])
        counts = await synthesise(args)
        rows, args.scores, args.out = (tmp_path / "out/sft.jsonl").read_text(), None, str(tmp_path / "other")
        assert await synthesise(args) == counts
    assert counts["outcomes"] == {DONE: 1} and counts["dropped_behaviours"] == dropped
    assert (tmp_path / "other/sft.jsonl").read_text() == rows
    assert "1 users, 1 of them can give SFT rows\n" in await synthesize(replace(args, check=True))


async def test_a_file_that_holds_no_scores_is_named_with_line_and_field(arguments):
    args = arguments("http://127.0.0.1:1/v1")
    args.scores = args.data
    with pytest.raises(
        RecordError, match="users.jsonl:1: field 'id': missing or of a wrong kind; give the scores.jsonl"
    ):
        await synthesise(args)


async def test_what_no_user_can_pass_is_said_before_the_first_one(fake_server, tokenizer, arguments, tmp_path):
    models = Models(tokenizer)

    def answer(body: dict):
        return (
            models(body)
            if is_judge(body)
            else web.json_response({"error": {"message": "top_k: unknown field"}}, status=400)
        )

    async with fake_server(answer, max_model_len=4096) as server:
        with pytest.raises(RequestError, match="top_k: unknown field"):
            await synthesise(arguments(server.url))
        with pytest.raises(
            ValueError, match="a window of 4096 tokens leaves no room for a prompt beside an answer of 4096"
        ):
            await synthesise(arguments(server.url, max_tokens=4096))
    assert (tmp_path / "out" / "users.jsonl").read_text() == ""


async def test_of_long_drafts_as_many_are_merged_as_fit(through, tokenizer):
    draft = GOOD.replace("chooses red", "chooses red " * 200)
    merging = PromptSet().render("merge", summaries=[(("chooses red " * 200).strip(), "Likes red.")] * 3)
    window = count_tokens(tokenizer, merging, thinking=False) + 64
    row, requests = await through(say=lambda text: MERGED if MERGING in text else draft, window=window)
    merges = [text for judge, text in requests if not judge and MERGING in text]
    assert row["outcome"] == DONE and [text.count("concluded:") for text in merges] == [3, 3]
    row, _ = await through(say=lambda text: MERGED if MERGING in text else draft, window=window - 1)
    assert row["outcome"] == "merge_too_long_1"


async def test_the_hint_with_most_tokens_decides_what_fits(through, tokenizer):
    items = [
        Interaction("red " + "😀" * 40, "blue 東京")
        if i % 6 == 0
        else Interaction(f"red thing {i}" + " thing" * 40, "blue")
        for i in range(18)
    ]
    row, requests = await through(items=items, window=1164)
    assert row["outcome"] == DONE
    system = PromptSet().infer(items[:1])[:1]
    lengths = [
        count_tokens(tokenizer, [*system, {"role": "user", "content": text}]) for judge, text in requests if not judge
    ]
    assert max(lengths) <= 1100 and min(text.count("Chosen:") for _, text in requests if "Chosen:" in text) < 6


@pytest.mark.parametrize(("served", "tokens"), [(40960, 1164), (None, 1164), (1164, 16384)])
async def test_what_is_written_fits_training_however_long_the_window_of_the_server(
    fake_server, tokenizer, arguments, tmp_path, served, tokens
):
    items = [Interaction(f"red thing {i}" + " thing" * 90, "blue") for i in range(18)]
    async with fake_server(Models(tokenizer), max_model_len=served) as server:
        args = arguments(server.url, max_model_len=tokens)
        record = UserRecord("u", tuple(items[:-1]), items[-1])
        write_jsonl(args.data, [user_row(record)])
        write_jsonl(
            args.scores, [{"id": record.id, "scores": [{"position": i, "p": 0.95} for i in range(18)], "dropped": 0}]
        )
        assert (await synthesise(args))["outcomes"] == {DONE: 1}
        lengths = [count_tokens(tokenizer, body["messages"]) for body in server.bodies if not is_judge(body)]
    assert 900 < max(lengths) <= 1164 - 64
    prepared = prepare([str(tmp_path / "out" / "sft.jsonl")], tokenizer, tmp_path / "set", 1164)
    assert (prepared["rows"], prepared["dropped_too_long"]) == (2, 0)


async def test_a_teacher_that_is_served_here_gets_the_window(
    fake_server, tokenizer, model_folder, arguments, monkeypatch, tmp_path
):
    started, longer = [], shutil.copytree(model_folder, tmp_path / "longer")
    config = json.loads((longer / "config.json").read_text())
    (longer / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 16384}))

    @contextlib.asynccontextmanager
    async def serve(model, *, arguments, **_):
        started.append((model, arguments))
        yield server.url

    monkeypatch.setattr("alignxplore.serving.models.serve", serve)
    async with fake_server(Models(tokenizer), max_model_len=8192) as server:
        args = arguments(server.url, teacher=f"m={longer}", teacher_arguments="--tensor-parallel-size 4")
        assert (await synthesise(args))["outcomes"] == {DONE: 2}
    assert started == [(str(longer), ["--max-model-len", "16384", "--tensor-parallel-size", "4"])]


async def test_of_a_long_history_what_was_scored_is_cut_in_thirds(fake_server, tokenizer, arguments, tmp_path):
    items = tuple(Interaction(f"red thing {i}", f"blue thing {i}") for i in range(240))
    record = UserRecord("u", items[:-1], items[-1])
    async with fake_server(Models(tokenizer)) as server:
        args = arguments(server.url)
        write_jsonl(args.data, [user_row(record)])
        scores = [{"position": i, "p": 0.95} for i in range(222, 240)]  # as of the last of a long stream
        write_jsonl(args.scores, [{"id": record.id, "scores": scores, "dropped": 222}])
        counts = await synthesise(args)
    assert counts["outcomes"] == {DONE: 1} and counts["dropped_behaviours"] == 222
    rows = [json.loads(line)["prompt"] for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert rows == [PromptSet().infer(items[222:228]), PromptSet().infer(items[228:234], "Likes red.")]


async def test_failures_show_all_that_was_written_as_it_was(fake_server, tokenizer, arguments, tmp_path):
    def say(text: str) -> str:
        return (
            "<joined_reasoning>no end"
            if MERGING in text
            else "Likes red."
            if re.search("Item [AB]: red thing 10\n", text)
            else GOOD
        )

    async with fake_server(Models(tokenizer, say)) as server:
        assert (await synthesise(arguments(server.url)))["outcomes"] == {"merge_bad_format_1": 2}
    [note] = json.loads((tmp_path / "out" / "failures.jsonl").read_text().splitlines()[0])["rounds"]
    assert (
        note["merge"]["text"] == "<joined_reasoning>no end"
        and note["merge"]["problem"] == "not one joined reasoning and one joined description"
    )
    text_of = {
        draft["target"]["chosen"]: (draft["text"], draft["problem"], draft["verified"]) for draft in note["drafts"]
    }
    assert text_of.pop("red thing 10") == ("Likes red.", "not exactly one think block", False)
    assert len(text_of) == note["merge"]["of"] == 4 and set(text_of.values()) == {(GOOD, None, True)}
    assert (
        "text"
        not in json.loads((tmp_path / "out" / "users.jsonl").read_text().splitlines()[0])["rounds"][0]["drafts"][0]
    )


async def test_teachers_and_judge_have_keys_of_their_own(fake_server, tokenizer, model_folder, arguments, monkeypatch):
    for name in ("ONE", "TWO", "THREE"):
        monkeypatch.setenv(f"{name}_KEY", name)
    models = [Models(tokenizer) for _ in range(4)]
    async with (
        fake_server(models[0]) as one,
        fake_server(models[1]) as two,
        fake_server(models[2]) as without,
        fake_server(models[3]) as judge,
    ):
        servers = {"one": one, "two": two, "without": without}
        args = arguments(
            one.url,
            users=12,
            teacher=" ".join(f"{name}={server.url}#{model_folder}" for name, server in servers.items()),
            judge=f"j={judge.url}#{model_folder}",
            api_key_env=["one=ONE_KEY", "two=TWO_KEY"],
            judge_api_key_env=["THREE_KEY"],
        )
        assert (await synthesise(args))["outcomes"] == {DONE: 12}
    keys = [{headers.get("Authorization") for headers in server.headers} for server in (one, two, without, judge)]
    assert keys == [{"Bearer ONE"}, {"Bearer TWO"}, {None}, {"Bearer THREE"}]
