"""The trainer of the tiny models: where it finds what is to be learnt and the votes, and that it learns from them."""

import json
import math

import pytest

from alignxplore.journal import RunLock, RunLocked
from alignxplore.prompts import PromptSet
from alignxplore.records import RecordError, write_jsonl
from alignxplore.world import files, tiny
from alignxplore.world import lessons as module


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer(1, 1024, PromptSet())


@pytest.mark.parametrize("kind", ["judge", "reader"])
def test_what_is_learnt_and_the_votes_are_found_at_their_tokens(kind, tokenizer, tmp_path):
    prompts = PromptSet()
    rows = list(
        files.judge_rows(1, "places", 60, 0.3, "plain", prompts)
        if kind == "judge"
        else files.reader_rows(1, 60, prompts)
    )
    write_jsonl(tmp_path / "rows.jsonl", rows)
    lessons, classes = module.read_lessons(tmp_path / "rows.jsonl", tokenizer)
    assert len(lessons) == 60 and set(classes) == {vote for row in rows for _, vote in row["votes"]}
    assert len(classes) == {"judge": 3, "reader": 8}[kind]
    for row, lesson in zip(rows, lessons):
        assert tokenizer.decode([lesson.ids[place] for place in lesson.learn]) == row["learn"]
        assert lesson.learn == list(
            range(lesson.learn[0], len(lesson.ids))
        )  # the last tokens: nothing after them is read
        expected = [(words.split()[-1], vote) for words, vote in row["votes"]]
        assert [
            (tokenizer.decode(lesson.ids[end]).strip(), classes[vote]) for end, vote in lesson.votes["phrases"]
        ] == expected


def test_every_row_is_seen_once_and_the_order_depends_on_the_seed():
    lessons = [module.Lesson([0] * (i % 7 + 3), [1], {}) for i in range(50)]
    first = list(module.batches(lessons, 8, 1))
    assert sorted(id(lesson) for batch in first for lesson in batch) == sorted(map(id, lessons))
    assert first == list(module.batches(lessons, 8, 1)) != list(module.batches(lessons, 8, 2))


def test_a_row_of_another_kind_is_named(tokenizer, tmp_path):
    write_jsonl(tmp_path / "sft.jsonl", files.sft_rows(1, 1, 0.0, 0.0, PromptSet()))
    with pytest.raises(RecordError, match=r"sft\.jsonl:1: not a lesson"):
        module.read_lessons(tmp_path / "sft.jsonl", tokenizer)


def test_training_lowers_the_loss_and_saves_a_plain_model(tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    blank = tmp_path / "blank"
    tiny.write_model(tiny.TinyOptions(out=str(blank), layers=2, hidden=64))
    write_jsonl(tmp_path / "judge.jsonl", files.judge_rows(1, "train", 400, 0.1, "plain", PromptSet()))
    places = {"data": str(tmp_path / "judge.jsonl"), "base": str(blank), "out": str(tmp_path / "judge")}
    module.teach(module.LessonOptions(**places, seed=3))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "judge")
    assert model.config.num_hidden_layers == 2 and model.config.hidden_size == 64
    assert (
        json.loads((tmp_path / "judge" / "training.json").read_text())["loss"] < 5
    )  # the mean since the start, which was log(600) = 6.4


def test_a_second_run_into_one_folder_says_so_and_leaves_the_first_one_alone(tokenizer, tmp_path):
    blank, out = tmp_path / "blank", tmp_path / "judge"
    tiny.write_model(tiny.TinyOptions(out=str(blank), layers=1, hidden=32))
    write_jsonl(tmp_path / "judge.jsonl", files.judge_rows(1, "train", 8, 0.1, "plain", PromptSet()))
    options = module.LessonOptions(base=str(blank), data=str(tmp_path / "judge.jsonl"), out=str(out))
    written = tmp_path / ".judge.partial" / "half"
    written.parent.mkdir()
    written.touch()
    with RunLock(out, beside=True):
        with pytest.raises(RunLocked, match="judge: process .* is writing here; wait for it"):
            module.teach(options)
        assert written.exists() and not out.exists()
    module.teach(options)
    assert (out / "training.json").exists() and not written.exists()


def test_a_model_learns_how_probable_each_of_two_answers_is(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    blank = tmp_path / "blank"
    tiny.write_model(tiny.TinyOptions(out=str(blank), layers=1, hidden=32))
    lesson = module.Lesson([50, 60, 70], [1, 2], {}, instead=(80, 0.75))
    assert list(lesson.answers()) == [(1, 60, 1.0), (2, 70, 0.25), (2, 80, 0.75)]
    module.train(blank, [lesson] * 400, {}, tmp_path / "out", seed=1, batch=8, learning_rate=1e-2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        first, second = torch.softmax(model(torch.tensor([[50, 60]])).logits[0], -1).numpy()
    assert first[60] > 0.95 and second[70] == pytest.approx(0.25, abs=0.03) and second[80] > 0.7


def test_a_check_counts_lessons_and_steps_and_trains_nothing(tmp_path):
    tiny.write_model(tiny.TinyOptions(out=str(tmp_path / "base")))
    write_jsonl(tmp_path / "rows.jsonl", files.reader_rows(1, 20, PromptSet()))
    options = {"base": str(tmp_path / "base"), "data": str(tmp_path / "rows.jsonl"), "out": str(tmp_path / "out")}
    output = module.teach(module.LessonOptions(**options, batch=16, check=True))
    assert output.startswith("20 lessons, 2 steps of 16, 8 classes\n") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["batch", "learning_rate"])
@pytest.mark.parametrize("value", [0, math.nan, math.inf])
def test_nothing_is_learnt_from_nothing_nor_from_no_number(name, value):
    with pytest.raises(ValueError, match=f"--{name} {value}: a number above 0"):
        module.LessonOptions(base="a", data="b", out="c", **{name: value})
