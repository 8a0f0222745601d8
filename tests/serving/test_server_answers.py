"""What real vLLM answers to all ways of asking it, compared with transformers (slow)."""

import asyncio

import psutil
import pytest

from alignxplore.judging.judgement import JudgeError
from alignxplore.judging.letters import Judge, find_letters
from alignxplore.judging.sampled import ask_paper
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import Endpoint
from alignxplore.serving.server import serve
from alignxplore.summarize import Plan, Sampling, summarize

ARGUMENTS = ("--max-model-len", "1024", "--max-num-seqs", "32")
ITEM = Interaction("a quiet film by the sea", "a loud film with cars", "Which film?")


@pytest.fixture(scope="module")
def tiny_qwen3(tmp_path_factory, tokenizer):
    """A randomly initialised Qwen3 of 0.1 million parameters with the shared tokenizer."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        head_dim=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config).float().eval()
    model.generation_config = GenerationConfig(eos_token_id=eos, pad_token_id=pad)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def reference(model, tokenizer, prompts, summary, a, b):
    """(P(A), P(B)) by transformers over the whole vocabulary, at the position where the judge reads."""
    import torch

    letters = find_letters(tokenizer)
    messages = [*prompts.judge(summary, ITEM.query, a, b), {"role": "assistant", "content": letters.prefill}]
    ids = tokenizer.apply_chat_template(
        messages, continue_final_message=True, tokenize=True, return_dict=False, enable_thinking=False
    )
    with torch.no_grad():
        p = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    return [float(p[i]) for i in letters.tokens]


@pytest.mark.slow
async def test_real_vllm(tiny_qwen3, tokenizer, tmp_path, monkeypatch):
    """Both ways of asking agree with transformers; a random model is refused as a judge; nothing is left running. No
    compiler is needed."""
    for name, value in (("CXX", "/no/compiler"), ("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    folder, model = tiny_qwen3
    prompts = PromptSet()
    before = set(
        psutil.Process().children(recursive=True)
    )  # what earlier tests of this run left to the interpreter's end
    async with serve(str(folder), log_path=tmp_path / "serve.log", arguments=ARGUMENTS) as url:
        own_children = set(psutil.Process().children(recursive=True)) - before
        async with Endpoint(url) as endpoint:
            assert endpoint.root == str(folder) and endpoint.max_model_len == 1024
            judge = Judge(endpoint, tokenizer, prompts)
            (a1, b1), (a2, b2) = (
                reference(model, tokenizer, prompts, "Likes the sea.", *pair)
                for pair in ((ITEM.chosen, ITEM.rejected), (ITEM.rejected, ITEM.chosen))
            )
            judgement = await judge.score("Likes the sea.", ITEM, "k")
            assert judge.reader._reads_ids is True and judge.reader._together is not None
            assert judgement.orders == pytest.approx((a1 / (a1 + b1), b2 / (a2 + b2)), abs=1e-4)
            assert judgement.mass == pytest.approx((a1 + b1 + a2 + b2) / 2, rel=1e-3)

            older = Judge(endpoint, tokenizer, prompts)
            older.reader._reads_ids = False  # as with a server that does not know the field
            again = await older.score("Likes the sea.", ITEM, "k")
            assert again.orders == pytest.approx(judgement.orders, abs=1e-4)
            assert again.mass <= judgement.mass + 1e-6  # a letter outside the twenty best is not in it

            with pytest.raises(JudgeError, match="is no judge: only .* most probable: "):
                await judge.check([("Likes the sea.", ITEM)])
            summaries = (
                "the sea " * 3000,
                "the sea " * 900,
                "Likes the sea.",
            )  # too long for one request, for the model
            *too_long, fits = await asyncio.gather(*(judge.score(text, ITEM, "k") for text in summaries))
            assert all(one.status == "request_error" and "1024" in one.error for one in too_long)
            assert fits.orders == pytest.approx(judgement.orders, abs=1e-4)
            sampled = [await ask_paper(judge, "Likes the sea.", ITEM, "k") for _ in range(2)]
            assert sampled[0].ok and sampled[0] == sampled[1]

            sampling, plan = Sampling(max_tokens=24, seed=1), Plan([[ITEM] * 3, [ITEM] * 90], 1000)
            chains = [await summarize(endpoint, tokenizer, prompts, plan, sampling, "u", 1024) for _ in range(2)]
            assert chains[0] == chains[1] and chains[0].status == "ok"  # the seed decides
            first, second = chains[0].stages
            assert first.dropped == 0 and 0 < second.dropped < 90 and 0 < first.tokens <= 24
            counted = await endpoint.chat(
                prompts.infer([ITEM] * 3), max_tokens=1, chat_template_kwargs={"enable_thinking": True}
            )
            assert counted["usage"]["prompt_tokens"] == first.prompt_tokens  # we count what the server counts
            together = await asyncio.gather(*(judge.score("Likes the sea.", ITEM, i) for i in range(40)))
            assert all(other.orders == pytest.approx(judgement.orders, abs=1e-4) for other in together)
    assert own_children and not psutil.wait_procs(own_children, timeout=60)[1]
