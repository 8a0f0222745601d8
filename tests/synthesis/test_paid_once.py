"""What was paid for is kept: drafts when their server moves or the judge changes, verifications when the teacher
moves."""

import contextlib
import functools
import json
import shutil

import pytest

from alignxplore.prompts import SETS
from alignxplore.synthesis.pipeline import synthesise
from alignxplore.synthesis.rounds import DONE
from tests.synthesis.teachers import MERGING, Models

DRAFTS = 2 * (5 + 1)  # two rounds of one user: five drafts and a merge
HINT = "next have to choose"


class Recorder:
    """Counts what is asked of one server: drafts and merges, and questions about a summary."""

    def __init__(self, models: Models):
        self.models = models

    def take(self) -> tuple[int, int]:
        """(drafts and merges, questions about a summary) since the last call."""
        requests, self.models.asked = self.models.asked, []
        drafts = [text for judge, text in requests if not judge and (HINT in text or MERGING in text)]
        return len(drafts), sum(judge and "Likes red." in text for judge, text in requests)


@pytest.fixture
def options(arguments):
    """`options(url, **more)` → the options of a run over one user."""
    return functools.partial(arguments, users=1)


@pytest.fixture
def recorded(tokenizer) -> tuple[Models, Recorder]:
    models = Models(tokenizer)
    return models, Recorder(models)


async def run_at(fake_server, models, options, model: str = "fake") -> None:
    """A whole run of one user at a server of its own, at another port than all before."""
    async with fake_server(models, model=model) as server:
        assert (await synthesise(options(server.url)))["outcomes"] == {DONE: 1}


async def test_a_server_that_moved_is_not_paid_again(fake_server, recorded, options, tmp_path):
    models, recorder = recorded
    await run_at(fake_server, models, options)
    drafts, judgements = recorder.take()
    assert drafts == DRAFTS and judgements > 0
    await run_at(fake_server, models, options)
    assert recorder.take() == (0, 0), "the user is known by the same unit"
    (tmp_path / "out" / "users.jsonl").unlink()
    await run_at(fake_server, models, options)
    assert recorder.take() == (0, 0), "each request is"


@pytest.mark.parametrize("edited", [False, True], ids=["another judge", "another judge template"])
async def test_another_way_to_judge_asks_for_verifications_only(
    fake_server, recorded, options, model_folder, tmp_path, edited
):
    models, recorder = recorded
    await run_at(fake_server, models, options)
    _, judged = recorder.take()
    if edited:
        folder = shutil.copytree(SETS / "default", tmp_path / "wording")
        template = folder / "judge.jinja"
        template.write_text(template.read_text().replace("What is known about", "Here is"))
        await run_at(fake_server, models, lambda url: options(url, prompt_set=str(folder)))
    else:
        async with fake_server(models, model="other") as judge:
            await run_at(fake_server, models, lambda url: options(url, judge=f"j={judge.url}#{model_folder}"))
    assert recorder.take() == (0, judged), "not one draft, each verification"


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"seed": 1}, {}], ids=["sampling", "seed", "teacher"])
async def test_another_teacher_or_sampling_writes_anew(fake_server, recorded, options, change):
    models, recorder = recorded
    await run_at(fake_server, models, options)
    recorder.take()
    await run_at(fake_server, models, lambda url: options(url, **change), "fake" if change else "another")
    assert recorder.take()[0] == DRAFTS


async def test_a_teacher_that_changes_leaves_what_the_judge_has_said(fake_server, recorded, options, model_folder):
    models, recorder = recorded
    async with fake_server(models, model="judge") as judge:
        for model in ("one", "two"):  # they write the same summaries
            await run_at(fake_server, models, lambda url: options(url, judge=f"j={judge.url}#{model_folder}"), model)
            requests = recorder.take()
    assert requests == (DRAFTS, 0)


@pytest.fixture
def serving_here(fake_server, recorded, model_folder, options, monkeypatch):
    """`await serving_here(**more)` → requests (`Recorder.take`) of a run whose teacher and judge are served here."""
    models, recorder = recorded

    @contextlib.asynccontextmanager
    async def serve(*_, **__):
        async with fake_server(models) as server:
            yield server.url

    async def run(**more: str) -> tuple[int, int]:
        models_here = {"teacher": f"t={model_folder}", "judge": f"j={model_folder}", "max_model_len": 2048}
        await synthesise(options("http://nowhere", **models_here | more))
        return recorder.take()

    monkeypatch.setattr("alignxplore.serving.models.serve", serve)
    return run


async def test_a_model_that_is_served_in_another_way_is_another_one(serving_here):
    drafts, judged = await serving_here()
    assert drafts == DRAFTS and judged > 0
    spread = "--tensor-parallel-size 2 --enforce-eager"
    assert await serving_here(teacher_arguments=spread, judge_arguments=spread) == (0, 0)
    assert await serving_here(teacher_arguments="--quantization fp8") == (DRAFTS, 0)
    assert await serving_here(teacher_arguments="-q=fp8") == (0, 0), "another spelling of the same"
    assert await serving_here(teacher_arguments="--chat-template other.jinja") == (DRAFTS, 0)
    assert await serving_here(judge_arguments="--hf-overrides.rope_parameters.factor 2") == (0, judged)


@pytest.mark.parametrize(
    ("root", "again"), [("/model", True), ("./checkpoints/3", True), ("Qwen/Qwen3-32B", False), (None, False)]
)
async def test_a_folder_of_another_machine_does_not_name_what_is_served(fake_server, recorded, options, root, again):
    models, recorder = recorded
    for _ in range(2):
        async with fake_server(models) as server:
            server.models[0]["root"] = root
            await synthesise(options(server.url))
        requests = recorder.take()
    assert requests[0] == (DRAFTS if again else 0)


async def test_a_draft_is_written_again_where_its_place_moved(fake_server, recorded, options, tmp_path):
    """As sft/README.md says: the place is part of the seed."""
    models, _ = recorded
    calls = []
    for most in (5, 4):
        await run_at(fake_server, models, functools.partial(options, max_targets=most))
        notes = json.loads((tmp_path / "out/users.jsonl").read_text().splitlines()[-1])["rounds"]
        calls.append({d["target"]["chosen"]: (i, d["call"]) for n in notes for i, d in enumerate(n["drafts"])})
    five, four = calls
    unmoved_targets = {target for target in four if four[target][0] == five[target][0]}
    assert {target for target in four if four[target][1] == five[target][1]} == unmoved_targets
    assert set(four) < set(five) and set() < unmoved_targets < set(four)
