"""Servers where vLLM is the build for GPUs: they start one by one, share a GPU's memory, and need no nvcc."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from alignxplore.ask import models as asking
from alignxplore.evaluation.arguments import GenerationArguments, serving_beside
from alignxplore.prompts import PromptSet
from alignxplore.serving import server
from alignxplore.serving.models import ModelSpec, served_here
from alignxplore.serving.server import beside
from alignxplore.synthesis import pipeline
from alignxplore.synthesis.pipeline import SynthesisOptions
from tests.conftest import serve
from tests.serving.test_server import first_line, stand_in  # noqa: F401  (a fixture)


@pytest.fixture(params=["GPUs", "CPU"])
def on_gpus(request, monkeypatch):
    monkeypatch.setattr(server, "on_cpu", lambda: request.param == "CPU")
    return request.param == "GPUs"


def test_no_sampler_is_compiled_when_a_server_starts(stand_in, on_gpus, monkeypatch):  # noqa: F811
    with serve("m", log_path=stand_in):
        assert first_line(stand_in)["environment"].get("VLLM_USE_FLASHINFER_SAMPLER") == ("0" if on_gpus else None)
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    with serve("m", log_path=stand_in.with_name("other.log")):
        environment = first_line(stand_in.with_name("other.log"))["environment"]
        assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1", "what the user set wins"


async def test_servers_start_one_by_one_on_gpus_and_work_side_by_side(stand_in, on_gpus, monkeypatch):  # noqa: F811
    events, up, wait_ready = [], asyncio.Barrier(3), server.wait_ready

    def waited(process, url, **options):
        events.append("starts")
        wait_ready(process, url, **options)
        events.append("is up")

    async def asked(name):
        async with server.serve("m", log_path=stand_in.with_name(name)):
            await up.wait()

    monkeypatch.setattr(server, "wait_ready", waited)
    async with asyncio.timeout(60):
        await asyncio.gather(*map(asked, "abc"))
    assert (events == 3 * ["starts", "is up"]) == on_gpus


async def test_one_that_does_not_come_up_leaves_its_turn_to_the_next(stand_in, monkeypatch):  # noqa: F811
    monkeypatch.setattr(server, "on_cpu", lambda: False)
    monkeypatch.setenv("MODE", "dies")
    with pytest.raises(server.ServerError, match="no such model"):
        async with server.serve("m", log_path=stand_in):
            pass
    monkeypatch.delenv("MODE")
    async with asyncio.timeout(60), server.serve("m", log_path=stand_in):
        pass


def test_those_that_are_up_together_share_a_gpu(on_gpus):
    share = ["--gpu-memory-utilization", "0.450"]
    assert beside(["--enforce-eager"], 2) == ["--enforce-eager"] + (share if on_gpus else [])
    assert beside(["--enforce-eager"], 1) == beside(["--enforce-eager"], 0) == ["--enforce-eager"]
    for words in (["--gpu-memory-utilization", "0.2"], ["--gpu_memory_utilization=0.2"]):
        assert beside(words, 2) == words, "what the user says holds"
    specs = [ModelSpec("a", "org/a"), ModelSpec("b", "org/b"), ModelSpec("c", "http://there/v1")]
    options = SimpleNamespace(max_model_len=512, serve_arguments="--enforce-eager")
    words = asking.serving_arguments(specs[0], options, served_here(specs))
    assert words == ["--max-model-len", "512", "--enforce-eager"] + (share if on_gpus else [])


@pytest.mark.parametrize(("at_once", "count", "shares"), [(1, 3, False), (2, 3, True), (3, 1, False)])
def test_the_evaluation_shares_among_as_many_as_are_up_at_once(at_once, count, shares, monkeypatch):
    monkeypatch.setattr(server, "on_cpu", lambda: False)
    options = GenerationArguments(model=["a=org/a"], data=["d"], out="o", at_once=at_once, max_model_len=512)
    assert ("--gpu-memory-utilization" in serving_beside(options, count)) == shares


async def test_a_teacher_and_a_judge_that_are_served_here_share_a_gpu(monkeypatch):
    opened = {}

    @contextlib.asynccontextmanager
    async def opening(spec, *, arguments, **_):
        opened[spec.name] = arguments
        yield SimpleNamespace(identity=spec.name, endpoint=SimpleNamespace(root=None, url=spec.target))

    monkeypatch.setattr(server, "on_cpu", lambda: False)
    monkeypatch.setattr(pipeline, "open_model", opening)
    plan = SimpleNamespace(
        prompts=PromptSet(), teachers=[ModelSpec("teacher", "org/a")], judges=[ModelSpec("judge", "org/b")]
    )
    options = SynthesisOptions(data="d", out="o", judge_arguments="--gpu-memory-utilization 0.2")
    async with contextlib.AsyncExitStack() as stack:
        await pipeline.open_models(stack, plan, options)
    assert opened["teacher"][-2:] == ["--gpu-memory-utilization", "0.450"]
    assert opened["judge"] == ["--gpu-memory-utilization", "0.2"]
