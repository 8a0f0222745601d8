"""Baselines that read a history: each against an independent computation, and blind where it should be."""

import random
from collections import Counter

import numpy as np
import pytest

from alignxplore.baselines.embeddings import Embeddings, Encoder
from alignxplore.baselines.histories import (
    Als,
    Bm25,
    Bpr,
    ItemKnn,
    chosen_less_rejected,
    foresee,
    of_others,
    scores,
    training_choices,
)
from alignxplore.benchmark_files import user_row
from alignxplore.errors import UserError
from alignxplore.records import Interaction, RecordError, UserRecord, write_jsonl

TEXTS = ["red car", "a red red house by the sea", "blue sea", "the car by the house", "green"]


def test_bm25_is_what_its_formula_says():
    """Robertson's sum, written out; idf as Lucene has it, k1 = 1.5, b = 0.75."""
    bm25, mean = Bm25(TEXTS), np.mean([len(text.split()) for text in TEXTS])
    for query in TEXTS:
        for document in TEXTS:
            words, expected = Counter(document.split()), 0.0
            for word in set(query.split()):
                holding = sum(word in text.split() for text in TEXTS)
                idf = np.log(1 + (5 - holding + 0.5) / (holding + 0.5))
                length = 1 - 0.75 + 0.75 * words.total() / mean
                expected += idf * words[word] / (words[word] + 1.5 * length)
            assert bm25.scores(query)[TEXTS.index(document)] == pytest.approx(expected, abs=1e-9)
    assert bm25.scores("RED, car!")[0] > bm25.scores("red car")[2] == 0
    assert bm25.scores("?!").tolist() == bm25.scores("unheard").tolist() == [0.0] * 5


def test_an_item_is_like_what_was_chosen_and_unlike_what_was_passed_over():
    assert chosen_less_rejected({"a": 3, "b": 1, "c": 5}, [Interaction("a", "c"), Interaction("b")]) == 2 - 5
    history = [Interaction("red car", "blue sea"), Interaction("red house", "green sea")]
    like = Bm25(["red car", "blue sea", "red house", "green sea"])
    assert foresee(like, history, Interaction("red", "sea")) == 1.0
    assert foresee(like, history, Interaction("sea", "red")) == 0.0
    assert foresee(like, history, Interaction("wood", "stone")) == 0.5
    assert foresee(like, history[::-1], Interaction("car", "car house")) in (0.0, 1.0)


def test_item_knn_is_the_cosine_over_persons():
    generator = random.Random(0)
    items = [f"film {i}" for i in range(12)]
    chosen = {f"p{i}": set(generator.sample(items, generator.randint(2, 6))) for i in range(30)}
    like = ItemKnn(chosen)
    choices_PI = np.array([[item in texts for item in items] for texts in chosen.values()], dtype=float)
    history = [Interaction(items[i], "other") for i in (1, 4, 7)]
    for i, item in enumerate(items):
        cosines = [
            choices_PI[:, i] @ choices_PI[:, j] / (np.linalg.norm(choices_PI[:, i]) * np.linalg.norm(choices_PI[:, j]))
            for j in (1, 4, 7)
        ]
        assert like(item, history) == pytest.approx(sum(cosines))
    assert like("unheard of", history) is None and like(items[0], [Interaction("unheard of")]) is None
    assert foresee(like, [Interaction("unheard of")], Interaction(items[0], items[1])) == 0.5
    assert foresee(like, history, Interaction(items[4], "unheard of")) == 1.0
    assert foresee(like, history, Interaction("unheard of", items[4])) == 0.0


@pytest.mark.parametrize("factors", [Als, Bpr])
def test_factors_take_to_its_items_who_chose_of_them_and_are_the_same_every_time(monkeypatch, factors):
    """Two groups of persons, each with films of its own: a history of one group's films speaks for another of them."""
    monkeypatch.setattr("alignxplore.baselines.histories.FACTORS", 2)
    generator = random.Random(0)
    groups = [[f"{name} {i}" for i in range(20)] for name in ("drama", "comedy")]
    chosen = {f"p{i}": set(generator.sample(groups[i % 2], 8)) for i in range(60)}
    like, copy = factors(chosen), factors(chosen)
    scores = []
    for side in (0, 1):
        for _ in range(20):
            *history, target = generator.sample(groups[side], 5)
            history = [Interaction(text, "unheard of") for text in history]
            target = Interaction(target, generator.choice(groups[1 - side]))
            scores.append(foresee(like, history, target))
            assert like(target.chosen, history) == copy(target.chosen, history)
    assert np.mean(scores) > 0.95
    assert (
        like("unheard of", [Interaction("drama 1")]) is None and like("drama 1", [Interaction("unheard of")]) is None
    )


@pytest.mark.parametrize("values", [{"a": -2.0, "b": -5.0}, {"a": 3.0, "b": 0.5}, {"a": 3.0, "b": -0.5}])
def test_an_item_of_which_nothing_is_known_ranks_below_all_others(values):
    """Factors may put a known item below 0."""

    def like(item, history):
        return values.get(item)

    *numbers, unknown, another = scores(like, (), ("a", "b", "?", "!"))
    assert numbers == list(values.values()) and unknown == another < min(numbers) and np.isfinite(unknown)
    assert foresee(like, (), Interaction("b", "?")) == 1.0 and foresee(like, (), Interaction("?", "b")) == 0.0
    assert foresee(like, (), Interaction("?", "!")) == 0.5 and scores(like, (), ("?", "!")) == (0.0, 0.0)


def test_what_nobody_chose_together_is_as_unlike_as_what_nobody_chose():
    like = ItemKnn({"p": {"a"}, "q": {"b"}})
    assert scores(like, [Interaction("a")], ("b", "?")) == (0.0, 0.0), "0 is the least that a cosine of counts can be"


def test_only_the_nearest_neighbours_count(monkeypatch):
    chosen = {"a": {"x", "near"}, "b": {"x", "near", "far"}, "c": {"far"}, "d": {"far"}}
    history = [Interaction("near"), Interaction("far")]
    score = ItemKnn(chosen)("x", history)
    monkeypatch.setattr("alignxplore.baselines.histories.NEIGHBOURS", 1)
    assert ItemKnn(chosen)("x", history) == pytest.approx(1.0) and score == pytest.approx(1.0 + 1 / (2**0.5 * 3**0.5))


def test_item_knn_learns_nothing_from_the_persons_of_the_benchmark(tmp_path):
    path = tmp_path / "train.jsonl"
    records = [
        UserRecord(user, (Interaction(f"film of {user}", "other"),), Interaction(f"last of {user}", "other"))
        for user in ("a#1", "a#2", "b", "c#1")
    ]
    write_jsonl(path, map(user_row, records))
    choices = of_others(training_choices([path]), {"b"}, path)
    assert choices == {
        "a": {"film of a#1", "last of a#1", "film of a#2", "last of a#2"},
        "c": {"film of c#1", "last of c#1"},
    }
    with pytest.raises(RecordError, match=r"train\.jsonl: .*nobody is left"):
        of_others(training_choices([path]), {"a", "b", "c"}, path)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A BERT of two layers with random weights and one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1} | {word: i for i, word in enumerate(dict.fromkeys(" ".join(TEXTS).split()), 2)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def test_embeddings_are_mean_states_whatever_the_batch(encoder_folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder, tokenizer = Encoder(str(encoder_folder)), AutoTokenizer.from_pretrained(encoder_folder)
    model, expected = AutoModel.from_pretrained(encoder_folder).eval(), []
    for text in TEXTS:
        with torch.no_grad():
            mean = model(tokenizer(text, return_tensors="pt")["input_ids"]).last_hidden_state[0].mean(0).numpy()
        expected.append(mean / np.linalg.norm(mean))
    assert np.allclose(encoder.embed(TEXTS), expected, atol=1e-5), "padding has no say"
    like = Embeddings(encoder, TEXTS)
    history = [Interaction(TEXTS[0], TEXTS[1]), Interaction(TEXTS[2], TEXTS[3])]
    cosine = [float(np.dot(expected[4], vector)) for vector in expected]
    difference = (cosine[0] + cosine[2]) / 2 - (cosine[1] + cosine[3]) / 2
    assert like(TEXTS[4], history) == pytest.approx(difference, abs=1e-5)
    assert foresee(like, history[:1], Interaction(TEXTS[0], TEXTS[1])) == 1.0


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"--baselines embedding=.*nowhere: no model that can be loaded"):
        Encoder(str(tmp_path / "nowhere"))
