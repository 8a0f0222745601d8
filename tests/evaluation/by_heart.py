"""Tiny models that know by heart what they are to answer, in any format, for tests that ask them through real vLLM."""

from collections.abc import Sequence
from pathlib import Path

from alignxplore.prompts import FORMATS, Messages, PromptSet
from alignxplore.world import tiny

# The model's own text in each format, after what its chat template has written already.
WRITTEN = {
    "think": "<think>\n{reason}\n</think>\n\n{answer}<|im_end|>",
    "plain": "{answer}<|im_end|>",
    "r1": "{reason}\n</think>\n\n{answer}<|im_end|>",
    "answer": "{reason}\n</think>\n\n<answer>\n{answer}\n</answer><|im_end|>",
    "harmony": "<|channel|>analysis<|message|>{reason}<|end|>"
    "<|start|>assistant<|channel|>final<|message|>{answer}<|return|>",
}

Lesson = tuple[Messages, str, str]  # a prompt, the format of the answer, its final part


def learn(asked: dict[str, Sequence[Lesson]], templates: dict[str, str], reason: str, out: Path) -> dict[str, Path]:
    """A model folder for each name of `templates` (chat templates): the same weights, which have learnt all of
    `asked`."""
    from tokenizers import AddedToken

    tokenizer = tiny.make_tokenizer(1, 1024, PromptSet())
    channels = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in channels], special_tokens=True
    )
    prompts = []
    for name, template in templates.items():
        tokenizer.chat_template = template
        for lesson in asked[name]:
            reasons = FORMATS[lesson[1]].reasons
            prompt = tokenizer.apply_chat_template(
                lesson[0], add_generation_prompt=True, tokenize=False, enable_thinking=reasons
            )
            prompts.append((prompt, lesson))
    # A model this small has no use for reading or writing: each prompt is one token, and each long answer.
    known = dict.fromkeys([*(prompt for prompt, _ in prompts), *(text for _, (*_, text) in prompts if len(text) > 60)])
    tokenizer.add_tokens([AddedToken(prompt, special=False, normalized=False) for prompt in known])
    model = tiny.make_model(tokenizer, 1, 128, 2)
    rows = []
    for prompt, (_, form, answer) in prompts:
        text = WRITTEN[form].format(reason=reason, answer=answer)
        rows.append(
            (tokenizer.encode(prompt, add_special_tokens=False), tokenizer.encode(text, add_special_tokens=False))
        )
    _teach(model, tokenizer, rows)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|return|>")]
    for name, template in templates.items():
        tokenizer.chat_template = template
        model.save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
    return {name: out / name for name in templates}


def _teach(model, tokenizer, rows):
    """Learn the answers by heart: until each of their tokens has a probability of 0.9, which the sampling then makes
    certain."""
    import torch

    def log_p(chosen):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(prompt + answer) for prompt, answer in chosen], True, tokenizer.pad_token_id
        )
        labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in chosen]
        wanted = torch.nn.utils.rnn.pad_sequence(labels, True, -100)[:, 1:]
        found = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        return found[wanted >= 0]

    size, steps = min(64, len(rows)), 480
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    generator, order = torch.Generator().manual_seed(0), []
    for step in range(1, steps + 1):
        order = order if len(order) >= size else torch.randperm(len(rows), generator=generator).tolist()
        (-log_p([rows[order.pop()] for _ in range(size)]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step >= 120 and step % 40 == 0:
            with torch.no_grad():
                if log_p(rows).min().exp() > 0.9:
                    return
    raise AssertionError("the tiny model did not learn its answers by heart")
