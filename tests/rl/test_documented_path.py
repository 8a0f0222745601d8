"""Stage to stage without a variable set: each stage finds what the one before it leaves, in the scripts and in the
texts."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests import ROOT
from tests.rl.test_presets import compose, launch  # noqa: F401

MODELS = {ROOT / "outputs/sft", ROOT / "outputs/rl/model"}


def test_rl_starts_from_what_sft_and_the_data_script_leave(compose):  # noqa: F811
    sft = yaml.safe_load((ROOT / "sft/configs/qwen3_8b.yaml").read_text())
    assert (ROOT / "sft" / sft["output_dir"]).resolve() == ROOT / "outputs/sft"
    from alignxplore.rl.rows import OUTPUTS

    config = compose()
    assert Path(config.actor_rollout_ref.model.path) == ROOT / "outputs/sft"
    assert [Path(config.data[name]) for name in ("train_files", "val_files")] == [
        OUTPUTS / "rl_train.parquet",
        OUTPUTS / "rl_val.parquet",
    ]


@pytest.mark.parametrize("page", ["README.md", "verl/README.md", "eval/README.md"])
def test_the_texts_name_models_where_they_are(page):
    named = 0
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        folder = ROOT / (re.findall(r"^cd (\w+)", block, re.MULTILINE) or [Path(page).parent])[0]
        for path in re.findall(r"MODEL=(?:\w+=)?(\.\./\S+)", block):
            assert (folder / path).resolve() in MODELS, path
            named += 1
    assert named or page == "verl/README.md"


def test_the_data_script_takes_the_published_rows_and_holds_users_out(tmp_path, monkeypatch):
    """Without arguments, as published; the hub is a stand-in that, like the real one, fills absent fields with
    null."""
    monkeypatch.syspath_prepend(str(ROOT / "verl/examples/data_preprocess"))
    import datasets

    from alignxplore.rl import rows as script

    sources = []
    history = [{"query": None, "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(5)]
    rows = [{"uid": i, "history": history, "mid_position": 2, "positions": None} for i in range(300)]
    monkeypatch.setattr(datasets, "load_dataset", lambda source, **options: sources.append(source) or rows)
    monkeypatch.setattr(script, "OUTPUTS", tmp_path)
    script.convert(script.RowOptions())
    assert set(sources) == {"VanillaH1/AlignXplorePlus-RL"}
    from alignxplore.rl.dataset import StreamingDataset

    train, held_out = (StreamingDataset(str(tmp_path / f"rl_{part}.parquet")) for part in ("train", "val"))
    assert (len(train), len(held_out)) == (44, 256)


def test_a_source_that_is_neither_file_nor_data_set_is_named(tmp_path):
    from alignxplore.records import RecordError, read_source

    with pytest.raises(
        RecordError, match="no-such-owner/rows: neither a file here nor a readable data set on the hub"
    ):
        list(read_source("no-such-owner/rows"))


def test_the_cluster_lesson_s_check_fits_a_model_of_the_quick_start(tmp_path):
    """Its command line word for word, with such a model where the lesson has one: 4,096 tokens are all that it
    reads."""
    from alignxplore.model_folders import save
    from alignxplore.prompts import PromptSet
    from alignxplore.world.tiny import make_model, make_tokenizer

    tokenizer = make_tokenizer(1, 800, PromptSet("default"))
    save(make_model(tokenizer, 1, 32, 1), tokenizer, tmp_path / "sft")
    (line,) = re.findall(r"^(CHECK=1 .*) bash \S*run_streaming_8p\.sh$", read("docs/lessons/5-a-cluster.md"), re.M)
    variables = dict(word.split("=", 1) for word in shlex.split(line)) | {"MODEL": str(tmp_path / "sft")}
    process = launch(**variables)
    assert process.returncode == 0, process.stderr
    assert {"rows_per_update", "memory_gb"} <= set(json.loads(process.stdout.splitlines()[-1]))


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")
