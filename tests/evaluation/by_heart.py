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
    texts = [message["content"] for rows in asked.values() for messages, *_ in rows for message in messages]
    # A model this small has no use for reading instructions: each long line is one token.
    lines = {line for text in texts for line in text.splitlines() if len(line) > 60} - tokenizer.get_vocab().keys()
    tokenizer.add_tokens([AddedToken(line, special=False, normalized=False) for line in sorted(lines)])
    model = tiny.make_model(tokenizer, 1, 64, 2)
    rows = []
    for name, template in templates.items():
        tokenizer.chat_template = template
        for messages, form, answer in asked[name]:
            prompt = tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
                enable_thinking=FORMATS[form].reasons,
            )
            text = WRITTEN[form].format(reason=reason, answer=answer)
            rows.append((list(prompt), tokenizer.encode(text, add_special_tokens=False)))
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

    def batch_of(chosen):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(prompt + answer) for prompt, answer in chosen], True, tokenizer.pad_token_id
        )
        labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in chosen]
        return {"input_ids": ids, "labels": torch.nn.utils.rnn.pad_sequence(labels, True, -100)}

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=400, pct_start=0.1)
    generator, order = torch.Generator().manual_seed(0), []
    for step in range(1, 401):
        order = order if len(order) >= 16 else torch.randperm(len(rows), generator=generator).tolist()
        model(**batch_of([rows[order.pop()] for _ in range(16)])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step >= 120 and step % 40 == 0:
            with torch.no_grad():
                batch = batch_of(rows)
                log_p = model(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
            wanted = batch["labels"][:, 1:]
            if log_p.gather(-1, wanted.clamp(min=0)[..., None])[..., 0][wanted >= 0].exp().min() > 0.9:
                return
    raise AssertionError("the tiny model did not learn its answers by heart")
