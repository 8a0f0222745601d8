"""Training with and without packing inside a step, on rows of skewed lengths: real tokens a second, and the share of
positions that are padding.

    python benchmarks/packing.py                                       # a CPU and a tiny model: about 3 minutes
    python benchmarks/packing.py --model Qwen/Qwen3-1.7B --max-length 8192 --attention flash_attention_2      # a GPU

Four ways through the trainer of sft.py; the rows of a step are the same in all but the second:
    one row      one row a forward pass, as published (batch 1): no padding, small passes
    random       --batch rows a pass in random order, padded to the longest
    by length    the same, rows of a step in the order of their length: what sft.py does with packing off
    packed       --packing: rows laid end to end up to --packed-tokens, attention kept inside each row
"theirs" is one row, "ours" is packed. Measured: seconds of forward, backward and optimizer, without the first step;
the ways take turns, and of three turns the fastest counts. On a CPU attention computes every packed position against
every other and masks afterwards. What packing gains on a GPU with variable-length attention cannot be seen there; the
share of padding is the same everywhere. The last line is JSON.
"""

import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import alignxplore  # noqa: F401  # isort: skip  # hears Ctrl-C from here on

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, PrinterCallback

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import at_least_one
from alignxplore.prompts import PromptSet
from alignxplore.sft import trainer as sft_trainer
from alignxplore.sft.configuration import TrainArguments
from alignxplore.sft.plan import plan_passes
from alignxplore.sft.run_folder import RunFolder
from alignxplore.sft.stored_set import FEATURES
from alignxplore.sft.tokenised_set import row_lengths
from alignxplore.world.tiny import make_model, make_tokenizer

WAYS = ("one row", "random", "by length", "packed")
TURNS = 3
PROMPT_SHARE = 0.8  # of a row's tokens; the rest is trained


@dataclass(kw_only=True)
class PackingOptions(Checkable):
    """Which model, how many rows."""

    model: str | None = option("Hub id or folder; default: a tiny Qwen3 made here", None)
    max_length: int = option("longest row", 1024)
    packed_tokens: int | None = option("most tokens of a packed pass; default: --max-length", None)
    batch: int = option("rows of a padded forward pass", 8)
    rows_per_step: int = option("rows of an optimizer step", 32)
    steps: int = option("steps measured each way", 4)
    attention: str = option("attention implementation", "sdpa")

    def __post_init__(self) -> None:
        at_least_one(self, "max_length", "packed_tokens", "batch", "rows_per_step", "steps")


def make_rows(count: int, max_length: int, tokenizer) -> Dataset:
    """Rows with log-normal lengths, median a tenth of the longest; text of random words, with the turn's opening and
    end in place."""
    rng = random.Random(0)
    opening, end = sft_trainer.generation_prompt(tokenizer), tokenizer.eos_token_id
    words = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for _ in range(count):
        length = max(24, min(max_length, round(max_length / 10 * rng.lognormvariate(0, 1))))
        prompt = rng.choices(words, k=round(PROMPT_SHARE * length) - len(opening)) + opening
        answer = rng.choices(words, k=length - len(prompt) - 1) + [end]
        rows["input_ids"].append(prompt + answer)
        rows["labels"].append([-100] * len(prompt) + answer)
    return Dataset.from_dict(rows, features=FEATURES)


class CountingTrainer(sft_trainer.Trainer):
    """The trainer of sft.py that also counts what it is given, from the second optimizer step on (the first one
    allocates)."""

    random_order = False
    tokens = positions = 0
    began: float | None = None

    def _get_train_sampler(self, train_dataset=None):
        if self.random_order:
            return torch.utils.data.RandomSampler(self.train_dataset, generator=torch.Generator().manual_seed(1))
        return super()._get_train_sampler(train_dataset)

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step and self.began is None:
            self.began = time.perf_counter()
        if self.began is not None:
            shape = inputs["input_ids"]
            self.tokens += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else shape.numel()
            self.positions += shape.numel()
        return super().training_step(model, inputs, num_items_in_batch)


def measure(way: str, options: PackingOptions, model: str, tokenizer, rows: Dataset, folder: Path) -> dict:
    """Train one step and then --steps more, one way; returns tokens a second and the share of padding."""
    has_accelerator = torch.accelerator.is_available()
    args = TrainArguments(
        output_dir=str(folder / way.replace(" ", "_")),
        effective_batch_size=options.rows_per_step,
        per_device_train_batch_size=1 if way == "one row" else options.batch,
        packing=way == "packed",
        packed_tokens=options.packed_tokens,
        max_length=options.max_length,
        max_steps=options.steps + 1,
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
        learning_rate=1e-4,
        seed=1,
        model_init_kwargs={
            "dtype": "bfloat16" if has_accelerator else "float32",
            "attn_implementation": options.attention,
        },
    )
    plan_passes(args, row_lengths(rows))
    trainer = CountingTrainer(
        run=RunFolder(args.output_dir), model=model, args=args, train_dataset=rows, processing_class=tokenizer
    )
    trainer.random_order = way == "random"
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    if has_accelerator:
        torch.accelerator.synchronize()
    seconds = time.perf_counter() - trainer.began
    return {
        "tokens_per_second": trainer.tokens / seconds,
        "padding": 1 - trainer.tokens / trainer.positions,
        "tokens": trainer.tokens,
    }


def compare(options: PackingOptions) -> str | None:
    """All ways through the same rows."""
    if options.check:
        return planned(options)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), options.model
        if model is None:
            tokenizer = make_tokenizer(1, 1024, PromptSet())
            model = str(folder / "model")
            make_model(tokenizer, 1, hidden=128, layers=3).save_pretrained(model)
            tokenizer.save_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
        rows = make_rows(2 * (options.steps + 1) * options.rows_per_step, options.max_length, tokenizer)
        turns = [{way: measure(way, options, model, tokenizer, rows, folder) for way in WAYS} for _ in range(TURNS)]
    best_of = {way: max((turn[way] for turn in turns), key=lambda row: row["tokens_per_second"]) for way in WAYS}
    for way, row in best_of.items():
        print(
            f"{way:>10}: {row['tokens_per_second']:9,.0f} tokens/s, {100 * row['padding']:4.1f} % padding, "
            f"{row['tokens']:,} tokens"
        )
    ours, theirs = best_of["packed"]["tokens_per_second"], best_of["one row"]["tokens_per_second"]
    device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    print(
        json.dumps(
            {
                "name": "packing",
                "ratio": round(ours / theirs, 2),
                "goal": "none on a CPU",
                "ours": round(ours),
                "theirs": round(theirs),
                "unit": f"tokens/s on {device}, {options.attention}",
                "n": best_of["packed"]["tokens"],
                "against_by_length": round(ours / best_of["by length"]["tokens_per_second"], 2),
                "padding": {way: round(row["padding"], 3) for way, row in best_of.items()},
            }
        )
    )
    return None


if __name__ == "__main__":
    run(compare, PackingOptions, __doc__)
