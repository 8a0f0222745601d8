"""Where a tokenizer lets the judge read its letter, and what counts as an answer of the published protocol."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.letters import find_letters
from alignxplore.judging.sampled import parse_selection


def test_letters_are_cut_where_the_tokenizer_cuts(tokenizer):
    letters = find_letters(tokenizer)
    ids = tokenizer.encode('{"selection": "Item A"}', add_special_tokens=False)
    prefix = tokenizer.encode(letters.prefill, add_special_tokens=False)
    assert ids[: len(prefix) + 1] == [*prefix, letters.tokens[0]]
    assert tokenizer.decode([letters.tokens[1]]) == letters.texts[1]
    assert letters.prefill + letters.texts[0] == '{"selection": "Item A'


def word_tokenizer(*pieces):
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=pieces[-1])


def test_letters_without_merges_stand_after_a_space():
    """A byte-level tokenizer without a single merge (toy models): the prefill ends in the space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = find_letters(PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False))
    assert letters.prefill == '{"selection": "Item ' and letters.texts == ("A", "B")


def sentencepiece_tokenizer(*pieces):
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in (*pieces, "<unk>")], unk_id=len(pieces)))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False)


def test_letters_of_a_sentencepiece_tokenizer():
    """Llama 2 and Mistral write the space into the token and drop it when the token is decoded alone."""
    letters = find_letters(sentencepiece_tokenizer('▁{"', "selection", '":', '▁"', "Item", "▁A", "▁B", '"', "}"))
    assert letters.prefill == '{"selection": "Item' and letters.texts == (" A", " B") and letters.tokens == (5, 6)


def test_letters_that_are_one_token_with_their_quote_are_refused():
    """The judge would have to be sure of the quote too: that is not the letter's probability."""
    with pytest.raises(JudgeError, match="no token of its own for the letter"):
        find_letters(sentencepiece_tokenizer('▁{"', "selection", '":', '▁"', "Item", '▁A"', '▁B"', "}"))


@pytest.mark.parametrize("pieces", [["<unk>"], ['{"', '"', "selection", "Item", "A", "B", '":', '"}', "<unk>"]])
def test_a_tokenizer_without_letters_is_refused(pieces):
    """Both letters unknown; and one that puts spaces of its own into what it decodes."""
    with pytest.raises(JudgeError, match="no token of its own for the letter"):
        find_letters(word_tokenizer(*pieces))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"selection": "Item A"}', "Item A"),
        ('{"selection": "Item B"} because it is quiet.', "Item B"),
        ('Sure:\n```json\n{\n  "selection":\n  "Item B"\n}\n```', "Item B"),
        ('{"why": "she likes {quiet} films", "selection": "Item B"}', "Item B"),
        ('{"selection": "Item A", "note": "not {\\"selection\\": \\"Item B\\"}"}', "Item A"),
        ('{"selection": "Item A", "scores": {"a": 1}}', "Item A"),
        ('First {"selection": "Item A"}, no: {"selection": "Item B"}', "Item B"),
        ('{"selection": "Item A"} {"reason": "x"}', "Item A"),
        ('{"selection": "Item A"} on second thought: {"selection": "none"}', None),
        ('{"selection": "Item A"} or {"selection": "Item C"}', None),
        ('{"selection": "none"}, rather {"selection": "Item A"}', "Item A"),
        ('[{"selection": "Item A"}]', "Item A"),
        ('["Item A"]', None),
        ('{"selection": "Item A"', None),
        ('{"selection": "item a"}', None),
        ('{"selection": "Item C"}', None),
        ('{"selection": ["Item A"]}', None),
        ('{"selection": null}', None),
        ("{'selection': 'Item A'}", None),
        ("Item A", None),
        ("", None),
        ('{"selection": "Item A"}' + "{" * 500, "Item A"),
        ('{"selection": ' + "[" * 100_000, None),
        ('{"selection": ' + "9" * 5000 + "}", None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_selection_table(text, expected):
    assert parse_selection(text) == expected
