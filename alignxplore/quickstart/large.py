"""A Qwen3 of the size of Qwen3-0.6B with random weights, and SFT rows for it: what speed is measured with.

    python -m alignxplore.quickstart.large --tokenizer models/blank --out models/large --rows data/long.jsonl

Nothing is downloaded. The tokenizer is that of the tiny models, filled up to Qwen3's 151,936 entries. So a logit costs
what it costs there, and each can be written by the rollouts that the trainer counts.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignxplore.command import option, run
from alignxplore.model_folders import save
from alignxplore.records import hash_seed, write_jsonl
from alignxplore.world.text import reasoning_text
from alignxplore.world.tiny import sample_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config

SHAPE = "Qwen/Qwen3-0.6B"


@dataclass(kw_only=True)
class LargeOptions:
    """Which model and rows, and where they go."""

    tokenizer: str = option("folder with the tokenizer of the tiny models")
    out: str = option("folder that gets the model and its tokenizer")
    rows: str = option("file that gets the SFT rows")
    count: int = option("rows", 64)
    length: int = option("tokens of the longest row; the shortest has a quarter", 2048)
    tiny: bool = option("two layers and the tokenizer as it is, for a CPU", False)
    seed: int = option("of weights and rows", 1)


def fill_up(tokenizer: "PreTrainedTokenizerFast", entries: int) -> "PreTrainedTokenizerFast":
    """The same tokenizer with entries that no text is read as, up to so many."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] |= {f"unused{i}": i for i in range(len(tokenizer), entries)}
    filled = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        chat_template=tokenizer.chat_template,
    )
    if len(filled) != entries:
        raise ValueError(f"the tokenizer has {len(filled)} entries instead of {entries}")
    return filled


def shape(tiny: bool, tokenizer: "PreTrainedTokenizerFast") -> "Qwen3Config":
    """The configuration of Qwen3-0.6B, or of something that a CPU trains in no time."""
    from alignxplore.rl.memory import SHAPES, qwen3

    config = qwen3(*SHAPES[SHAPE])
    if tiny:
        config.update({"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "head_dim": 32})
        config.update({"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": len(tokenizer)})
        config.layer_types = config.layer_types[:2]
    config.update({"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id})
    config.update({"bos_token_id": None, "max_position_embeddings": 4096, "dtype": "float32"})
    return config


def long_rows(tokenizer: "PreTrainedTokenizerFast", options: LargeOptions) -> Iterator[dict]:
    """Rows whose lengths lie evenly between a quarter of the longest and the longest, a tenth of each the answer."""
    texts = sample_text(options.seed, 200)
    sizes = [len(tokenizer.encode(text)) for text in texts]
    for number in range(options.count):
        rng = random.Random(hash_seed("long rows", options.seed, number))
        length = options.length // 4 + (3 * options.length // 4) * number // max(1, options.count - 1)
        parts: list[list[str]] = [[], []]
        for part, share in zip(parts, (0.8, 0.1)):
            budget = share * length
            while budget > 0:
                chosen = rng.randrange(len(texts))
                part.append(texts[chosen])
                budget -= sizes[chosen]
        answer = f"<think>\n{reasoning_text({})}\n</think>\n\n{' '.join(parts[1])}"
        yield {
            "prompt": [{"role": "user", "content": "\n".join(parts[0])}],
            "completion": [{"role": "assistant", "content": answer}],
        }


def write_large(options: LargeOptions) -> str:
    """Write model, tokenizer and rows; says how large they are."""
    from transformers import AutoTokenizer, Qwen3ForCausalLM, set_seed
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    config = shape(options.tiny, tokenizer)
    tokenizer = tokenizer if options.tiny else fill_up(tokenizer, config.vocab_size)
    model = Qwen3ForCausalLM(config)
    model.generation_config.update(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id)
    save(model, tokenizer, options.out)
    count = write_jsonl(Path(options.rows), long_rows(tokenizer, options))
    return f"{options.out}: {model.num_parameters() / 1e6:.2f} M parameters, {len(tokenizer)} tokens; {count} rows"


if __name__ == "__main__":
    run(write_large, LargeOptions, __doc__)
