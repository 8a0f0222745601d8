"""Users of the simulated world pass the funnel with its oracle as teacher."""

import json
import random

import pytest
from aiohttp.test_utils import TestServer

from alignxplore.benchmark_files import read_users
from alignxplore.prompts import parse_answer
from alignxplore.records import write_jsonl
from alignxplore.serving.endpoint import Endpoint, RequestError
from alignxplore.synthesis.pipeline import SynthesisOptions, synthesise
from alignxplore.world.long_users import long_users
from alignxplore.world.oracle import make_app


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
    before, losses = 40, 0
    for remainder in counts["left"].values():
        assert 0 <= remainder <= before
        before, losses = remainder, losses + before - remainder
    finishers = counts["outcomes"]["done"]
    assert counts["users"] == 40 == sum(counts["outcomes"].values()) == losses + finishers and before == finishers > 5
    assert {"too_few_targets_1", "too_few_verified_1"} <= counts["outcomes"].keys(), (
        "users leave at more than one step"
    )
    assert counts["round_1"]["users"] == counts["left"]["round 1: enough targets"]
    rows = [json.loads(line) for line in (tmp_path / "out" / "sft.jsonl").read_text().splitlines()]
    assert len(rows) == counts["sft_rows"] == 2 * finishers and [row["round"] for row in rows] == [1, 2] * finishers
    assert all(parse_answer(row["completion"][0]["content"]).well_formed for row in rows)
    assert (tmp_path / "out" / "funnel.png").stat().st_size > 1000
