"""Summaries that go on are asked for in the words that the run had: its prompt set, or a refusal."""

import asyncio
import json
import shutil

import pytest

from alignxplore.errors import UserError
from alignxplore.evaluation.arguments import GenerationArguments
from alignxplore.evaluation.benchmarks import SummarySet
from alignxplore.evaluation.continuing import continue_summaries
from alignxplore.evaluation.generation import generate
from alignxplore.evaluation.updates import Updates
from alignxplore.prompts import SETS, PromptSet
from tests.evaluation.test_updates import films, new, policy, set_of  # noqa: F401  # fixtures


@pytest.fixture
def run_in(policy, record, benchmark_file, tmp_path):  # noqa: F811
    """`run_in(prompt_set, ...)`: a finished run in that wording; it returns `go_on(...)`, which continues it, and has
    the prompts of all requests."""
    tokenizer_folder = tmp_path / "tokenizer"

    def ask(work, **options_given) -> list[str]:
        async def both() -> list[str]:
            async with policy() as server:
                spec = f"{options_given.pop('name', 'ours')}={server.url}#{tokenizer_folder}"
                await work(GenerationArguments(model=[spec], settings=["streaming"], **options_given))
                return [body["messages"][-1]["content"] for body in server.bodies]

        return asyncio.run(both())

    def begin(prompt_set: str, **options_given):
        path, out = benchmark_file("world_films", [record("u1")]), tmp_path / "out"
        ask(generate, data=[str(path)], out=str(out), prompt_set=[prompt_set], **options_given)

        def go_on(**options) -> list[str]:
            return ask(lambda x: asyncio.to_thread(continue_summaries, x), continue_run=str(out), **options)

        go_on.out = out
        return go_on

    return begin


def wordings(summary_set: SummarySet) -> set[str]:
    """Hashes of the prompts of all versions."""
    lines = Updates(summary_set).versions_path.read_text().splitlines()
    return {json.loads(line)["prompt"] for line in lines}


def test_a_run_goes_on_in_its_prompt_set_without_being_told(run_in, tmp_path):
    go_on = run_in("hardened")
    [prompt] = go_on(data=new(tmp_path, u1=films("<Heat>")))
    assert "‹Heat›" in prompt and wordings(set_of(go_on.out)) == {PromptSet("hardened").hash("infer")}
    assert len(go_on(data=new(tmp_path, u1=films("Ran")), prompt_set=["ours=hardened"])) == 1


def test_another_prompt_set_is_refused_before_anything_is_written_or_forgotten(run_in, tmp_path):
    go_on, forget = run_in("hardened"), tmp_path / "forget.jsonl"
    forget.write_text('{"userid": "u1"}\n')
    paths = [path for path in go_on.out.rglob("*.json*") if path.is_file()]
    before = {path: path.read_bytes() for path in paths}
    message = "default.*ours world_films streaming seed 0 .*hardened.*or leave the option out"
    for options in ({"data": new(tmp_path, u1=films("Heat"))}, {"forget": str(forget)}):
        for check in (False, True):
            with pytest.raises(UserError, match=message):
                go_on(prompt_set=["default"], check=check, **options)
    assert {path: path.read_bytes() for path in go_on.out.rglob("*.json*")} == before


def test_a_folder_of_ones_own_is_named_again_and_must_be_as_it_was(run_in, tmp_path):
    folder = shutil.copytree(SETS / "default", tmp_path / "mine")
    template = folder / "infer.jinja"
    template.write_text(template.read_text() + "\nIn my words.\n")
    go_on, data = run_in(str(folder)), new(tmp_path, u1=films("Heat"))
    with pytest.raises(UserError, match="prompt set mine.*name its folder"):
        go_on(data=data)
    [prompt] = go_on(data=data, prompt_set=[str(folder)])
    assert "In my words." in prompt
    template.write_text(template.read_text() + "\nIn other words.\n")
    with pytest.raises(UserError, match="mine.*another wording"):
        go_on(data=new(tmp_path, u1=films("Ran")), prompt_set=[str(folder)])


def test_what_began_as_updates_goes_on_in_its_prompt_set_too(run_in, tmp_path):
    go_on = run_in("hardened")
    go_on(data=new(tmp_path, "a.jsonl", ann=films("Alien")))
    shutil.rmtree(go_on.out / "summaries")  # as earlier versions began a run
    [prompt] = go_on(data=new(tmp_path, "b.jsonl", ann=films("<Heat>")))
    assert "‹Heat›" in prompt
    with pytest.raises(UserError, match="another wording"):
        go_on(data=new(tmp_path, "c.jsonl", ann=films("Ran")), prompt_set=["default"])


def test_short_summaries_stay_short_whichever_name_their_policy_has(run_in, tmp_path):
    """`--model ours` with `--summary_tokens 64` is the policy `ours~64`, as which reports name it."""
    go_on = run_in("default", summary_tokens=64)
    for film, options in (("Heat", {"summary_tokens": 64}), ("Ran", {"name": "ours~64"})):
        [prompt] = go_on(data=new(tmp_path, u1=films(film)), **options)
        assert "64" in prompt.splitlines()[-1]


def test_what_is_forgotten_is_derived_anew_in_the_words_of_the_run(run_in, tmp_path):
    go_on, forget = run_in("hardened"), tmp_path / "forget.jsonl"
    forget.write_text(json.dumps({"userid": "u1", "chosen": "film u1 0"}) + "\n")
    assert go_on(forget=str(forget)) and wordings(set_of(go_on.out)) == {PromptSet("hardened").hash("infer")}


def test_check_says_the_wording(run_in, tmp_path, capsys):
    go_on = run_in("hardened")
    options = {"continue_run": str(go_on.out), "data": new(tmp_path, u1=films("Heat")), "check": True}
    model = [f"ours=http://127.0.0.1:9/v1#{tmp_path / 'tokenizer'}"]
    text = continue_summaries(GenerationArguments(model=model, settings=["streaming"], **options))
    assert f"prompt set hardened ({PromptSet('hardened').hash('infer')})" in text
