"""Merging an adapter: what --check says of it, and what cannot be merged."""

import json

import pytest

from alignxplore.serving.fingerprints import model_identity
from alignxplore.sft.adapters import MergeOptions, merge_adapter


def test_a_check_names_the_base_model_and_merges_nothing(model_folder, tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": str(model_folder), "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    said = merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path / "out"), check=True))
    assert said.startswith(f"base model: {model_identity(str(model_folder), None)}\n")
    assert said.endswith("check: nothing was started") and not (tmp_path / "out").exists()


def test_a_folder_without_an_adapter_and_an_output_that_is_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path / "out"), check=True))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="exists; choose another --out"):
        merge_adapter(MergeOptions(adapter=str(tmp_path), out=str(tmp_path), check=True))
