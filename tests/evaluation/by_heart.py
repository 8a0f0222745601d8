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


def learn(
    lessons_of: dict[str, Sequence[Lesson]],
    templates: dict[str, str],
    reason: str,
    out: Path,
    one_token_prompts: bool = False,
) -> dict[str, Path]:
    """A model folder for each name of `templates` (chat templates): the same weights, which have learnt all of
    `lessons_of`. `one_token_prompts`: each prompt is one token, and prompts of one answer are the same to it; so
    hundreds of lessons are learnt in seconds."""
    from tokenizers import AddedToken

    tokenizer = tiny.make_tokenizer(1, 1024, PromptSet())
    channels = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in channels], special_tokens=True
    )
    lessons = []
    for name, template in templates.items():
        tokenizer.chat_template = template
        for messages, form, answer in lessons_of[name]:
            reasons, text = FORMATS[form].reasons, WRITTEN[form].format(reason=reason, answer=answer)
            options = {"add_generation_prompt": True, "tokenize": False, "enable_thinking": reasons}
            lessons.append((tokenizer.apply_chat_template(messages, **options), text))
    texts = [message["content"] for rows in lessons_of.values() for messages, *_ in rows for message in messages]
    # A model this small has no use for reading instructions: each long line is one token.
    long = {line for text in texts for line in text.splitlines() if len(line) > 60}
    vocabulary = {prompt for prompt, _ in lessons} if one_token_prompts else long - tokenizer.get_vocab().keys()
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in sorted(vocabulary)])
    model = tiny.make_model(tokenizer, 1, 64, 2)
    rows = [tuple(tokenizer.encode(text, add_special_tokens=False) for text in lesson) for lesson in lessons]
    if one_token_prompts:
        _teach_once(model, tokenizer, rows)
    else:
        _teach(model, tokenizer, rows)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|return|>")]
    for name, template in templates.items():
        tokenizer.chat_template = template
        model.save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
    return {name: out / name for name in templates}


def _teach_once(model, tokenizer, rows):
    """Learn one lesson of each answer; then all prompts that have it are that one."""
    import torch

    first = {}
    for (prompt,), answer in rows:
        first.setdefault(tuple(answer), prompt)
    _teach(model, tokenizer, [([prompt], list(answer)) for answer, prompt in first.items()])
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for (prompt,), answer in rows:
            embeddings[prompt] = embeddings[first[tuple(answer)]]
    assert min(_least(model, tokenizer, rows[start : start + 64]) for start in range(0, len(rows), 64)) > 0.9


def _teach(model, tokenizer, rows):
    """Learn the answers by heart: until each of their tokens has a probability of 0.9, which the sampling then makes
    certain."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=400, pct_start=0.1)
    generator, order, size = torch.Generator().manual_seed(0), [], min(16, len(rows))
    for step in range(1, 401):
        order = order if len(order) >= size else torch.randperm(len(rows), generator=generator).tolist()
        batch = _batch(tokenizer, [rows[order.pop()] for _ in range(size)])
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        if step >= 120 and step % 40 == 0 and _least(model, tokenizer, rows) > 0.9:
            return
    raise AssertionError("the tiny model did not learn its answers by heart")


def _batch(tokenizer, rows):
    import torch

    ids = [torch.tensor(prompt + answer) for prompt, answer in rows]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    return {"input_ids": pad(ids, True, tokenizer.pad_token_id), "labels": pad(labels, True, -100)}


def _least(model, tokenizer, rows):
    """The smallest probability of any token of the answers."""
    import torch

    batch = _batch(tokenizer, rows)
    labels_BT = batch["labels"][:, 1:]
    with torch.no_grad():
        log_p = model(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    return log_p.gather(-1, labels_BT.clamp(min=0)[..., None])[..., 0][labels_BT >= 0].exp().min()
