"""A key from the environment is in no file, log or error of an evaluation, and what is made to be shown names no
folder of this machine. (The quick start's test looks at all that the whole path leaves.)"""

import logging

import pytest
from aiohttp import web

from alignxplore.evaluation.export import ExportOptions, export
from alignxplore.evaluation.generation import GenerationArguments, generate
from alignxplore.evaluation.report.writing import write
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from tests.judging.test_letters import LetterServer

SECRET = "canary-5d1f0b7a"


@pytest.fixture
def gateway(monkeypatch):
    """`gateway(answer)`: a server that quotes the key of every third request in an error, as some gateways do."""
    monkeypatch.setenv("CANARY_KEY", SECRET)
    monkeypatch.setattr("alignxplore.serving.endpoint._jittered", lambda state: 0.001)

    def wrap(answer):
        bodies = []

        def reply(body):
            bodies.append(body)
            if len(bodies) % 3 == 0:
                return web.Response(status=503, text=f"upstream refused Bearer {SECRET}")
            return answer(body)

        return reply

    return wrap


async def test_a_key_is_in_nothing_that_is_left(
    gateway, fake_server, say, tokenizer, record, benchmark_file, tmp_path, caplog
):
    for name in ("alignxplore", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    data, out = str(benchmark_file("world_films", [record(f"u{i}") for i in range(8)])), tmp_path / "out"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    letters = LetterServer(tokenizer, lambda a, b: (0.9, 0.08) if "last" in a else (0.08, 0.9))
    policy = gateway(lambda body: say("<think>\nI read\n</think>\n\nfilms"))
    async with fake_server(policy, max_model_len=16384) as writer, fake_server(gateway(letters)) as reader:
        for server in (writer, reader):
            server.models[0]["root"] = str(tmp_path / "models" / "private")
        options = {"data": [data], "out": str(out), "api_key_env": ["CANARY_KEY"], "concurrency": 4}
        await generate(GenerationArguments(model=[f"ours={writer.url}#{tmp_path}/tokenizer"], **options))
        await evaluate(EvaluationArguments(judge=[f"reader={reader.url}#{tmp_path}/tokenizer"], **options))
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in writer.headers + reader.headers)
    write(out)
    export(ExportOptions(out=out))
    assert "trying again" in caplog.text and SECRET not in caplog.text
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20 and not [path for path in files if SECRET.encode() in path.read_bytes()]
    public_files = [path for path in files if not path.name.endswith((".meta.json", ".log"))]
    assert not [path for path in public_files if str(tmp_path).encode() in path.read_bytes()]


async def test_nor_in_an_error(gateway, fake_server, tokenizer, record, benchmark_file, tmp_path):
    data = str(benchmark_file("world_films", [record("u")]))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    async with fake_server(lambda body: web.Response(status=401, text=f"bad key {SECRET}")) as server:
        gateway(None)
        model = [f"ours={server.url}@other#{tmp_path}/tokenizer"]
        with pytest.raises(Exception, match="CANARY_KEY") as error:
            await generate(
                GenerationArguments(model=model, data=[data], out=str(tmp_path), api_key_env=["CANARY_KEY"])
            )
        assert SECRET not in "".join(map(str, (error.value, error.value.__cause__, error.value.__context__)))
