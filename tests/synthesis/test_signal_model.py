"""The signal model: streams cut by offsets, letters placed by content hash, scores read at the letters only."""

import json
import random
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer import sft_trainer

from alignxplore.benchmark_files import user_row
from alignxplore.records import Interaction, UserRecord, read_jsonl, write_jsonl
from alignxplore.serving.beforehand import ModelError
from alignxplore.sft.configuration import TrainArguments
from alignxplore.sft.run_folder import RunFolder
from alignxplore.sft.tokenised_set import load_prepared
from alignxplore.sft.trainer import LabelError, Trainer, check_letters
from alignxplore.synthesis import signal_model, streams
from alignxplore.synthesis.signal_model import (
    Foresight,
    PrepareOptions,
    ScoreOptions,
    join_processes,
    prepare,
    prepare_streams,
    score_identity,
    score_stream,
    score_users,
    shared_out,
)
from alignxplore.synthesis.streams import Stream, behaviour_text, letter_ids, tokenise_stream
from tests import ROOT

SCRIPT = ROOT / "sft/signal_model.py"


def history(length: int, seed: int = 0, alone: float = 0.2) -> list[Interaction]:
    rng = random.Random(seed)
    words = "bright dark café item A B: choice Item, 3.14 \n naïve 東京 Choice: A".split(" ")

    def text() -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(1, 9))) + f" {rng.random()}"

    return [
        Interaction(text(), None if rng.random() < alone else text(), rng.choice([None, "Which?"]))
        for _ in range(length)
    ]


def test_letters_and_ids_are_those_of_encoding_the_growing_text(tokenizer):
    for seed in range(20):
        items = history(15, seed)
        stream = tokenise_stream(items, "u", tokenizer, 10**6)
        text, letters = "", []
        for place, item in enumerate(items):
            piece, letter = behaviour_text(item, ("u", place))
            text += piece
            if letter:
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                letters.append(len(ids) - 2)
                assert ids[-2] == letter_ids(tokenizer)["AB".index(letter)]
        assert stream.ids == tokenizer(text, add_special_tokens=False)["input_ids"] and stream.letters == letters
        assert stream.behaviours == [i for i, item in enumerate(items) if item.rejected is not None]


def test_a_long_stream_loses_its_oldest_behaviours_whole(tokenizer):
    items = history(140, alone=0.0)
    full = tokenise_stream(items, "u", tokenizer, 10**6)
    assert (full.dropped, full.behaviours[0], len(full.letters)) == (40, 40, streams.BEHAVIOURS)
    cut = tokenise_stream(items, "u", tokenizer, len(full.ids) // 2)
    assert len(cut.ids) <= len(full.ids) // 2 and cut.ids == full.ids[-len(cut.ids) :]
    assert cut.behaviours == list(range(cut.dropped, 140)) and tokenizer.decode(cut.ids).startswith(
        ("Request:", "Item A:")
    )
    assert tokenise_stream(items, "u", tokenizer, 3) == Stream([], [], [], 140)


def test_the_letter_is_drawn_by_content_and_tells_nothing(tokenizer):
    drawn = [behaviour_text(Interaction(f"x{i}", f"y{i}"), ("u", i)) for i in range(400)]
    assert drawn == [behaviour_text(Interaction(f"x{i}", f"y{i}"), ("u", i)) for i in range(400)]
    assert 150 < sum(letter == "A" for _, letter in drawn) < 250
    assert all(f"Item {letter}: x" in text for text, letter in drawn)


def test_control_tokens_in_items_stay_text(tokenizer):
    stream = tokenise_stream([Interaction("a <|im_end|> b", "<|endoftext|>")], "u", tokenizer, 1000)
    assert not set(stream.ids) & {tokenizer.eos_token_id, tokenizer.pad_token_id}


def test_scores_are_those_of_all_logits(tokenizer, model_folder):
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    stream = tokenise_stream(history(12, 3), "u", tokenizer, 4096)
    letters = letter_ids(tokenizer)
    scores = score_stream(model, stream, letters)
    with torch.inference_mode():
        table = model(input_ids=torch.tensor([stream.ids])).logits[0]
    for place, entry in zip(stream.letters, scores):
        pair = table[place - 1, list(letters)].softmax(-1)
        assert entry["p"] == pytest.approx(pair[letters.index(stream.ids[place])].item(), abs=1e-6)
    assert [entry["position"] for entry in scores] == stream.behaviours


def test_scores_in_bfloat16_are_as_fine_as_the_hidden_states(tokenizer, model_folder):
    """In bfloat16 a logit of five has steps of a thirty-second, so that different choices would share one p."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    scores = score_stream(
        model, tokenise_stream(history(100, 3, alone=0.0), "u", tokenizer, 10**5), letter_ids(tokenizer)
    )
    assert len({entry["logprob"] for entry in scores}) == len(scores) == 100


@pytest.fixture
def users_file(jsonl):
    def row(number: int) -> dict:
        items = [{"query": x.query, "chosen": x.chosen, "rejected": x.rejected} for x in history(6, number)]
        return {
            "userid": f"u{number}",
            "history": items,
            "target": {"query": None, "chosen": "c", "rejected": f"r{number}"},
        }

    return jsonl(*(row(number) for number in range(12)))


def test_the_prepared_set_trains_letters_only(users_file, tokenizer, tmp_path):
    manifest = prepare(str(users_file), tokenizer, tmp_path / "set", 4096)
    stored, _ = load_prepared(tmp_path / "set", tokenizer)
    letters = letter_ids(tokenizer)
    batch = {key: torch.tensor([record[key]]) for record in [stored[0]] for key in ("input_ids", "labels")}
    assert check_letters(batch, letters) == (batch["labels"] != -100).sum()
    assert manifest["trained_tokens"] == sum(label != -100 for record in stored for label in record["labels"])
    for wrong in (7, -100):
        broken = {key: value.clone() for key, value in batch.items()}
        broken["labels"][broken["labels"] != -100] = wrong
        with pytest.raises(LabelError):
            check_letters(broken, letters)


def test_a_finished_set_is_kept_as_it_is(users_file, tokenizer, tmp_path):
    first = prepare(str(users_file), tokenizer, tmp_path / "set", 4096)
    files = {path: path.stat().st_ino for path in (tmp_path / "set").iterdir()}
    assert prepare(str(users_file), tokenizer, tmp_path / "set", 4096) == first
    assert {path: path.stat().st_ino for path in (tmp_path / "set").iterdir()} == files, "nothing was written again"
    assert prepare(str(users_file), tokenizer, tmp_path / "set", 2048)["identity"] != first["identity"]


def test_training_computes_logits_where_the_letters_are(model_folder, tokenizer, jsonl, tmp_path, monkeypatch):
    """The published trainer makes the whole [tokens, vocabulary] table; here a chunk or two holds all that have a
    label."""
    last = {"chosen": "c", "rejected": "r"}
    rows = [
        {"userid": f"u{n}", "history": [asdict(x) for x in history(40, n, alone=0.0)], "target": last}
        for n in range(2)
    ]
    manifest = prepare(str(jsonl(*rows)), tokenizer, tmp_path / "set", 4096)
    stored, _ = load_prepared(tmp_path / "set", tokenizer)
    options = yaml.safe_load((ROOT / "sft/configs/signal_qwen3_1p7b.yaml").read_text())
    args = TrainArguments(
        output_dir=str(tmp_path / "out"),
        loss_type=options["loss_type"],
        effective_batch_size=2,
        per_device_train_batch_size=2,
        report_to="none",
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = Trainer(
        run=RunFolder(tmp_path / "out"),
        model=str(model_folder),
        args=args,
        train_dataset=stored,
        processing_class=tokenizer,
        letters=manifest["identity"]["letters"],
    )
    projected, chunk = [], sft_trainer._chunk
    monkeypatch.setattr(
        sft_trainer, "_chunk", lambda hidden, *rest: projected.append(len(hidden)) or chunk(hidden, *rest)
    )
    batch = next(iter(trainer.get_train_dataloader()))
    letters, tokens = int((batch["labels"] != -100).sum()), batch["input_ids"].numel()
    with torch.inference_mode():
        trainer.model(**batch)
    assert letters == 82 <= sum(projected) <= sft_trainer._CHUNKED_LM_HEAD_CHUNK_SIZE < tokens / 4


def test_scoring_goes_on_where_it_was_stopped(users_file, model_folder, tmp_path, capsys):
    options = ScoreOptions(model=str(model_folder), data=str(users_file), out=str(tmp_path / "scores"))
    score_users(options)
    text = (tmp_path / "scores" / "scores.jsonl").read_text()
    part = tmp_path / "scores" / "part-0.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    (tmp_path / "scores" / "part-1.jsonl").write_text("".join(lines[:4]))  # as two processes would have left them
    part.write_text("".join(lines[4:7]) + lines[7][:20])
    assert "12 users, 7 of them scored" in score_users(replace(options, check=True))
    assert part.read_text().endswith(lines[7][:20]), "looked at only"
    score_users(options)
    assert (tmp_path / "scores" / "scores.jsonl").read_text() == text
    assert len(part.read_text().splitlines()) == 8, "three kept, five made again"
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["uid"] for row in rows] == [f"u{n}" for n in range(12)]
    assert (
        "12 users" in capsys.readouterr().out
        and json.loads((tmp_path / "scores" / "foresight.json").read_text())["users"] == 12
    )


def test_what_is_left_is_dealt_out_evenly(users_file):
    """Not all users: those that are done may all be of one process's share."""
    records = list(streams.read_behaviours(users_file, None))
    finished_ids = {record.id for record in records[::2]}
    shares = [[record.user for record in shared_out(iter(records), finished_ids, process, 2)] for process in range(2)]
    assert shares == [["u1", "u5", "u9"], ["u3", "u7", "u11"]]


def test_a_process_that_is_done_waits_for_the_others_longer_than_ten_minutes(monkeypatch):
    options_seen = {}
    monkeypatch.setattr(
        signal_model,
        "PartialState",
        lambda **options: options_seen.update(options) or SimpleNamespace(num_processes=1),
    )
    join_processes(cpu=False)
    assert options_seen["timeout"] > timedelta(hours=12)


def test_a_revision_of_the_model_is_the_one_that_is_loaded(users_file, tmp_path, monkeypatch):
    calls = []

    def load(name, revision=None, **_):
        calls.append((name, revision))
        raise OSError("no such model")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load)
    for work, options in ((prepare_streams, PrepareOptions), (score_users, ScoreOptions)):
        model = {"model": "some/model", "model_revision": "abc"}
        with pytest.raises(ModelError, match="no such model"):
            work(options(**model, data=str(users_file), out=str(tmp_path / "score")))
    assert calls == [("some/model", "abc")] * 2 and not (tmp_path / "score").exists()
    assert score_identity(options(**model, data=str(users_file), out="score"))["model"] == "some/model@abc"


@pytest.mark.slow
def test_it_learns_that_one_word_is_always_chosen(model_folder, run_script, tmp_path):
    """Prepared, trained and scored by the commands; the letters tell nothing, so that the word must be read."""
    pairs = [Interaction("plum", f"grey {n % 7}") for n in range(30)]
    for name in ("seen", "unseen"):
        write_jsonl(
            tmp_path / name,
            (
                user_row(UserRecord(f"{name} {n}", tuple(pairs[:-1]), pairs[-1]))
                for n in range(96 if name == "seen" else 8)
            ),
        )
    options = PrepareOptions(model=str(model_folder), data=str(tmp_path / "seen"), out=str(tmp_path / "set"))
    assert "96 streams" in prepare_streams(replace(options, check=True)) and not (tmp_path / "set").exists()
    prepare_streams(options)
    command = [sys.executable, ROOT / "sft/sft.py", "--config", ROOT / "sft/configs/signal_tiny.yaml"]
    command += ["--model_name_or_path", model_folder, "--train_data", tmp_path / "set", "--out", tmp_path / "model"]
    run_script([*command, "--learning_rate", "5e-3", "--num_train_epochs", "12", "--save_strategy", "no"])
    unseen = {"model": str(tmp_path / "model"), "data": str(tmp_path / "unseen"), "out": str(tmp_path / "scores")}
    score_users(ScoreOptions(**unseen))
    probabilities = [entry["p"] for _, row in read_jsonl(tmp_path / "scores/scores.jsonl") for entry in row["scores"]]
    assert len(probabilities) == 240 and min(probabilities) > 0.9


def test_the_interval_of_what_was_foreseen_is_that_of_drawing_users():
    rng, foresight = random.Random(0), Foresight()
    users = []
    for _ in range(400):
        skill, size = rng.choice([0.4, 0.9]), rng.randint(5, 30)
        users.append([{"p": 0.95 if rng.random() < skill else 0.2} for _ in range(size)])
        foresight.add(users[-1])
    row = foresight.row()
    right = [sum(entry["p"] > 0.5 for entry in scores) for scores in users]
    drawn = sorted(
        sum(right[i] for i in pick) / sum(len(users[i]) for i in pick)
        for pick in (rng.choices(range(400), k=400) for _ in range(2000))
    )
    assert row["foreseen"] == row["surely"] == sum(right) / sum(map(len, users)) and row["users"] == 400
    assert row["interval"] == pytest.approx([drawn[50], drawn[1949]], abs=0.004)
    assert Foresight().row()["interval"] == [0, 0]


@pytest.mark.slow
def test_two_processes_share_the_users_out_and_write_what_one_writes(users_file, model_folder, run_script, tmp_path):
    score_users(ScoreOptions(model=str(model_folder), data=str(users_file), out=str(tmp_path / "alone")))
    options = ["score", "--model", model_folder, "--data", users_file, "--out"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2]
    run_script([*launch, SCRIPT, *options, tmp_path / "two"])
    assert [len((tmp_path / "two" / f"part-{n}.jsonl").read_text().splitlines()) for n in (0, 1)] == [6, 6]
    alone, two = ([row for _, row in read_jsonl(tmp_path / name / "scores.jsonl")] for name in ("alone", "two"))
    assert [row["id"] for row in alone] == [row["id"] for row in two]
    for one, other in zip(alone, two):
        assert [entry["p"] for entry in one["scores"]] == pytest.approx(
            [entry["p"] for entry in other["scores"]], abs=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("good", [True, False])
def test_of_two_nodes_the_first_prepares_and_the_other_ends_as_it_does(
    users_file, model_folder, run_script, tmp_path, good
):
    data = users_file if good else tmp_path / "missing.jsonl"
    options = ["--data", data, "--model", model_folder, "--out", tmp_path / "out/signal_set"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1]
    launch += ["--master_addr", "127.0.0.1", "--master_port", port]
    with ThreadPoolExecutor() as nodes:
        commands = [[*launch, "--node_rank", rank, SCRIPT, "prepare", *options] for rank in (0, 1)]
        ended = [node.result() for node in [nodes.submit(run_script, command, None) for command in commands]]
    assert [process.returncode == 0 for process in ended] == [good, good]
    assert (tmp_path / "out/signal_set/manifest.json").is_file() == good
    assert good or "signal_model.py: " in ended[0].stderr
