"""The tiny models: a tokenizer that encodes anything, Qwen3's chat format, and letters that a judge can be read at."""

import pytest

from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.world import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.make_tokenizer(1, 1024, PromptSet())


def test_any_text_survives(tokenizer):
    for text in (
        "Comedy about wolves",
        "Zürich, naïve café 北京 🙂",
        "  two  spaces\n\n\ttab",
        "{}[]<>|\\",
        "<think>x</think>",
    ):
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text


def test_world_text_is_short_and_the_letters_are_single_tokens(tokenizer):
    for text in (
        " A",
        " B",
        "Item",
        " humour",
        "Loves",
        " comedy",
        " skyscrapers",
        "Passed over:",
        "<think>",
        "</think>",
    ):
        assert len(tokenizer.encode(text)) == 1, text
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode('{"selection": "Item A"}')) == [
        '{"',
        "selection",
        '":',
        'Ġ"',
        "Item",
        "ĠA",
        '"}',
    ]
    # The judge's prefill is a prefix of the full answer's tokens, with either letter next.
    prefill = tokenizer.encode('{"selection": "Item')
    for letter in "AB":
        full = tokenizer.encode(f'{{"selection": "Item {letter}"}}')
        assert full[: len(prefill)] == prefill and full[len(prefill)] == tokenizer.encode(f" {letter}")[0]


def test_fixed_prompt_lines_are_one_token_each(tokenizer):
    lines = tiny.fixed_lines(PromptSet())
    assert "Which item will the user choose?" in lines and "The user's newer choices, oldest first:" in lines
    assert all(len(tokenizer.encode(line)) == 1 for line in lines)
    assert not any(tiny._SLOT in line for line in lines)
    pair = (Interaction("Comedy about wolves", "Thriller set in Tokyo"),)
    assert len(tokenizer.apply_chat_template(PromptSet().infer(pair), add_generation_prompt=True)["input_ids"]) < 50


def test_only_the_control_tokens_are_special(tokenizer):
    assert set(tokenizer.all_special_tokens) <= set(tiny.CONTROL)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    ids = tokenizer.encode("<think>\nWhy.\n</think>\n\nSo.<|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>\nWhy.\n</think>\n\nSo."


def test_chat_format_is_that_of_qwen3(tokenizer):
    question, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "<think>\nR\n</think>\n\nA"}

    def render(messages, **options):
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    start = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    assert render([question], add_generation_prompt=True) == start
    assert render([question], add_generation_prompt=True, enable_thinking=True) == start
    assert render([question], add_generation_prompt=True, enable_thinking=False) == start + "<think>\n\n</think>\n\n"
    assert render([question, answer]) == start + "<think>\nR\n</think>\n\nA<|im_end|>\n"
    # Earlier turns lose their reasoning; a last turn without one gets an empty block.
    assert render([question, answer, question]) == start + "A<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n"
    assert render([question, {"role": "assistant", "content": "A"}]) == start + "<think>\n\n</think>\n\nA<|im_end|>\n"
    begun = [{"role": "system", "content": "S"}, question, {"role": "assistant", "content": '{"selection": "Item'}]
    assert render(begun, continue_final_message=True) == (
        "<|im_start|>system\nS<|im_end|>\n" + start + '<think>\n\n</think>\n\n{"selection": "Item'
    )


def test_completion_tokens_follow_the_prompt_tokens(tokenizer):
    prompt = PromptSet().judge("Loves water.", None, "Comedy on an island", "Chase in the subway")
    for answer in ('{"selection": "Item B"}', '<think>\nItem A: water liked.\n</think>\n\n{"selection": "Item A"}'):
        before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}])["input_ids"]
        assert whole[: len(before)] == before
        assert tokenizer.decode(whole[len(before) :]).endswith(answer + "<|im_end|>\n")


def test_command_writes_a_model_that_transformers_loads(tmp_path, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny.write_model(tiny.TinyOptions(out=str(tmp_path), seed=3, layers=2))
    model, loaded = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.model_type == "qwen3" and model.config.head_dim == 32
    assert loaded.encode("Comedy on an island") == tokenizer.encode("Comedy on an island")
    assert loaded.chat_template == tokenizer.chat_template
    same = tiny.make_model(loaded, 3, 128, 2).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    other = tiny.make_model(loaded, 4, 128, 2).state_dict()
    assert not torch.equal(same["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
