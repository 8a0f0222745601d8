"""The judges' own trainer: where it finds the letter and the votes, and that it learns from them."""

import json

import pytest

from alignxplore import tiny, tiny_judge, world
from alignxplore.prompts import PromptSet
from alignxplore.records import RecordError, write_jsonl


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer(1, 1024, PromptSet())


def test_letter_and_votes_are_found_at_their_tokens(tokenizer, tmp_path):
    rows = list(world.judge_rows(1, "places", 60, 0.3, "plain", PromptSet()))
    write_jsonl(tmp_path / "judge.jsonl", rows)
    lessons = tiny_judge.read_lessons(tmp_path / "judge.jsonl", tokenizer)
    assert len(lessons) == 60
    for row, lesson in zip(rows, lessons):
        letter = json.loads(row["completion"][0]["content"])["selection"][-1]
        assert tokenizer.decode(lesson.ids[lesson.letter]) == f" {letter}"
        assert tokenizer.decode(lesson.ids[lesson.letter + 1 :]) == '"}<|im_end|>'
        expected = [(words.split()[-1], vote) for phrases in row["votes"] for words, vote in phrases]
        found = [(tokenizer.decode(lesson.ids[end]).strip(), tiny_judge.VOTES[vote]) for end, vote in lesson.votes]
        assert found == expected


def test_every_row_is_seen_once_and_the_order_depends_on_the_seed():
    lessons = [tiny_judge.Lesson([0] * (i % 7 + 3), 1, []) for i in range(50)]
    first = list(tiny_judge.batches(lessons, 8, 1))
    assert sorted(id(lesson) for batch in first for lesson in batch) == sorted(map(id, lessons))
    assert first == list(tiny_judge.batches(lessons, 8, 1)) != list(tiny_judge.batches(lessons, 8, 2))


def test_a_row_of_another_kind_is_named(tokenizer, tmp_path):
    write_jsonl(tmp_path / "sft.jsonl", world.sft_rows(1, 1, 0.0, 0.0, PromptSet()))
    with pytest.raises(RecordError, match=r"sft\.jsonl:1: not a judge row"):
        tiny_judge.read_lessons(tmp_path / "sft.jsonl", tokenizer)


@pytest.mark.slow
def test_training_lowers_the_loss_and_saves_a_plain_model(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    tiny.main(["--out", str(base), "--layers", "2", "--hidden", "64"])
    write_jsonl(tmp_path / "judge.jsonl", world.judge_rows(1, "train", 400, 0.1, "plain", PromptSet()))
    tiny_judge.main(["--data", str(tmp_path / "judge.jsonl"), "--base", str(base), "--out", str(tmp_path / "judge"), "--seed", "3"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "judge")
    assert model.config.num_hidden_layers == 2 and model.config.hidden_size == 64
    assert json.loads((tmp_path / "judge" / "judge.json").read_text())["letter_loss"] < 3  # from log(587) = 6.4
