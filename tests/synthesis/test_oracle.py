"""The teacher of studies/signal_to_sft.sh: what it says is in the prompt, and users of the world pass the funnel with
it."""

import json
import random

import pytest
from aiohttp.test_utils import TestServer

from alignxplore.prompts import PromptSet, parse_answer, parse_merge
from alignxplore.records import read_users, write_jsonl
from alignxplore.serving.endpoint import Endpoint, RequestError
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesise
from alignxplore.world.long_users import long_users
from alignxplore.world.oracle import answer, make_app
from alignxplore.world.text import DOMAINS, item_values, summary_statements, summary_text
from alignxplore.world.users import draw_stream, draw_user


def stream(index: int, length: int = 10):
    return draw_stream(draw_user(1, "oracle", index), DOMAINS[index % 2], length, length, 1)


def test_items_and_summaries_are_read_as_they_were_written():
    rng = random.Random(0)
    for index in range(200):
        for choice in stream(index):
            for text, values in (
                (choice.interaction.chosen, choice.chosen),
                (choice.interaction.rejected, choice.rejected),
            ):
                assert sorted(item_values(text)) == sorted(values.values())
        statements = [tuple(taste) for taste in draw_user(1, "oracle", index).late.values()]
        assert sorted(summary_statements(summary_text(statements, rng))) == sorted(statements)


def test_without_faults_it_says_what_the_choices_show_and_hints_only_keep_what_bears_on_them():
    prompts = PromptSet()
    for index in range(50):
        items = [choice.interaction for choice in stream(index)]
        plain = prompts.infer(items)[1]["content"]
        told = parse_answer(answer(plain, 0, 0, 0))
        leads: dict[str, int] = {}
        for choice in stream(index):
            for values, sign in ((choice.chosen, 1), (choice.rejected, -1)):
                for value in values.values():
                    leads[value] = leads.get(value, 0) + sign
        assert all(
            leads.get(liked, 0) > leads.get(disliked, 0) for liked, disliked, _ in summary_statements(told.summary)
        )
        hinted = prompts.render(
            "infer_hint",
            interactions=items,
            past_summary=None,
            query=None,
            item_a="comedy by the sea",
            item_b="drones",
        )
        everything_left_out = parse_answer(answer(hinted[1]["content"], 0, 0, 1)).summary
        kept = {value for liked, disliked, _ in summary_statements(everything_left_out) for value in (liked, disliked)}
        assert kept <= {"humour", "suspense", "sea", "city", "animals", "machines"}
    assert answer("What is the weather?", 0, 0, 0) is None


def test_merging_takes_what_most_annotators_say():
    said = (
        "Loves humour. Hates suspense. Likes sea. Dislikes city.",
        "Loves humour. Hates suspense.",
        "Likes suspense. Avoids humour. Likes animals. Dislikes machines.",
    )
    annotators = [("seen", text) for text in said]
    merged = parse_merge(answer(PromptSet().render("merge", summaries=annotators)[1]["content"], 0, 0, 0))
    assert sorted(summary_statements(merged.summary)) == [
        ("animals", "machines", 1),
        ("humour", "suspense", 2),
        ("sea", "city", 1),
    ]


async def test_users_of_the_world_pass_the_funnel_and_its_numbers_add_up(
    fake_server, careful_judge, model_folder, tmp_path
):
    users, scores = tmp_path / "users.jsonl", tmp_path / "scores.jsonl"
    write_jsonl(users, long_users(1, 40, 24))
    rng = random.Random(0)
    write_jsonl(
        scores,
        (
            {"id": r.id, "scores": [{"position": i, "p": rng.random()} for i in range(24)], "dropped": 0}
            for r in read_users(users)
        ),
    )
    async with TestServer(make_app(0.1, 0.2)) as teacher, fake_server(careful_judge) as judge:
        options = SynthesisOptions(
            data=str(users),
            scores=str(scores),
            out=str(tmp_path / "out"),
            teacher=f"teacher={teacher.make_url('/v1')}#{model_folder}",
            judge=f"judge={judge.url}#{model_folder}",
            signal=0.4,
            max_tokens=256,
        )
        counts = await synthesise(options)
        async with Endpoint(str(teacher.make_url("/v1"))) as endpoint:
            with pytest.raises(RequestError, match="reads prompts of the default set"):
                await endpoint.chat([{"role": "user", "content": "Hello"}])
    before, lost = 40, 0
    for left in counts["left"].values():
        assert 0 <= left <= before
        before, lost = left, lost + before - left
    done = counts["outcomes"]["done"]
    assert counts["users"] == 40 == sum(counts["outcomes"].values()) == lost + done and before == done > 5
    assert {"too_few_targets_1", "too_few_verified_1"} <= counts["outcomes"].keys(), (
        "users leave at more than one step"
    )
    assert counts["round_1"]["users"] == counts["left"]["round 1: enough targets"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert len(rows) == counts["sft_rows"] == 2 * done and [row["round"] for row in rows] == [1, 2] * done
    assert all(parse_answer(row["completion"][0]["content"]).well_formed for row in rows)
    assert (tmp_path / "out" / "funnel.png").stat().st_size > 1000
