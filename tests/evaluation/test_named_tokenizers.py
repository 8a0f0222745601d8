"""A tokenizer that is named behind the # decides which prompts fit and which tokens are letters: with another one
everything is written and judged anew; without a name, or with the same one elsewhere, nothing is."""

import copy

import pytest

from alignxplore.evaluation.arguments import EvaluationArguments, GenerationArguments
from alignxplore.evaluation.faithfulness import FaithfulnessOptions, judge_statements
from alignxplore.evaluation.generation import generate, write_summaries
from alignxplore.evaluation.published import Paper
from alignxplore.evaluation.scoring import evaluate
from alignxplore.serving.models import ModelSpec, foreseen, look_up, open_model, parse_all, weights_of


@pytest.fixture
def folders(tokenizer, tmp_path):
    """Two folders of one tokenizer, and one of another that has the same vocabulary and a longer template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template += "{# of another model #}"
    paths = [tmp_path / name for name in ("one", "moved", "other")]
    for path, one in zip(paths, (tokenizer, tokenizer, other)):
        one.save_pretrained(path)
    return paths


@pytest.fixture
def answer(say):
    """Writes a summary, answers about a pair, and likes Item A."""

    def answer(body: dict) -> dict:
        if not (ids := body.get("logprob_token_ids")):
            return say("<think>\nI read\n</think>\n\nLikes films. Hates crowds.")
        top = [{"token": f"token_id:{i}", "logprob": log} for i, log in zip(ids, (-0.1, -2.4))]
        logs = {"content": [{"token": "x", "top_logprobs": top}]}
        return {"choices": [{"index": 0, "message": {"content": "x"}, "logprobs": logs}]}

    return answer


async def test_another_tokenizer_has_everything_written_and_judged_anew(
    fake_server, answer, folders, record, benchmark_file, tmp_path
):
    data = str(benchmark_file("own", [record(f"u{i}") for i in range(3)]))
    common = {"data": [data], "out": str(tmp_path / "out")}
    questions = {"cues": [], "other_user": ["none"], "direct": False}

    def lines() -> list[int]:
        paths = [tmp_path / "out" / name for name in ("summaries/p/own.full.s0.jsonl", "judgements/j/choice.jsonl")]
        paths.append(tmp_path / "out/judgements/j/evidence.jsonl")
        return [len(path.read_text().splitlines()) if path.exists() else 0 for path in paths]

    counts = [lines()]
    async with fake_server(answer, max_model_len=16384) as server:
        for folder in folders:
            arguments = {"model": [f"p={server.url}#{folder}"], "settings": ["full"]} | common
            is_new = folder == folders[2] or folder == folders[0]
            previewed = write_summaries(GenerationArguments(**arguments, check=True))
            assert f"To write: {3 * is_new} summaries" in previewed
            await generate(GenerationArguments(**arguments))
            judge = {"judge": [f"j={server.url}#{folder}"]} | common
            await evaluate(EvaluationArguments(**judge, **questions))
            (spec,) = parse_all(judge["judge"])
            await judge_statements(FaithfulnessOptions(**judge), spec, "")
            counts.append(lines())
    first, moved, other = ([b - a for a, b in zip(*pair)] for pair in zip(counts, counts[1:]))
    assert first == [3, 6, 9] and moved == [0, 0, 0] and other == first


async def test_only_a_tokenizer_that_is_named_and_read_stands_in_an_identity(
    fake_server, answer, folders, model_folder, tmp_path
):
    async def identity(spec: str, **options) -> str:
        async with open_model(ModelSpec.parse(spec), log_folder=tmp_path, **options) as model:
            assert model.named == "Qwen/Qwen3-8B"
            return model.identity

    async with fake_server(answer, model="Qwen/Qwen3-8B") as server:
        named, unread = await identity(f"{server.url}#{folders[0]}"), await identity(server.url, tokenizer=False)
        assert unread == await identity(f"{server.url}#{folders[0]}", tokenizer=False) == "served:Qwen/Qwen3-8B"
        assert named != unread == weights_of(named)
        assert named == (await look_up(ModelSpec.parse(f"{server.url}#{folders[1]}"), 512))[0]
    paper = Paper()
    assert paper.match("m", named, {}, plain=False) == paper.match("m", unread, {}, plain=False) is not None
    spec = ModelSpec.parse(f"m={model_folder}")
    assert (await look_up(spec, 512))[0] == spec.identity
    local = ModelSpec.parse(f"m={model_folder}#{folders[0]}")
    assert (await look_up(local, 512))[0] == foreseen(local, local.identity, "") != local.identity


def test_what_lies_elsewhere_is_foreseen_to_be_what_it_was():
    spec = ModelSpec.parse("m=http://host/v1#Qwen/Qwen3-8B")
    assert foreseen(spec, None, "served:m#tokenizer=0a1b") == "served:m#tokenizer=0a1b"
    assert foreseen(spec, None, "served:m") != "served:m", "written when none was named"
    assert foreseen(ModelSpec.parse("m=http://host/v1"), None, "served:m#tokenizer=0a1b") == "served:m"
