"""How models are named on the command line, and what identifies them."""

import shutil

import huggingface_hub.constants
import pytest

from alignxplore.serving.beforehand import ModelError
from alignxplore.serving.endpoint import RequestError
from alignxplore.serving.fingerprints import weights_fingerprint
from alignxplore.serving.models import ModelSpec, choose, look_up, open_model, parse_all, whereabouts


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Qwen/Qwen3-8B", ("Qwen3-8B", "Qwen/Qwen3-8B", None, None, None)),
        ("ours=Qwen/Qwen3-8B@abc", ("ours", "Qwen/Qwen3-8B", "abc", None, None)),
        ("http://host:8000/v1", ("host:8000", "http://host:8000/v1", None, None, None)),
        (
            "r1=https://api.deepseek.com/v1@deepseek-reasoner#deepseek-ai/DeepSeek-R1",
            ("r1", "https://api.deepseek.com/v1", None, "deepseek-ai/DeepSeek-R1", "deepseek-reasoner"),
        ),
        (
            "https://openrouter.ai/api/v1@deepseek/deepseek-r1",
            ("deepseek-r1", "https://openrouter.ai/api/v1", None, None, "deepseek/deepseek-r1"),
        ),
        ("a#1=http://h/v1", ("a#1", "http://h/v1", None, None, None)),
        ("a#2=http://h/v1@m#org/tokens", ("a#2", "http://h/v1", None, "org/tokens", "m")),
        ("a#3=org/m@abc#org/tokens", ("a#3", "org/m", "abc", "org/tokens", None)),
        ("a@1=http://h/v1@m", ("a@1", "http://h/v1", None, None, "m")),
        ("a@2=org/m@abc", ("a@2", "org/m", "abc", None, None)),
        ("org/m@abc#org/tokens", ("m", "org/m", "abc", "org/tokens", None)),
        ("http://h/v1#org/tokens", ("h", "http://h/v1", None, "org/tokens", None)),
        ("http://h/v1@m#org/tokens", ("m", "http://h/v1", None, "org/tokens", "m")),
        (
            "x=http://user:secret@host/v1",
            ("x", "http://user:secret@host/v1", None, None, None),
        ),  # refused by the endpoint
    ],
)
def test_specs(text, spec):
    model_spec = ModelSpec.parse(text)
    assert (
        model_spec.name,
        model_spec.target,
        model_spec.revision,
        model_spec.tokenizer,
        model_spec.served_name,
    ) == spec


def test_a_folder_is_one_whatever_signs_its_name_has(tmp_path):
    for name in ("m", "m#2", "tokens#2"):
        (tmp_path / name).mkdir()
    for target, expected in (
        ("m#2", ("m#2", None)),
        ("m#2#org/tokens", ("m#2", "org/tokens")),
        ("m#org/tokens", ("m", "org/tokens")),
        (f"m#{tmp_path}/tokens#2", ("m", f"{tmp_path}/tokens#2")),
    ):
        spec = ModelSpec.parse(f"x={tmp_path}/{target}")
        assert (spec.target, spec.tokenizer) == (f"{tmp_path}/{expected[0]}", expected[1])
        assert ModelSpec.parse(f"{tmp_path}/{target}").name == expected[0], "without a name it is the folder's"
        assert ModelSpec.parse(f"x#1={tmp_path}/{target}").name == "x#1"
    runs = parse_all([f"ours#1={tmp_path}/m", f"ours#2={tmp_path}/m#2"])
    assert [spec.name for spec in runs] == ["ours#1", "ours#2"]


def test_identities_tell_models_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert ModelSpec.parse("a/b").identity == "a/b@main" and ModelSpec.parse("a/b@c").identity == "a/b@c"
    one, two = (ModelSpec.parse(f"https://api.example.com/v1@{model}").identity for model in ("small", "large"))
    assert one != two and "small" in one
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        ModelSpec.parse("./nothing")


def test_a_hub_model_is_identified_by_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--a--b"
    for commit in ("1" * 40, "2" * 40):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "snapshots" / commit / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    for commit in ("1" * 40, "2" * 40):  # the weights under the same name change
        (cached / "refs" / "main").write_text(commit)
        assert ModelSpec.parse("x=a/b").identity == f"a/b@{commit}"


async def test_an_endpoint_is_identified_by_what_stands_behind_its_name(fake_server, say, tmp_path):
    identities = []
    async with fake_server(lambda body: say("x"), model="ours") as server:
        spec = ModelSpec.parse(f"me={server.url}")
        for root, window in (("/checkpoints/30", 512), ("/checkpoints/60", 4096), ("ours", None)):
            server.models[0] |= {"root": root, "max_model_len": window}
            identities.append(await look_up(spec, 1024))
            async with open_model(spec, log_folder=tmp_path, tokenizer=False) as model:
                assert model.identity == identities[-1][0]
    assert identities == [
        (f"{server.url}@ours=/checkpoints/30", 512),
        (f"{server.url}@ours=/checkpoints/60", 1024),
        ("served:ours", 1024),
    ]


async def test_an_endpoint_whose_weights_lie_here_is_identified_by_them(fake_server, say, tmp_path):
    """Saved into the same folder, served under the same name."""
    identities = set()
    async with fake_server(lambda body: say("x"), model="ours") as server:
        server.models[0]["root"] = str(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        for weights in (b"one", b"two"):
            (tmp_path / "model.safetensors").write_bytes(weights)
            identities.add((await look_up(ModelSpec.parse(f"me={server.url}"), 1024))[0])
    assert len(identities) == 2 and f"served:{weights_fingerprint(tmp_path)}" in identities


async def test_a_model_has_one_name_wherever_it_is_served(fake_server, say, tmp_path):
    """The name that goes with what was written: without the address, unless the server names nothing that holds
    elsewhere."""
    (tmp_path / "config.json").write_text("{}")
    for root, named in (
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        (str(tmp_path), weights_fingerprint(tmp_path)),
        (None, "ours"),
    ):
        for _ in range(2):  # at two ports
            async with fake_server(lambda body: say("x"), model="ours") as server:
                server.models[0]["root"] = root
                async with open_model(ModelSpec.parse(server.url), log_folder=tmp_path, tokenizer=False) as model:
                    assert (model.named, model.identity) == (named, f"served:{named}")
    async with fake_server(lambda body: say("x"), model="ours") as server:
        server.models[0]["root"] = "/model"  # of some machine
        async with open_model(ModelSpec.parse(server.url), log_folder=tmp_path, tokenizer=False) as model:
            assert model.named == model.identity == f"{server.url}@ours=/model"


def test_a_check_looks_at_the_files_of_a_folder(model_folder, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(model_folder, damaged)
    assert whereabouts(ModelSpec.parse(f"x={damaged}")) == f"folder {damaged}"
    with pytest.raises(ModelError, match="window of 999,999,999 tokens is asked for"):
        whereabouts(ModelSpec.parse(f"x={damaged}"), arguments=["--max-model-len", "999999999"])
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="model.safetensors is cut or damaged"):
        whereabouts(ModelSpec.parse(f"x={damaged}"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="a GGUF file is not served here"):
        whereabouts(ModelSpec.parse(f"x={tmp_path / 'm.gguf'}"))
    assert whereabouts(ModelSpec.parse("x=org/not-in-the-cache@main")) == "hub model org/not-in-the-cache@main"


def test_a_fingerprint_sees_what_changes_between_the_ends_of_a_large_file(tmp_path):
    weights, size = tmp_path / "model.safetensors", 20_000_000
    weights.write_bytes(bytes(size))
    before = weights_fingerprint(tmp_path)
    assert weights_fingerprint(tmp_path) == before
    with weights.open("r+b") as file:  # a tensor of a fifth of the model
        file.seek(2 * size // 5)
        file.write(b"1" * (size // 5))
    assert weights_fingerprint(tmp_path) != before


async def test_one_of_several_served_models_is_asked_by_name(fake_server, say, tmp_path):
    async with fake_server(lambda body: say(body["model"])) as server:
        server.models.append({"id": "org/other"})
        async with open_model(
            ModelSpec.parse(f"me={server.url}@org/other"), log_folder=tmp_path, tokenizer=False
        ) as model:
            reply = await model.endpoint.chat([])
            assert reply["choices"][0]["message"]["content"] == "org/other" and (model.name, model.tokenizer) == (
                "me",
                None,
            )
        with pytest.raises(RequestError, match="serves fake, org/other; name one of them, as"):
            async with open_model(ModelSpec.parse(f"me={server.url}"), log_folder=tmp_path, tokenizer=False):
                pass


def test_an_option_holds_for_all_models_or_for_one():
    assert choose("format", ["r1"], ["a", "b"], "think") == {"a": "r1", "b": "r1"}
    assert choose("format", ["b=r1", "plain"], ["a", "b"], "think") == {"a": "plain", "b": "r1"}
    assert choose("format", ["b=r1"], ["a", "b"], "think") == {"a": "think", "b": "r1"}  # of a it says nothing
    assert choose("prompt_set", ["a=x/y", "b=z"], ["a", "b"], "default") == {"a": "x/y", "b": "z"}
    for values in (["c=r1", "think"], ["think", "r1"]):
        with pytest.raises(
            ValueError, match="--format: give one value for all models and NAME=VALUE for single ones of a, b"
        ):
            choose("format", values, ["a", "b"], "think")
    for values in (["a=think", "a=plain"], ["a=think", "b=r1", "a=think"], ["c=r1", "plain", "c=r1"]):
        with pytest.raises(ValueError, match="^--format: [ac] is given twice; give it one value$"):
            choose("format", values, ["a", "b"], "think")
