"""What is wrong with a model is said before it is served: files, chat template, names."""

import copy
import json
import math

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignxplore.errors import UserError
from alignxplore.prompts import PromptSet
from alignxplore.serving.beforehand import (
    ModelError,
    check_files,
    check_template,
    load_tokenizer,
    other_wording,
    read_tokenizer,
)
from alignxplore.serving.models import ModelSpec, open_model, parse_all

SAMPLE = PromptSet().judge(None, None, "a", "b")


def safetensors(size=8):
    head = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(size)


@pytest.fixture
def folder(tmp_path):
    """A folder with everything, as far as can be seen from outside."""
    model_folder = tmp_path / "model"
    model_folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model_folder / name).write_text("{}")
    for shard in "12":
        (model_folder / f"model-{shard}.safetensors").write_bytes(safetensors())
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return model_folder


MISSING = {
    "config.json": "no config.json",
    "tokenizer.json": "no tokenizer",
    "model-2.safetensors": "model-2.safetensors is missing",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_file_is_named(folder, name):
    check_files(str(folder))
    (folder / name).unlink()
    with pytest.raises(ModelError, match=MISSING[name]):
        check_files(str(folder))


def test_a_file_of_weights_that_was_cut_is_named(folder):
    for data in (safetensors(4), b"", b"\x00" * 7, b"\xff" * 16):
        (folder / "model-2.safetensors").write_bytes(data)
        with pytest.raises(ModelError, match="model-2.safetensors is cut or damaged"):
            check_files(str(folder))


STAND_INS = {
    b"<html>not found</html>": "a web page, not data",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n": "a pointer of Git LFS",
}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-2.safetensors"])
@pytest.mark.parametrize("content", STAND_INS)
def test_what_stands_in_a_files_place_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {STAND_INS[content]}"):
        check_files(str(folder))


@pytest.mark.parametrize("content", ['{"a": ', "[]", ""])
def test_a_file_that_holds_no_object_is_named(folder, content):
    (folder / "tokenizer.json").write_text(content)
    for look in (check_files, read_tokenizer):
        with pytest.raises(UserError, match=f"{folder}/tokenizer.json: .*; copy or download it again"):
            look(str(folder))


def test_a_tokenizer_that_cannot_be_read_is_a_sentence(folder):
    for content in ("{}", '{"added_tokens": 7}', '{"added_tokens": [], "model": null}'):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=rf"^no tokenizer at {folder} \([^\n]+\)$"):
            read_tokenizer(str(folder))


def test_a_tokenizer_that_loses_spaces_is_refused_and_the_remedy_helps(tokenizer, tmp_path):
    """Bytes that transformers reads as SentencePiece: DeepSeek's distills say LlamaTokenizerFast."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"tokenizer_class": "LlamaTokenizerFast"}))
    for _ in range(2):
        with pytest.raises(ModelError, match=f'at {tmp_path} loses spaces .*"tokenizer_class": "PreTrainedTokenizer'):
            read_tokenizer(str(tmp_path))
        (tmp_path / "config.json").unlink(missing_ok=True)  # a folder with a tokenizer alone
    path.write_text(json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    mended = read_tokenizer(str(tmp_path))
    assert mended.decode(mended.encode("two wörds", add_special_tokens=False)) == "two wörds"


def test_a_tokenizer_of_other_words_loses_no_spaces(tmp_path):
    words = Tokenizer(models.WordLevel({"film": 0, "[UNK]": 1}, "[UNK]"))
    for pre_tokenizer in (pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel()):
        words.pre_tokenizer = pre_tokenizer
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
        read_tokenizer(str(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers_are_named(folder, dtype):
    weights = {"good": torch.tensor([1.0, -math.inf]), "count": torch.tensor([1, -1]), "lost": torch.ones(9)}
    path = folder / "model-2.safetensors"
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(cast, path)
    check_files(str(folder))
    cast["lost"][4] = -math.nan
    save_file(cast, path)
    with pytest.raises(ModelError, match=f"lost in {path} holds values that are no numbers .*earlier checkpoint"):
        check_files(str(folder))


def test_no_weights_at_all_unless_they_are_not_asked_for(folder):
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(ModelError, match="no weights in"):
        check_files(str(folder))
    for line in ("--load-format dummy", "--load-format=dummy", "--load_format dummy", "--load_format=dummy"):
        check_files(str(folder), arguments=line.split())


def test_a_tokenizer_from_elsewhere_is_not_looked_for(folder):
    (folder / "tokenizer.json").unlink()
    for line in ("--tokenizer a/b", "--tokenizer=a/b"):
        check_files(str(folder), arguments=line.split())
    with pytest.raises(ModelError, match="no tokenizer"):
        check_files(str(folder), arguments=["--tokenizer-mode", "auto"])


def test_offline_the_hubs_cache_is_looked_at(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="org/m: no config.json in the hub's cache; HF_HUB_OFFLINE=1 forbids"):
        check_files("org/m")
    cached = tmp_path / "models--org--m"
    snapshot = cached / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1" * 40)
    for name in ("config.json", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blob that was never fetched")
    with pytest.raises(ModelError, match=r"no weights|model.safetensors is missing.*HF_HUB_OFFLINE=1"):
        check_files("org/m")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    check_files("org/m")  # it will be fetched


def test_a_gguf_file_is_refused_in_a_sentence():
    with pytest.raises(ModelError, match="a GGUF file is not served here"):
        check_files("/models/llama-q4.gguf")


@pytest.mark.parametrize(
    ("config", "tokenizer", "takes"),
    [
        ({"max_position_embeddings": 2048}, {}, 2048),
        ({"text_config": {"max_position_embeddings": 2048}}, {"model_max_length": 10**30}, 2048),
        ({"max_position_embeddings": 32768}, {"model_max_length": 4096}, 4096),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn", "factor": 16.0}}, {}, None),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "linear", "factor": 8.0}}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_window_that_the_model_was_not_made_for_is_refused_in_a_sentence(folder, config, tokenizer, takes):
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for arguments in (["--max-model-len", "16384"], ["--max-model-len", "64", "--max-model-len=16384"]):
        if takes is None:
            check_files(str(folder), arguments=arguments)
            continue
        sentence = (
            f"16,384 tokens is asked for, and the model was made for {takes:,}; lower --max_model_len to {takes} "
        )
        with pytest.raises(ModelError, match=sentence):
            check_files(str(folder), arguments=arguments)
    check_files(str(folder), arguments=["--max-model-len", "2048"])


def test_a_longer_window_can_be_had_by_who_wants_it(folder, monkeypatch):
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    check_files(str(folder), arguments=["--max-model-len", "16384", "--hf-overrides", "{}"])
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    check_files(str(folder), arguments=["--max-model-len", "16384"])


async def test_nothing_is_served_before_that(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("alignxplore.serving.models.serve", None)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="no config.json"):
        async with open_model(ModelSpec.parse(f"m={folder}"), log_folder=tmp_path):
            pass


def no_system(tokenizer):
    refusing = copy.deepcopy(tokenizer)
    refusing.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    return refusing


def test_a_template_that_refuses_our_prompts_is_named(tokenizer):
    check_template("m", tokenizer, SAMPLE)
    with pytest.raises(ModelError, match=r"m: its chat template refuses messages of system, user \(System role not"):
        check_template("m", no_system(tokenizer), SAMPLE)
    check_template("m", no_system(tokenizer), SAMPLE[1:])  # a prompt set without system messages
    wrong = copy.deepcopy(tokenizer)
    wrong.chat_template = "{{ 1 / 0 }}"
    with pytest.raises(ModelError, match=r"refuses messages of system, user \(division by zero\)"):
        check_template("m", wrong, SAMPLE)
    none = copy.deepcopy(tokenizer)
    none.chat_template = None
    with pytest.raises(ModelError, match="m: its tokenizer has no chat template"):
        check_template("m", none, SAMPLE)


@pytest.mark.parametrize("name", ["default", "hardened"])
def test_a_model_that_was_trained_on_another_wording_is_told(tmp_path, name):
    folder, prompts = tmp_path / "model", PromptSet(name, 64)
    folder.mkdir()
    assert other_wording(str(folder), prompts) is None
    for text in ("[]", '{"data": 1}', '{"data": {"prompt_templates": {"not recorded": 5}}}'):
        (folder / "summary.json").write_text(text)
        assert other_wording(str(folder), prompts) is None, "nobody knows"
    of_default = PromptSet("default").hash("infer")
    (folder / "summary.json").write_text(json.dumps({"data": {"prompt_templates": {of_default: 9, "0": 1}}}))
    sentence = other_wording(str(folder), prompts)
    assert (sentence is None) == (name == "default")
    assert sentence is None or f"({', '.join(sorted(('0', of_default)))}) than that of the prompt set har" in sentence


async def test_an_endpoints_too(fake_server, say, tokenizer, tmp_path):
    no_system(tokenizer).save_pretrained(tmp_path / "tokenizer")
    async with fake_server(lambda body: say("x")) as server:
        spec = ModelSpec.parse(f"m={server.url}#{tmp_path}/tokenizer")
        with pytest.raises(ModelError, match="System role not supported"):
            async with open_model(spec, log_folder=tmp_path, sample=SAMPLE):
                pass
        assert server.bodies == []


def test_no_tokenizer_says_how_to_name_one(tmp_path):
    with pytest.raises(ModelError, match=r"m: no tokenizer at .*; name another one behind a #"):
        load_tokenizer("m", str(tmp_path))


@pytest.mark.parametrize("text", ["org/my=http://h/v1", "a/b=https://h/v1@m"])
def test_a_name_with_a_slash_is_refused(text):
    with pytest.raises(ValueError, match="a name becomes the name of files and cannot have a '/'"):
        ModelSpec.parse(text)


def test_two_models_of_one_name_are_refused():
    for texts in (["a=org/F1", "a=org/F2"], ["org/m", "other/m"], ["a=org/F", "a=org/F"]):
        with pytest.raises(ValueError, match="2 models are named"):
            parse_all(texts)
    assert [spec.name for spec in parse_all(["a=org/F", "b=org/F"])] == ["a", "b"]
