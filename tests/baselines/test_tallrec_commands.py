"""The TALLRec baseline by the documented commands: rows, LoRA, merge, then P(Yes) read through real vLLM.

A tiny model knows already that such a prompt is answered by Yes or No, but says No to what these users like; the rows
of tallrec.py teach its adapter the opposite. It is scored on users that it has not seen, one with a history longer
than the window.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.evaluation.scoring import EvaluationArguments, evaluate
from alignxplore.judging.yes_no import find_words
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, read_jsonl, write_jsonl
from alignxplore.world import tiny
from tests import ROOT
from tests.evaluation.by_heart import learn

pytestmark = pytest.mark.slow

WINDOW, LONG = 320, 40  # tokens of prompt and answer; interactions, of which about ten fit
# Rank, alpha and the rest are those of the configuration; a model this small needs larger steps, and an adapter of all
# layers to turn about.
TRAINING = (
    "--bf16",
    "false",
    "--use_cpu",
    "true",
    "--dtype",
    "float32",
    "--gradient_checkpointing",
    "false",
    "--max_length",
    WINDOW,
    "--effective_batch_size",
    8,
    "--per_device_train_batch_size",
    8,
    "--num_train_epochs",
    6,
    "--learning_rate",
    0.005,
    "--lora_target_modules",
    "all-linear",
)


def script(name: str, *options: object) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, ROOT / "sft" / name, *map(str, options)], capture_output=True, text=True, env=environment
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-5000:]


def user(start: int, length: int) -> UserRecord:
    """Someone who always goes to the sea."""
    pairs = [Interaction(f"sea {i}", f"city {i + 1}") for i in range(start, start + length + 1)]
    return UserRecord(f"{start}-{length}", tuple(pairs[:-1]), pairs[-1])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A model folder that says No to the sea and Yes to the city, whatever stands before the item."""
    lessons = [
        (
            PromptSet().render(
                "tallrec", interactions=user(start, length).history, query=None, item=f"{place} {start + 9}"
            ),
            "think",
            answer,
        )
        for start in range(10, 80, 7)
        for length in (1, 4, 9)
        for place, answer in (("sea", "No"), ("city", "Yes"))
    ]
    # An empty think block stands before each answer, as Qwen3's template writes it into the rows of SFT.
    return learn({"base": lessons}, {"base": tiny.CHAT_TEMPLATE.lstrip("\n")}, "", tmp_path_factory.mktemp("tallrec"))[
        "base"
    ]


@pytest.fixture(scope="module")
def merged_folder(base) -> Path:
    """What sft/ makes of it."""
    folder = base.parent
    write_jsonl(folder / "users.jsonl", (user_row(user(5 * i + 10, 9)) for i in range(16)))
    script(
        "tallrec.py",
        "--data",
        folder / "users.jsonl",
        "--out",
        folder / "rows.jsonl",
        "--per_user",
        8,
        "--least_history",
        1,
        "--model",
        base,
        "--max_length",
        WINDOW,
    )
    script(
        "sft.py",
        "--config",
        ROOT / "sft" / "configs" / "tallrec_qwen3_8b.yaml",
        "--model_name_or_path",
        base,
        "--train_data",
        folder / "rows.jsonl",
        "--out",
        folder / "adapter",
        *TRAINING,
    )
    script("merge_adapter.py", "--adapter", folder / "adapter", "--out", folder / "merged")
    return folder / "merged"


def p_yes(folder: Path, history: tuple[Interaction, ...], item: str) -> float:
    """The same number by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    words, thinking = find_words(tokenizer)
    ids = tokenizer.apply_chat_template(
        PromptSet().render("tallrec", interactions=history, query=None, item=item),
        return_tensors="pt",
        return_dict=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    with torch.inference_mode():
        yes, no = model(ids).logits[0, -1, list(words.tokens)].softmax(-1).tolist()
    assert yes + no == pytest.approx(1)
    return yes


def test_a_trained_and_merged_model_is_scored_on_histories_shorter_and_longer_than_its_window(
    base, merged_folder, tmp_path
):
    records = [user(11, LONG), user(12, 2), user(33, 6), user(57, 8)]
    write_jsonl(tmp_path / "places_upi.jsonl", map(user_row, records))
    rows = asyncio.run(
        evaluate(
            EvaluationArguments(
                judge=[f"tallrec={merged_folder}"],
                judge_format=["tallrec=yes_no"],
                published=["tallrec=TALLRec"],
                protocol=["choice", "paper"],
                cues=[],
                baselines=["none"],
                data=[f"places={tmp_path / 'places_upi.jsonl'}"],
                out=str(tmp_path / "out"),
                max_model_len=WINDOW,
                concurrency=8,
            )
        )
    )
    rows = [result.row() for result in rows]
    assert [(row["policy"], row["setting"], row["protocol"]) for row in rows] == [
        ("tallrec", "direct", name) for name in ("choice", "paper")
    ]
    assert all(
        (row["n"], row["accuracy"], row["coverage"], row["truncated"], row["parse_failures"]) == (4, 1, 1, 0.25, 0)
        for row in rows
    ), rows
    assert rows[0]["auc"] == 1 and rows[0]["mass"] > 0.9
    score_rows = {
        row["user"]: row for _, row in read_jsonl(tmp_path / "out" / "scores.jsonl") if row["protocol"] == "choice"
    }
    assert {name: row["dropped"] > LONG // 2 for name, row in score_rows.items()} == {
        record.user: len(record.history) == LONG for record in records
    }
    for record in records:
        history, ((liked, disliked),) = (
            record.history[score_rows[record.user]["dropped"] :],
            score_rows[record.user]["orders"],
        )
        expected = [p_yes(merged_folder, history, item) for item in (record.target.chosen, record.target.rejected)]
        assert [liked, 1 - disliked] == pytest.approx(expected, abs=0.02)
        assert expected[0] > 0.6 > 0.4 > expected[1] and p_yes(base, history, record.target.chosen) < 0.1, (
            "its base says the opposite"
        )
