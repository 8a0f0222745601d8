"""The tokenizer for films: it reads decade and genres of every film of MovieLens, and any other text as it stands."""

import pytest

from alignxplore.benchmark_files import user_row
from alignxplore.films.model import BlankOptions, known_attributes, write_blank
from alignxplore.films.text import LEVELS, NOTHING, attributes, number
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction, UserRecord, write_jsonl
from alignxplore.world.tiny import CONTROL, fixed_lines
from tests.films.conftest import QUERY

GENRES = (
    "Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror IMAX Musical Mystery"
)
NAMES = [*GENRES.split(), "Romance", "Sci-Fi", "Thriller", "War", "Western"]
NAMES += ["pre-1970", "1970s", "1980s", "1990s", "2000s", "2010s"]


def read(words, text):
    """Tokens as they are read."""
    return [words.tokenizer.decode([token]) for token in words.tokenizer.encode(text)]


def test_what_is_common_has_a_name(words, windows):
    assert known_attributes(windows) == words.names == NAMES
    odd = Interaction("Title: X (1877), Genres: Opera|Drama", "Title: Y, Genres: (no genres listed)")
    pairs = (Interaction("Title: Z (2001), Genres: Comedy", "Title: Q (2001), Genres: Drama"),) * 300
    often = UserRecord("a", (*pairs, odd), odd)
    assert known_attributes([often]) == ["Comedy", "Drama", "2000s"]
    assert known_attributes([often, UserRecord("b", (odd,) * 2, odd)]) == [
        "Comedy",
        "Drama",
        "Opera",
        "pre-1970",
        "2000s",
    ]


@pytest.mark.parametrize(
    ("film", "tokens"),
    [
        ("Title: Toy Story (1995), Genres: Adventure|Comedy", [" 1990s", " Adventure", " Comedy"]),
        ("Title: Seven (a.k.a. Se7en) (1995) , Genres: Mystery|Thriller", [" 1990s", " Mystery", " Thriller"]),
        ("Title: (500) Days of Summer (2009), Genres: Romance", [" 2000s", " Romance"]),
        ("Title: Star Wars (1977), Genres: Sci-Fi", [" 1970s", " Sci-Fi"]),
        ("Title: War Horse: Drama (2011), Genres: War", [" 2010s", " War"]),
        ("Title: 1984 (1956), Genres: Drama", [" pre-1970", " Drama"]),
        ("Title: The Horse in Motion (1878), Genres: Documentary", [" pre-1970", " Documentary"]),
        ("Title: Babylon 5, Genres: Sci-Fi", [" Sci-Fi"]),
        ("Title: The Drama, Genres: Crime|Film-Noir", [" Crime", " Film-Noir"]),
        ("Title: Green Room (2015), Genres: (no genres listed)", [" 2010s"]),
        ("Title: Cosmos, Genres: (no genres listed)", []),
    ],
)
def test_a_film_is_its_decade_and_genres(words, film, tokens):
    after = "Title: Jaws (1975), Genres: Action"
    assert read(words, f"Chosen: {film}\nPassed over: {after}") == [
        "Chosen:",
        *tokens,
        "Passed over:",
        " 1970s",
        " Action",
    ]
    assert read(words, f"Item A: {film}\nItem B: {after}") == [
        "Item A:",
        *tokens,
        "\n",
        "Item B:",
        " 1970s",
        " Action",
    ]


def test_every_film_of_the_edition_is_read(words, films):
    texts = [f"Chosen: {film}\nPassed over: {other}" for film, other in zip(films, films[1:] + films[:1])]
    for text, film, other, ids in zip(texts, films, films[1:] + films[:1], words.tokenizer(texts)["input_ids"]):
        expected = ["Chosen:", *(f" {name}" for name in attributes(film))]
        expected += ["Passed over:", *(f" {name}" for name in attributes(other))]
        assert words.tokenizer.convert_ids_to_tokens(ids) == expected, text


def test_genres_of_other_editions_stand_as_they_are(words):
    tokens = read(words, "Chosen: Title: Balto (1995), Genres: Animation|Children's|unknown")
    assert tokens[:4] == ["Chosen:", " 1990s", " Animation", " Children"] and "".join(tokens[4:]) == "'s unknown"


@pytest.mark.parametrize(
    "text",
    [
        "Zürich, naïve café 北京 🙂",
        "  two  spaces\n\n\ttab",
        "{}[]<>\\ <think>x</think>",
        "a war film of the 1990s, (1995) and Genres: Drama",
        "1. First\n\n2. Second",
        "Films: Comedy liked, 1990s loathed, Opera loved.",
    ],
)
def test_any_other_text_survives(words, text):
    assert words.tokenizer.decode(words.tokenizer.encode(text)) == text


def test_a_prompt_is_its_lines_and_attributes_and_numbers_are_skipped(words, windows):
    history = windows[0].history
    user = read(words, PromptSet().infer(history, "Films: Comedy liked.")[1]["content"])
    start = user.index("The user's newer choices, oldest first:")
    assert user[:start] == ["What was known about the user before:", "\n", "Films:", " Comedy", " liked", ".", "\n\n"]
    expected = []
    for pair in history:
        expected += ["Chosen:", *(f" {name}" for name in attributes(pair.chosen))]
        expected += ["Passed over:", *(f" {name}" for name in attributes(pair.rejected))]
    assert user[start + 1 : start + 1 + len(expected)] == expected
    assert len(user) - start - 1 - len(expected) <= 4, "then how to describe them"


def test_what_is_written_is_a_token_each(words):
    texts = ["<think>", "</think>", "Counts:", "Films:", NOTHING, QUERY, *fixed_lines(PromptSet())]
    texts += [f" {name}" for name in NAMES] + [f" {word}" for word in LEVELS]
    texts += [f" {number(count)}" for count in range(-5, 6)]
    assert [text for text in texts if read(words, text) != [text]] == []
    assert read(words, " +5 -5 0") == [" +5", " -5", " 0"]


def test_a_judge_is_read_at_the_letter(words):
    prefill = words.tokenizer.encode('{"selection": "Item')
    for letter in "AB":
        full = words.tokenizer.encode(f'{{"selection": "Item {letter}"}}')
        assert full[: len(prefill)] == prefill and full[len(prefill)] == words.answer[letter]
    assert set(words.tokenizer.all_special_tokens) <= set(CONTROL)


def test_the_command_writes_a_model_that_transformers_loads(words, windows, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_jsonl(tmp_path / "train.jsonl", map(user_row, windows))
    models = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = BlankOptions(out=str(tmp_path / name), data=str(tmp_path / "train.jsonl"), seed=seed, hidden=64)
        assert f"{len(words.tokenizer)} tokens, 25 attributes" in write_blank(options)
        models.append(AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict())
    first, same, other = (model["model.embed_tokens.weight"] for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other) and len(first) == len(words.tokenizer)
    loaded, text = AutoTokenizer.from_pretrained(tmp_path / "a"), PromptSet().infer(windows[0].history)[1]["content"]
    assert loaded.encode(text) == words.tokenizer.encode(text)
