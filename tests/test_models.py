"""How models are named on the command line, and what identifies them."""

import pytest

from alignxplore.endpoint import RequestError
from alignxplore.models import ModelSpec, choose, open_model


@pytest.mark.parametrize(("text", "spec"), [
    ("Qwen/Qwen3-8B", ("Qwen3-8B", "Qwen/Qwen3-8B", None, None, None)),
    ("ours=Qwen/Qwen3-8B@abc", ("ours", "Qwen/Qwen3-8B", "abc", None, None)),
    ("http://host:8000/v1", ("host:8000", "http://host:8000/v1", None, None, None)),
    ("r1=https://api.deepseek.com/v1@deepseek-reasoner#deepseek-ai/DeepSeek-R1",
     ("r1", "https://api.deepseek.com/v1", None, "deepseek-ai/DeepSeek-R1", "deepseek-reasoner")),
    ("https://openrouter.ai/api/v1@deepseek/deepseek-r1", ("deepseek-r1", "https://openrouter.ai/api/v1", None, None, "deepseek/deepseek-r1")),
    ("x=http://user:secret@host/v1", ("x", "http://user:secret@host/v1", None, None, None)),  # refused by the endpoint
])
def test_specs(text, spec):
    found = ModelSpec.parse(text)
    assert (found.name, found.target, found.revision, found.tokenizer, found.served) == spec


def test_identities_tell_models_apart(tmp_path):
    assert ModelSpec.parse("a/b").identity == "a/b@main" and ModelSpec.parse("a/b@c").identity == "a/b@c"
    one, two = (ModelSpec.parse(f"https://api.example.com/v1@{model}").identity for model in ("small", "large"))
    assert one != two and "small" in one
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        ModelSpec.parse("./nothing")


async def test_one_of_several_served_models_is_asked_by_name(fake_server, say, tmp_path):
    async with fake_server(lambda body: say(body["model"])) as server:
        server.models.append({"id": "org/other"})
        async with open_model(ModelSpec.parse(f"me={server.url}@org/other"), log_folder=tmp_path, tokenizer=False) as model:
            reply = await model.endpoint.chat([])
            assert reply["choices"][0]["message"]["content"] == "org/other" and (model.name, model.tokenizer) == ("me", None)
        with pytest.raises(RequestError, match="serves fake, org/other; name one of them, as"):
            async with open_model(ModelSpec.parse(f"me={server.url}"), log_folder=tmp_path, tokenizer=False):
                pass


def test_an_option_holds_for_all_models_or_for_one():
    assert choose("format", ["r1"], ["a", "b"], "think") == {"a": "r1", "b": "r1"}
    assert choose("format", ["b=r1", "plain"], ["a", "b"], "think") == {"a": "plain", "b": "r1"}
    assert choose("format", ["b=r1"], ["a", "b"], "think") == {"a": "think", "b": "r1"}  # of a it says nothing
    assert choose("prompt_set", ["a=x/y", "b=z"], ["a", "b"], "default") == {"a": "x/y", "b": "z"}
    for values in (["c=r1", "think"], ["think", "r1"]):
        with pytest.raises(ValueError, match="--format: give one value for all models and NAME=VALUE for single ones of a, b"):
            choose("format", values, ["a", "b"], "think")
