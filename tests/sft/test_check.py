"""`--check` of prepare_dataset.py and sft.py: what would be trained is told, nothing is started or written."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import yaml
from trl import ModelConfig

from alignxplore.command import run
from alignxplore.sft import training
from alignxplore.sft.configuration import DataArguments, TrainArguments
from alignxplore.sft.rows import fitting_rows
from alignxplore.sft.tokenised_set import PrepareOptions, load_prepared, prepare, prepare_dataset, row_lengths
from tests import ROOT


@pytest.fixture
def sft(rows_file, model_folder, tmp_path, monkeypatch):
    """`sft(*words)` runs sft.py on a CPU, with the weights out of reach."""
    monkeypatch.setattr(training, "make_trainer", lambda *_: pytest.fail("weights would be loaded"))
    words = ["--model_name_or_path", model_folder, "--train_data", rows_file, "--out", tmp_path / "out"]
    words += ["--effective_batch_size", 4, "--max_length", 256, "--num_train_epochs", 2, "--report_to", "none"]

    def start(*more: object) -> None:
        argv = [str(word) for word in (*words, *more)]
        run(training.sft, (DataArguments, TrainArguments, ModelConfig), None, argv)

    return start


def test_rows_that_are_not_prepared_are_counted_and_nothing_is_written(sft, rows_file, tokenizer, tmp_path, capsys):
    manifest = prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    sft("--check", "--save_steps", 20, "--logging_steps", 10)
    output = capsys.readouterr().out
    steps = manifest["rows"] // 4
    assert f"{manifest['rows']:,} rows, {manifest['tokens']:,} tokens" in output
    assert "4 rows a step = 1 rows x 4 accumulated x 1 process(es)" in output
    assert f"{steps} steps an epoch, {2 * steps} in all" in output
    assert "computes in 32 bits, weights in float32, without DeepSpeed" in output
    assert (
        f"checkpoints every 20 steps, on SIGTERM in {tmp_path}/out/checkpoint-N" in output and "would start" in output
    )
    assert not (tmp_path / "out").exists()
    sft("--check", "--train_data", tmp_path / "set", "--max_steps", 7)
    assert f"{steps} steps an epoch, 7 in all" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_a_shorter_max_length_than_that_of_the_set_leaves_the_set_as_it_is(
    sft, rows_file, tokenizer, tmp_path, capsys
):
    """What is not trained on is left out of the counts, and nothing is written into the folder of the rows."""
    manifest = prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    stored, _ = load_prepared(tmp_path / "set", tokenizer)
    lengths = row_lengths(stored)
    limit = sorted(lengths)[len(lengths) // 2]
    short_rows = [row for row in stored if len(row["input_ids"]) <= limit]
    listing = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    sft("--check", "--train_data", tmp_path / "set", "--max_length", limit)
    output = capsys.readouterr().out
    tokens = sum(len(row["input_ids"]) for row in short_rows)
    counts = f"{len(short_rows)} rows, {tokens:,} tokens; {manifest['rows'] - len(short_rows)} rows too long"
    assert 0 < len(short_rows) < manifest["rows"] and counts in output and "nothing written" in output
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == listing
    rows, fitting_manifest = fitting_rows(tmp_path / "set", tokenizer, limit, "train")
    assert list(rows) == short_rows and row_lengths(rows) == [len(row["input_ids"]) for row in short_rows]
    assert fitting_manifest["trained_tokens"] == sum(label != -100 for row in short_rows for label in row["labels"])
    with pytest.raises(SystemExit, match="0 rows are fewer than one optimizer step"):
        sft("--check", "--train_data", tmp_path / "set", "--max_length", 1)


def test_planned_steps_stand_beside_the_published_ones(sft, capsys):
    for published, warned in ((40, False), (37, False), (45, True), (2116, True)):
        sft("--check", "--published_steps", published)  # two epochs of 80 rows, four a step
        output = capsys.readouterr().out
        assert f"40 steps are planned; the published run's last checkpoint is {published:,}" in output
        assert ("warning: 40 steps" in output) == warned
    sft("--check")
    assert "published" not in capsys.readouterr().out
    config = yaml.safe_load((ROOT / "sft/configs/qwen3_8b.yaml").read_text())
    assert config["published_steps"] == 2116


def test_what_would_stop_the_run_stops_the_check(sft, tmp_path, capsys):
    with pytest.raises(SystemExit, match="rows are fewer than one optimizer step"):
        sft("--check", "--effective_batch_size", 4096)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(json.dumps({"learning_rate": 1.0}))
    with pytest.raises(SystemExit, match="holds a run with other settings .* choose another --out"):
        sft("--check")
    with pytest.raises(SystemExit, match="nowhere.jsonl"):
        sft("--check", "--train_data", "nowhere.jsonl")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


BEGUN = SimpleNamespace(train=lambda **_: sys.exit("begun"))  # a trainer, once nothing is refused any more


def test_a_run_that_is_refused_leaves_the_rows_of_the_other_one(sft, rows, jsonl, tmp_path, monkeypatch):
    file = jsonl(*rows)
    monkeypatch.setattr(training, "make_trainer", lambda *_: BEGUN)
    with pytest.raises(SystemExit, match="begun"):
        sft("--train_data", file)
    jsonl(*rows[:40])
    for more_words in ([], ["--check"], ["--seed", 7, "--check"], ["--seed", 7]):
        with pytest.raises(SystemExit, match="out holds a run with other settings .*data"):
            sft("--train_data", file, *more_words)
    assert json.loads((tmp_path / "out/train_data/manifest.json").read_text())["rows"] == len(rows)


@pytest.mark.parametrize(
    ("words", "moments"),
    [([], "after each epoch"), (["--eval_steps", 6], "every 6 steps"), (["--eval_strategy", "epoch"], "after each")],
)
def test_held_out_rows_are_evaluated_and_options_without_them_refused(sft, rows_file, capsys, words, moments):
    sft("--check", "--eval_data", rows_file, *words)
    assert f"held-out rows are evaluated {moments}" in capsys.readouterr().out
    for check in (["--check"], []) if words else ():
        with pytest.raises(SystemExit, match="--eval_strategy, --eval_steps, .* need held-out rows: add --eval_data"):
            sft(*check, *words)


def test_a_check_reckons_with_the_processes_that_it_is_given(sft, tmp_path, capsys):
    zero2 = ["--deepspeed", ROOT / "sft/configs/zero2.json", "--effective_batch_size", 64]
    (tmp_path / "out/checkpoint-4").mkdir(parents=True)
    (tmp_path / "out/checkpoint-4/COMPLETE").write_text(json.dumps({"zero_stage": 2, "processes": 64}))
    sft("--check", *zero2, "--processes", 64)
    output = capsys.readouterr().out
    assert "= 1 rows x 1 accumulated x 64 process(es)" in output and "at 40% of 64 H100" in output
    assert "ZeRO stage 2 on 64 process(es)" in output and "would go on from" in output
    with pytest.raises(SystemExit, match="saved with ZeRO stage 2 on 64 .* cannot be resumed .* on 32"):
        sft("--check", *zero2, "--processes", 32)
    with pytest.raises(SystemExit, match="--processes is for --check"):
        sft("--processes", 2)


def test_a_check_without_a_gpu_knows_the_run_of_a_gpu_and_that_of_a_cpu(sft, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "make_trainer", lambda *_: BEGUN)
    with pytest.raises(SystemExit, match="begun"):
        sft("--bf16", "true")
    sft("--check", "--bf16", "true")
    output = capsys.readouterr().out
    assert "computes in 32 bits" in output and "no GPU here" not in output
    settings = json.loads((tmp_path / "out/run.json").read_text())
    (tmp_path / "out/run.json").write_text(json.dumps(settings | {"bf16": True}))
    sft("--check", "--bf16", "true")
    output = capsys.readouterr().out
    assert "computes in bf16" in output and "no GPU here: reckoned for 1" in output


def test_rows_are_shown_with_their_trained_part_marked(rows, rows_file, model_folder, tmp_path):
    options = {"model": str(model_folder), "out": str(tmp_path / "set"), "max_length": 256, "show": 3}
    for check in (True, False):  # as they would be, and as they are
        output = prepare_dataset(PrepareOptions(data=[str(rows_file)], check=check, **options))
        marked_rows = re.findall(
            r"^row \d: \d+ tokens, \d+ of them trained\n(.*?)⟦(.*?)⟧\n", output, re.DOTALL | re.MULTILINE
        )
        assert len(marked_rows) == 3
        for row, (before, trained) in zip(rows, marked_rows):
            assert row["prompt"][-1]["content"] in before and before.endswith("<|im_start|>assistant\n")
            assert trained.startswith("<think>\nseen") and row["completion"][0]["content"] in trained
            assert trained.endswith("<|im_end|>\n")


def test_preparing_is_tried_out_on_the_rows(rows_file, tokenizer, model_folder, tmp_path):
    manifest = prepare([str(rows_file)], tokenizer, tmp_path / "set", 256)
    options = {"model": str(model_folder), "out": str(tmp_path / "other"), "max_length": 256, "check": True}
    output = prepare_dataset(PrepareOptions(data=[str(rows_file), "some/rows"], **options))
    assert "some/rows: on the Hub" in output and f"{manifest['rows']:,} rows, {manifest['tokens']:,} tokens" in output
    assert "nothing was" in output and not (tmp_path / "other").exists()
