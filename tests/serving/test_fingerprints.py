"""Two models are told apart by their weights, or by the commit of the hub."""

import shutil

from alignxplore.serving.fingerprints import model_identity


def test_a_hub_model_is_told_by_its_commit(monkeypatch):
    monkeypatch.setattr(
        "alignxplore.serving.fingerprints.commit", lambda model, revision: {"main": "c0ffee"}.get(revision, revision)
    )
    assert (
        model_identity("some/model", None) == "some/model@c0ffee"
        and model_identity("some/model", "v1") == "some/model@v1"
    )


def test_a_rebuilt_model_in_the_same_folder_is_another_model(model_folder, tmp_path):
    copy = tmp_path / model_folder.name
    shutil.copytree(model_folder, copy)
    assert model_identity(str(copy), None) == model_identity(str(model_folder), None)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_identity(str(copy), None) != model_identity(str(model_folder), None)


def test_models_that_differ_after_their_beginning_only_are_two_models(tmp_path):
    for name, end in (("one", b"1"), ("two", b"2")):
        folder = tmp_path / name / "merged"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(3 << 20) + end)
    assert model_identity(str(tmp_path / "one" / "merged"), None) != model_identity(
        str(tmp_path / "two" / "merged"), None
    )
