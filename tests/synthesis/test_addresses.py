"""Synthesis with several servers of one teacher."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import ITEMS, Models, asked, hinted, is_judge


def users_of(bodies: Iterable[dict], pattern: str) -> set[str]:
    """The numbers of the users whom these requests are about."""
    return {user for body in bodies for user in re.findall(pattern, asked(body))}


async def test_several_addresses_of_one_model_share_the_users(
    fake_server, tokenizer, model_folder, arguments, tmp_path
):
    """A user stays with one of them, whose cache holds the beginnings of their prompts; nothing else depends on it."""
    async with fake_server(Models(tokenizer)) as one, fake_server(Models(tokenizer)) as two:
        both = f"m={one.url}#{model_folder} {two.url}#{model_folder}"
        args = arguments(one.url, users=12, teacher=both)
        records = [
            UserRecord(f"u{n}", tuple(Interaction(f"red {n} thing {i}", f"blue {n}") for i in range(17)), ITEMS[17])
            for n in range(12)
        ]
        write_jsonl(args.data, map(user_row, records))
        args.scores = None
        assert (await synthesise(args))["outcomes"] == {DONE: 12}
        rows = (tmp_path / "out/sft.jsonl").read_text()
        at = [users_of(filter(hinted, server.bodies), r"Chosen: red (\d+) ") for server in (one, two)]
        assert min(map(len, at)) > 2 and at[0].isdisjoint(at[1]) and len(at[0] | at[1]) == 12
        judged = [users_of(filter(is_judge, server.bodies), r"Item A: \w+ (\d+)") for server in (one, two)]
        assert judged == at
        drafts = sum(map(hinted, one.bodies + two.bodies))
        (tmp_path / "out/users.jsonl").unlink()
        assert (await synthesise(replace(args, teacher=f"m={two.url}#{model_folder}")))["outcomes"] == {DONE: 12}
        assert sum(map(hinted, one.bodies + two.bodies)) == drafts and (tmp_path / "out/sft.jsonl").read_text() == rows


async def test_addresses_of_different_models_are_refused(fake_server, tokenizer, model_folder, arguments):
    async with fake_server(Models(tokenizer)) as one, fake_server(Models(tokenizer), model="other") as two:
        args = arguments(one.url, teacher=f"m={one.url}#{model_folder} {two.url}#{model_folder}")
        with pytest.raises(ValueError, match="servers must serve the same model; found fake at .*other at"):
            await synthesise(args)
    args.teacher = "m=some/model http://127.0.0.1:1/v1"
    with pytest.raises(ValueError, match="--teacher .* give one model, or several URLs"):
        await synthesise(args)
