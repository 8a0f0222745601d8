"""The tiny models of the quick start: a tokenizer made for the simulated world and an untrained Qwen3 of about 1 M
parameters.

    python -m alignxplore.world.tiny --out runs/world/models/base --seed 1

writes a normal Hugging Face folder. The policy starts from it, and so does each judge (with a seed of its own).

Real are the Qwen3 architecture, a byte-level BPE that can encode any text, and Qwen3's chat format. In that format
`<think>` is an ordinary token, `enable_thinking` works, and reasoning is removed from earlier turns. One thing is a
trick of these models only: each fixed line of the default prompts is a single token. A model this small has no use for
reading instructions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignxplore.command import option, run
from alignxplore.model_folders import save
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.world.text import DOMAINS, PHRASINGS, reasoning_text
from alignxplore.world.users import draw_choice, draw_user, render_summary, tally

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LINE = 20  # characters from which on a fixed prompt line becomes a token of its own
LABELS = ("Chosen:", "Passed over:")  # shorter, but they stand before every item
_SLOT = "\u241f"  # stands for what a prompt is filled with, to find the lines that are always the same

# Qwen3's chat format, written for text messages: the last turn of the assistant always has a think block (an empty
# one where the message brings none), turns before the last question never do.
CHAT_TEMPLATE = """
{%- set ns = namespace(last_question=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last_question = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' %}
    {%- set reasoning, answer = '', m.content %}
    {%- if '</think>' in m.content %}
        {%- set reasoning = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
        {%- set answer = m.content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if loop.index0 > ns.last_question and (loop.last or reasoning) %}
        {{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' + answer }}
    {%- else %}
        {{- answer }}
    {%- endif %}
{%- else %}
    {{- m.content }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


@dataclass(kw_only=True)
class TinyOptions:
    """Which model, and where it goes."""

    out: str = option("folder that gets the model and its tokenizer")
    seed: int = option("seed of the weights", 1)
    world_seed: int = option("seed of the text from which the tokenizer is learnt; policy and judges may differ", 1)
    vocabulary: int = option("most entries of the tokenizer; fewer if the text has no more words", 1024)
    hidden: int = option("hidden size, a multiple of 32", 128)
    layers: int = option("number of transformer layers", 3)
    prompt_set: str = option("prompt set whose fixed lines become tokens: a name or a folder", "default")

    def __post_init__(self) -> None:
        if self.hidden < 32 or self.hidden % 32:
            raise ValueError("--hidden must be a multiple of 32, the size of an attention head")


def fixed_lines(prompts: PromptSet) -> list[str]:
    """The lines of the prompts that stay the same whatever they are filled with, longest first."""
    filled = (Interaction(_SLOT, _SLOT),)
    rendered: list[Messages] = [
        prompts.infer(filled),
        prompts.infer(filled, _SLOT),
        prompts.judge(_SLOT, None, _SLOT, _SLOT),
        prompts.judge(None, None, _SLOT, _SLOT),
        prompts.direct(filled, None, _SLOT, _SLOT),
    ]
    lines = {line for messages in rendered for message in messages for line in message["content"].splitlines()}
    return sorted(
        (line for line in lines if _SLOT not in line and len(line) >= LINE), key=lambda line: (-len(line), line)
    )


def sample_text(seed: int, users: int = 2000) -> list[str]:
    """Text of the world to learn the tokenizer's merges from: items as prompts show them, summaries, reasoning,
    answers."""
    texts = []
    for index in range(users):
        user = draw_user(seed, "tokenizer", index)
        rng = random.Random(hash_seed("tokenizer text", seed, index))
        choice = draw_choice(user.late, rng.choice(DOMAINS), rng)
        interaction = choice.interaction
        summary = render_summary(user.late, rng, phrasing=rng.choice(list(PHRASINGS)))
        texts.append(f"{index % 12 + 1}.\nChosen: {interaction.chosen}\nPassed over: {interaction.rejected}\n")
        texts.append(f"user\nsystem\nassistant\n\n{reasoning_text(tally([choice]))}\n\n{summary}\nNothing.\n")
        items = f"Item A: {interaction.chosen}\nItem B: {interaction.rejected}"
        texts.append(f'{items}\n{{"selection": "Item {"AB"[index % 2]}"}}')
    return texts


def make_tokenizer(seed: int, vocabulary: int, prompts: PromptSet) -> "PreTrainedTokenizerFast":
    """Byte-level BPE with at most `vocabulary` entries, the control tokens and the fixed lines included."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    ordinary = ["<think>", "</think>", *fixed_lines(prompts), *LABELS]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONTROL) - len(ordinary),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    bpe.train_from_iterator(sample_text(seed), trainer)
    return chat_tokenizer(bpe, [AddedToken(token, special=False, normalized=False) for token in ordinary])


def chat_tokenizer(bpe: "Tokenizer", ordinary: "Sequence[AddedToken]") -> "PreTrainedTokenizerFast":
    """A learnt tokenizer with the control tokens, then the `ordinary` ones, and Qwen3's chat format."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    bpe.add_tokens(list(ordinary))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE.lstrip("\n"),
    )


def make_model(
    tokenizer: "PreTrainedTokenizerFast", seed: int, hidden: int, layers: int, *, attentive: bool = False
) -> "Qwen3ForCausalLM":
    """A randomly initialised Qwen3 in fp32. head_dim is 32, the least that vLLM's CPU attention takes.

    Most parameters are in feed-forward layers, as Qwen3's are; those of an `attentive` one are in its attention.
    """
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(seed)
    heads = hidden // 32 * (3 if attentive else 1)
    config = Qwen3Config(
        # No more: an id that the tokenizer lacks is never written by verl's rollouts, but counted by its trainer.
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden if attentive else 5 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads if attentive else max(1, heads // 2),
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    return model


def write_model(options: TinyOptions) -> str:
    """Write tokenizer and model; says how large they are."""
    from transformers.utils.logging import disable_progress_bar

    tokenizer = make_tokenizer(options.world_seed, options.vocabulary, PromptSet(options.prompt_set))
    disable_progress_bar()  # of a file that is written in no time
    model = make_model(tokenizer, options.seed, options.hidden, options.layers)
    save(model, tokenizer, options.out)
    return f"{options.out}: {model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens"


if __name__ == "__main__":
    run(write_model, TinyOptions, __doc__)
