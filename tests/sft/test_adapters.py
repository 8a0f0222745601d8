"""Merging an adapter: what --check says of it, and what cannot be merged."""

import json

import pytest

from alignxplore.journal import RunLock, RunLocked
from alignxplore.records import RecordError
from alignxplore.serving.fingerprints import model_identity
from alignxplore.sft.adapters import MergeOptions, base_of, merge_adapter, name_base_from_here


def test_a_check_names_the_base_model_and_merges_nothing(model_folder, tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": str(model_folder), "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    text = merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path / "out"), check=True))
    assert text.startswith(f"base model: {model_identity(str(model_folder), None)}\n")
    assert text.endswith("check: nothing was started") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "adapter", "named"),
    [
        ("models/base", "models/lora", "../base"),
        ("models/base", "runs/lora/checkpoint-2", "../../../models/base"),
        ("Qwen/Qwen3-8B", "models/lora", "Qwen/Qwen3-8B"),
    ],
)
def test_the_base_is_named_as_seen_from_the_adapter(base, adapter, named, tmp_path, monkeypatch):
    for folder in ("models/base", adapter):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / adapter / "adapter_config.json"
    for name in (str(tmp_path / base), base) if base.startswith("models") else (base,):
        path.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": name, "r": 8}))
        monkeypatch.chdir(tmp_path)
        name_base_from_here(path.parent)
        assert json.loads(path.read_text()) == {"peft_type": "LORA", "base_model_name_or_path": named, "r": 8}
        base_model, _ = base_of(path.parent, tmp_path / "out")
        assert base_model == (str(tmp_path / base) if base.startswith("models") else base)
    with pytest.raises(FileNotFoundError, match="its base model 'base' is not at .*give --base"):
        path.write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "../gone/base", "r": 8}))
        base_of(path.parent, tmp_path / "out")
    assert base_of(path.parent, tmp_path / "out", "org/base")[0] == "org/base"


def test_of_a_base_on_another_disk_only_the_name_is_told(tmp_path):
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": "/proc/self"}))
    name_base_from_here(tmp_path)
    assert json.loads(path.read_text())["base_model_name_or_path"] == "../self"


def test_a_folder_without_an_adapter_and_an_output_that_is_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path / "out"), check=True))
    for text in ("", "[]"):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(RecordError, match=f"{tmp_path}/adapter_config.json: .*copy it again"):
            base_of(tmp_path, tmp_path / "out")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="exists; choose another --out"):
        merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path), check=True))


def test_a_second_merge_into_one_folder_says_so_and_stops(tmp_path):
    options = MergeOptions(adapter=str(tmp_path / "adapter"), out=str(tmp_path / "out"))
    with RunLock(tmp_path / "out", beside=True), pytest.raises(RunLocked, match="out: process .* is writing here"):
        merge_adapter(options)
