"""Summaries that other weights, windows or stages made are written anew, and never averaged with those of the same
name."""

import json
import types
from dataclasses import replace

import pytest
from aiohttp import web

from alignxplore.evaluation.benchmarks import SummarySet, judgement_id, load_benchmarks, run_id
from alignxplore.evaluation.conditions import JudgeRequest
from alignxplore.evaluation.generation import GenerationArguments, generate, recipe_of
from alignxplore.evaluation.judgements import unit_id
from alignxplore.evaluation.scoring import EvaluationArguments, build_cells, evaluate
from alignxplore.judging.letters import find_letters
from alignxplore.prompts import PromptSet
from alignxplore.records import RecordError
from alignxplore.serving.models import weights_of
from alignxplore.serving.server import free_port


@pytest.fixture
def write(fake_server, say, tokenizer, record, benchmark_file, tmp_path):
    """`write(root, window, ...)`: have an endpoint write summaries; returns how many requests that took."""
    path = benchmark_file("world_films", [record(f"u{i}") for i in range(5)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    port = free_port()  # the same in every run, as with a server that is started again

    async def run(root: str = "/checkpoints/30", window: int = 16384, **options) -> int:
        async with fake_server(
            lambda body: say("<think>\nI read\n</think>\n\nfilms"), max_model_len=window, port=port
        ) as server:
            server.models[0]["root"] = root
            await generate(
                GenerationArguments(
                    model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"],
                    data=[str(path)],
                    out=str(tmp_path / "out"),
                    **{"settings": ["full"], "concurrency": 4} | options,
                )
            )
            return len(server.bodies)

    return run


@pytest.fixture
def arguments(tmp_path) -> EvaluationArguments:
    return EvaluationArguments(
        judge=[], data=[str(tmp_path / "world_films_upi.jsonl")], out=str(tmp_path / "out"), cues=[]
    )


async def test_questions_after_the_same_dialogues_share_a_summary(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path
):
    """Two persons who said the same have one each, a question after other dialogues too; what is there stays."""
    rows = [replace(record("u"), user=f"{person}#{k}") for person in "uv" for k in range(3)]
    rows = [replace(row, target=replace(row.target, query=f"question {k}")) for k, row in enumerate(rows)]
    rows.append(replace(rows[0], user="u#9", history=rows[0].history[:-1]))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    numbers = iter(range(100))
    counts, summaries = [], []
    async with fake_server(lambda body: say(f"<think>\nI read\n</think>\n\n{next(numbers)}")) as server:
        for part in (rows[2:3], rows, rows):
            before = len(server.bodies)
            await generate(
                GenerationArguments(
                    model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"],
                    data=[str(benchmark_file("hicupid", part))],
                    out=str(tmp_path / "out"),
                    settings=["streaming"],
                )
            )
            counts.append(len(server.bodies) - before)
            rows_of = SummarySet(tmp_path / "out", "ours", "hicupid", "streaming", 0).by_record().values()
            summaries.append({row["user"]: row["stages"][-1]["summary"] for row in rows_of})
    assert counts == [2, 4, 0]  # two stages a summary
    assert summaries[1] == summaries[2] and len(summaries[1]) == 7
    assert summaries[1]["u#0"] == summaries[1]["u#1"] == summaries[1]["u#2"] == summaries[0]["u#2"]
    assert summaries[1]["v#0"] == summaries[1]["v#1"] == summaries[1]["v#2"]
    assert len({summaries[1][user] for user in ("u#0", "v#0", "u#9")}) == 3


async def test_a_short_summary_is_asked_for_under_a_name_of_its_own(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path
):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    async with fake_server(lambda body: say("<think>\nI read\n</think>\n\nLikes films.")) as server:
        for limit in (None, 8, 8):
            await generate(
                GenerationArguments(
                    model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"],
                    data=[str(benchmark_file("hicupid", [record("u")]))],
                    out=str(tmp_path / "out"),
                    settings=["full"],
                    summary_tokens=limit,
                    gpus=2,
                )
            )
    limits = ["at most 8 tokens" in body["messages"][-1]["content"] for body in server.bodies]
    assert limits == [False, True], "once each; what is there is not asked for again"
    metas = [SummarySet(tmp_path / "out", name, "hicupid", "full", 0).meta() for name in ("ours", "ours~8")]
    assert [meta["summary_tokens"] for meta in metas] == [None, 8] and metas[0]["prompt_hash"] != metas[1][
        "prompt_hash"
    ]
    assert [(meta["spent"]["summaries"], meta["spent"]["gpus"]) for meta in metas] == [(1, 2), (1, 2)]


async def test_other_weights_or_another_window_under_the_same_address_are_other_summaries(write):
    assert [
        await write(),
        await write(),
        await write(root="/checkpoints/60"),
        await write(window=8192),
        await write(),
    ] == [5, 0, 5, 5, 0]


async def test_who_comes_back_to_earlier_options_finds_their_costs(write, tmp_path):
    """As it finds their summaries: nothing is written anew, so nothing new would be known of what they took."""
    costs = []
    for window in (16384, 8192, 4096, 16384, 8192):
        await write(window=window, gpus=2, max_tokens=1024)
        costs.append(SummarySet(tmp_path / "out", "ours", "world_films", "full", 0).meta()["spent"])
    assert all((cost["summaries"], cost["gpus"]) == (5, 2) and cost["seconds"] > 0 for cost in costs), costs
    assert all(later["seconds"] >= cost["seconds"] for cost, later in zip(costs, costs[3:])), costs


@pytest.mark.parametrize(
    ("identity", "first", "second", "is_same"),
    [
        ("0a1b", "", "--dtype half", False),
        ("0a1b", "--dtype half", "--dtype=bfloat16", False),
        ("Qwen/Qwen3-8B@abc", "--chat-template 'a b.jinja'", "--chat-template a", False),
        ("0a1b", "-q fp8", "--quantization=fp8", True),
        ("0a1b", "--kv_cache_dtype fp8 --dtype half", "--dtype half --kv-cache-dtype fp8", True),
        ("0a1b", "", "--hf-overrides.rope_parameters.factor 4", False),
        ("0a1b", "", '--default-chat-template-kwargs {"enable_thinking":false}', False),
        ("0a1b", "", "--tensor-parallel-size 2 --enforce-eager --max-num-seqs 4", True),
        ("http://host/v1@q", "", "--dtype half", True),
        ("served:Qwen/Qwen3-8B", "", "--dtype half", True),
    ],
)
def test_how_a_model_is_served_stands_in_the_ids_where_it_moves_numbers(
    tmp_path, record, identity, first, second, is_same
):
    prompts, target = PromptSet(), SummarySet(tmp_path, "m", "own", "full", 0)
    judge = types.SimpleNamespace(prompts=prompts, form="plain", answer_tokens=16)
    ids = []
    for serve_arguments in (first, second):
        options = {"data": ["x"], "out": str(tmp_path), "serve_arguments": serve_arguments}
        recipe = recipe_of(
            GenerationArguments(model=["m"], **options), identity, 16384, prompts, "think", "selection", target
        )
        request = JudgeRequest(record("u"), "Likes films.")
        ids.append(
            (recipe.run, unit_id(judge, identity, "choice", EvaluationArguments(judge=["m"], **options), request))
        )
    assert [a == b for a, b in zip(*ids)] == [is_same, is_same]


def test_code_that_renders_otherwise_makes_other_ids(tmp_path, monkeypatch, record):
    def ids():
        return run_id(model="m"), judgement_id("m", "0", {}, record("u"), "Likes films.")

    before = ids()
    assert ids() == before
    monkeypatch.setattr("alignxplore.evaluation.benchmarks.FORMAT", 999)
    assert not set(ids()) & set(before)


async def test_what_another_task_shows_of_a_history_is_read_and_judged_anew(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path
):
    file, letters = benchmark_file("own", [record(f"u{i}", 9) for i in range(3)]), find_letters(tokenizer).tokens
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def answer(body: dict) -> dict:
        """Writes how many of the user's films it was shown; likes Item A."""
        if not body.get("logprobs"):
            return say(f"<think>\nI count\n</think>\n\n{body['messages'][-1]['content'].count('Chosen: film')}")
        entries = [{"token": f"token_id:{token}", "logprob": log} for token, log in zip(letters, (-0.1, -2.4))]
        return {
            "choices": [
                {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}
            ]
        }

    async with fake_server(answer, max_model_len=16384) as server:
        options = {"out": str(tmp_path / "out"), "benchmarks": None}
        model = f"{server.url}#{tmp_path / 'tokenizer'}"

        async def run(spec: str) -> tuple[set[str], int]:
            await generate(GenerationArguments(model=[f"ours={model}"], data=[spec], settings=["full"], **options))
            before = len(server.bodies)
            await evaluate(
                EvaluationArguments(judge=[f"reader={model}"], data=[spec], other_user=["none"], cues=[], **options)
            )
            direct = sum("Chosen: film" in body["messages"][1]["content"] for body in server.bodies[before:])
            return {
                row["stages"][-1]["summary"]
                for row in SummarySet(tmp_path / "out", "ours", "own", "full", 0).by_record().values()
            }, direct

        assert await run(f"own={file}") == ({"9"}, 6)
        assert await run(f"own:recommendation={file}") == ({"6"}, 6), "both orders of three records"
        assert await run(f"own={file}") == ({"9"}, 0), "known already"
        with pytest.raises(
            RecordError,
            match="own.full.s0.jsonl: these summaries were written as of a selection task, own is a recommendation",
        ):
            await evaluate(EvaluationArguments(judge=[], data=[f"own:recommendation={file}"], cues=[], **options))


@pytest.mark.parametrize(
    ("root", "asks_again"), [("Qwen/Qwen3-8B", False), (None, False), ("/checkpoints/30", True)], ids=str
)
async def test_a_server_that_moved_is_not_asked_again(
    fake_server, say, tokenizer, record, benchmark_file, tmp_path, root, asks_again
):
    """Neither for summaries nor for judgements, unless it names nothing but a folder of some machine."""
    file, letters = benchmark_file("own", [record(f"u{i}", 9) for i in range(3)]), find_letters(tokenizer).tokens
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    entries = [{"token": f"token_id:{token}", "logprob": log} for token, log in zip(letters, (-0.1, -2.4))]
    letter = {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "top_logprobs": entries}]}}

    def answer(body: dict) -> dict:
        return {"choices": [letter]} if body.get("logprobs") else say("<think>\nI read\n</think>\n\nLikes films.")

    counts = []
    for _ in range(2):
        async with fake_server(answer, max_model_len=16384) as server:
            server.models[0]["root"] = root
            spec, options = (
                f"{server.url}#{tmp_path / 'tokenizer'}",
                {"data": [f"own={file}"], "out": str(tmp_path / "o")},
            )
            await generate(GenerationArguments(model=[f"ours={spec}"], settings=["full"], **options))
            summary_count = len(server.bodies)
            await evaluate(EvaluationArguments(judge=[f"r={spec}"], other_user=["none"], cues=[], **options))
            judgement_count = sum("Likes films." in str(body["messages"]) for body in server.bodies[summary_count:])
            counts.append((summary_count, judgement_count))
    check = 4  # questions that every judge is tried with before it is believed
    assert counts == [(3, 6 + check), (3, 6 + check) if asks_again else (0, check)], "three users, both orders"


async def test_what_a_strict_server_was_not_sent_is_said_of_its_summaries(
    fake_server, say, tokenizer, record, benchmark_file, arguments, tmp_path
):
    benchmark_file("world_films", [record(f"u{i}") for i in range(5)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    async with fake_server(
        lambda body: (
            web.Response(status=400, text="Unknown parameter: 'top_k'.")
            if "top_k" in body
            else say("<think>\nI read\n</think>\n\nfilms")
        ),
        max_model_len=16384,
    ) as server:
        await generate(
            GenerationArguments(
                model=[f"ours={server.url}#{tmp_path / 'tokenizer'}"],
                data=arguments.data,
                out=arguments.out,
                settings=["full"],
                concurrency=1,
            )
        )
        assert len(server.bodies) == 6, "refused once"
    await evaluate(arguments)
    (recipe,) = json.loads((tmp_path / "out" / "run.json").read_text())["policies"]["ours"]["sets"].values()
    assert recipe["not_sent"] == ["top_k"] and recipe["sampling"]["top_k"] == 20


async def test_sets_of_one_name_made_in_other_ways_are_not_pooled(write, arguments):
    await write(seeds=[0, 1, 2])
    benchmarks = {b.name: b for b in load_benchmarks(arguments.data)}
    assert [cell.seed for cell in build_cells(arguments, benchmarks) if cell.policy == "ours"] == [0, 1, 2]
    await write(root="/checkpoints/60")
    with pytest.raises(
        RecordError,
        match=r"films.full.s1.jsonl: these summaries were made in another way .* than .*films.full.s0.jsonl",
    ):
        build_cells(arguments, benchmarks)
    await write(root="/checkpoints/60", seeds=[1, 2])
    assert len(build_cells(arguments, benchmarks)) == 5  # three seeds, other users' and none


async def test_strangers_read_the_summaries_of_the_smallest_seed_that_there_is(write, arguments):
    await write(seeds=[3, 5])
    cells = build_cells(arguments, {b.name: b for b in load_benchmarks(arguments.data)})
    assert [(cell.policy, cell.seed) for cell in cells] == [
        ("ours", 3),
        ("ours", 5),
        ("other user's (ours)", 3),
        ("no summary", 0),
    ]


async def test_a_policy_that_nobody_wrote_for_is_not_given_to_strangers_silently(write, arguments):
    await write()
    arguments.other_user = ["ours", "our"]
    with pytest.raises(ValueError, match=r"--other_user: no summaries of our; there are those of ours \(none"):
        build_cells(arguments, {b.name: b for b in load_benchmarks(arguments.data)})
    arguments.other_user = ["none"]
    assert [cell.policy for cell in build_cells(arguments, {b.name: b for b in load_benchmarks(arguments.data)})] == [
        "ours",
        "no summary",
    ]


async def test_each_set_stands_in_the_record_of_the_run(write, arguments, tmp_path):
    await write()
    await write(root="/checkpoints/60", settings=["streaming"], stages=3)
    await evaluate(arguments)
    sets = json.loads((tmp_path / "out" / "run.json").read_text())["policies"]["ours"]["sets"]
    assert {
        name: (weights_of(recipe["identity"]).partition("=")[2], recipe["stages"], recipe["window"])
        for name, recipe in sets.items()
    } == {
        "world_films.full.s0": ("30", 1, 16384),  # a folder's name; where it lies is nobody's business
        "world_films.streaming.s0": ("60", 3, 16384),
    }
    assert (
        SummarySet(tmp_path / "out", "ours", "world_films", "full", 0).meta()["recipe"]
        != sets["world_films.streaming.s0"]["recipe"]
    )


async def test_what_the_server_of_a_downstream_model_was_not_sent_is_said_of_it_also_by_a_later_run(
    fake_server, say, tokenizer, record, benchmark_file, arguments, tmp_path
):
    benchmark_file("world_films", [record(f"u{i}") for i in range(3)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    port = free_port()
    for _ in range(2):
        async with fake_server(
            lambda body: (
                web.Response(status=400, text="Unknown parameter: 'top_k'.")
                if "top_k" in body
                else say('x</think>{"selection": "Item A"}')
            ),
            max_model_len=16384,
            port=port,
        ) as server:
            arguments.judge, arguments.judge_format = [f"r={server.url}#{tmp_path / 'tokenizer'}"], ["r1"]
            arguments.protocol, arguments.answer_tokens = ["paper"], 64
            await evaluate(arguments)
        about = json.loads((tmp_path / "out" / "run.json").read_text())["judges"]["r"]
        assert about["not_sent"] == ["top_k"]
        assert about["answer_tokens"] == 64
