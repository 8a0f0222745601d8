"""Who may read a model that a stage leaves."""

import json
import stat

import pytest

from alignxplore.films.model import BlankOptions, write_blank
from alignxplore.model_folders import share
from alignxplore.rl.checkpoints import publish_model
from alignxplore.world.tiny import TinyOptions, write_model


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("writer", ["films", "world"])
def test_weights_may_be_read_by_whoever_may_read_the_rest(writer, tmp_path):
    if writer == "films":
        item = {"chosen": "Title: A (1999), Genres: Drama", "rejected": "Title: B (1984), Genres: Comedy"}
        row = {"userid": "u", "history": [item] * 3, "target": item}
        (tmp_path / "users.jsonl").write_text(json.dumps(row) + "\n")
        write_blank(BlankOptions(out=str(tmp_path / "model"), data=str(tmp_path / "users.jsonl"), hidden=32, layers=1))
    else:
        write_model(TinyOptions(out=str(tmp_path / "model"), hidden=32, layers=1))
    assert rights(tmp_path / "model/model.safetensors") == rights(tmp_path / "model/config.json")


def test_a_published_model_may_be_read_though_its_checkpoint_may_not(model_folder, tmp_path):
    saved = tmp_path / "step/actor/huggingface"
    saved.mkdir(parents=True)
    for path in model_folder.iterdir():
        (saved / path.name).write_bytes(path.read_bytes())
    (saved / "model.safetensors").chmod(0o600)
    publish_model(tmp_path / "step", tmp_path / "model", "float32")
    assert rights(tmp_path / "model/model.safetensors") == rights(tmp_path / "model/config.json") != 0o600


def test_rights_are_those_of_the_rest_and_no_wider(tmp_path):
    for name, mode in (("adapter_config.json", 0o640), ("adapter_model.safetensors", 0o600)):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(mode)
    share(tmp_path)
    assert rights(tmp_path / "adapter_model.safetensors") == 0o640
