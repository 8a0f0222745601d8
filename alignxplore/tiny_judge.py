"""Train a judge of the quick start: a tiny Qwen3 that foresees a choice, from a preference text or from the raw history.

    python -m alignxplore.tiny_judge --base models/base --data data/judge.jsonl --out models/judge --seed 11

A letter a row alone teaches a small model nothing for a long time: whether an item is preferred is a parity of what its
words mean, whether the text likes them, and which letter the item has. So a linear probe on the middle layer learns along,
from each phrase of the two items, which letter the phrase speaks for; it is thrown away afterwards (deep supervision:
Lee et al. 2015, arXiv 1409.5185). The loss is on the letter and on the probe, nothing else. The judge is then frozen.
"""

import argparse
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignxplore.judge import find_letters
from alignxplore.records import hash_seed, read_jsonl

log = logging.getLogger(__name__)

VOTES = {"B": 0, "none": 1, "A": 2}
GROUP = 20  # batches whose rows are sorted by length together
SCALE = 2.5  # of the initial weights (std 0.02 in Qwen3): small models leave the first plateau sooner
REPORT_SECONDS = 10


@dataclass(frozen=True)
class Row:
    """Token ids up to the letter, the letter's place, and (place, vote) of each phrase's last token."""

    ids: list[int]
    letter: int
    votes: list[tuple[int, int]]


def read_rows(path: Path, tokenizer) -> Iterator[Row]:
    """Rows of `alignxplore.world` → token places. The prompt is rendered as the judge will see it, with an empty think block."""
    letters = find_letters(tokenizer)
    for _, row in read_jsonl(path):
        text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ends = {end: place for place, (_, end) in enumerate(encoded["offset_mapping"])}
        letter = max(place for place, token in enumerate(encoded["input_ids"]) if token in letters.tokens)
        votes = []
        for name, phrases in row["votes"].items():
            at = text.rindex(f"\nItem {name}: ") + len(f"\nItem {name}: ")
            for words, vote in phrases:
                at = text.index(words, at) + len(words)
                votes.append((ends[at], VOTES[vote]))
        yield Row(encoded["input_ids"][: letter + 1], letter, votes)


def batches(rows: Sequence[Row], size: int, seed: int) -> list[list[Row]]:
    """Batches of rows of similar length, in a shuffled order."""
    import numpy as np

    generator = np.random.default_rng(seed)
    found = []
    for start in range(0, len(rows) - size + 1, size * GROUP):
        group = sorted(rows[start : start + size * GROUP], key=lambda row: len(row.ids))
        cut = [group[i : i + size] for i in range(0, len(group), size)]
        found += [cut[i] for i in generator.permutation(len(cut))]
    return found


def train(base: Path, rows: Sequence[Row], out: Path, *, seed: int, batch: int, learning_rate: float) -> None:
    """One pass over the rows; writes the folder `out` aside and renames it."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(hash_seed("judge weights", seed))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(SCALE)
    probe = torch.nn.Linear(model.config.hidden_size, len(VOTES))
    middle = model.config.num_hidden_layers - 1
    parameters = [*model.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    steps = batches(rows, batch, seed)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (0.05 * len(steps)), (len(steps) - step) / (0.3 * len(steps))))
    began = spoke = time.monotonic()
    mean = 0.0
    for number, members in enumerate(steps, 1):
        ids_BT = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.ids) for row in members], batch_first=True,
                                                 padding_value=tokenizer.pad_token_id)
        found = model.model(input_ids=ids_BT, output_hidden_states=True, use_cache=False)
        index_B, letter_B = torch.arange(len(members)), torch.tensor([row.letter for row in members])
        logits_BV = model.lm_head(found.last_hidden_state[index_B, letter_B - 1])
        letter_loss = F.cross_entropy(logits_BV, ids_BT[index_B, letter_B])
        places = [(i, place, vote) for i, row in enumerate(members) for place, vote in row.votes]
        i_P, place_P, vote_P = torch.tensor(places).unbind(1)
        hidden_PH = F.rms_norm(found.hidden_states[middle][i_P, place_P], (model.config.hidden_size,))
        (letter_loss + F.cross_entropy(probe(hidden_PH), vote_P)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        mean += (letter_loss.item() - mean) / min(number, 50)
        if time.monotonic() - spoke > REPORT_SECONDS or number == len(steps):
            spoke = time.monotonic()
            left = (spoke - began) / number * (len(steps) - number)
            print(f"{out.name}: step {number}/{len(steps)}  letter loss {mean:.3f} (0.693 knows nothing)  {left:.0f} s left", flush=True)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(aside, out)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder of alignxplore.tiny: tokenizer and architecture (weights are drawn anew)")
    parser.add_argument("--data", type=Path, required=True, help="judge.jsonl of alignxplore.world")
    parser.add_argument("--out", type=Path, required=True, help="folder for the judge")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="rows a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    args = parser.parse_args(argv)
    from transformers import AutoTokenizer

    if (args.out / "config.json").exists():
        print(f"{args.out}: this judge is there already; delete the folder to train it anew")
        return
    rows = list(read_rows(args.data, AutoTokenizer.from_pretrained(args.base)))
    train(args.base, rows, args.out, seed=args.seed, batch=args.batch, learning_rate=args.learning_rate)


if __name__ == "__main__":
    main()
