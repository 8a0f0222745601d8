"""Teach the tiny models of the quick start what Qwen3 brings along: to read choices (the base), to foresee one (the
judges).

    python -m alignxplore.world.lessons --base models/untaught --data data/reader.jsonl --out models/base --seed 1
    python -m alignxplore.world.lessons --base models/untaught --data data/judge.jsonl --out models/judge --seed 11

Next tokens alone teach a small model neither for a long time. Whether an item is preferred is a parity of what its
words mean, whether they are liked, and where they stand. So a linear probe on the last layer but one learns along.
From each phrase it learns what the phrase speaks for (a letter, or a value). It is thrown away afterwards (deep
supervision: Lee et al. 2015, arXiv 1409.5185). The loss is on the probe and on the few tokens that a row names, not on
the whole answer. Neither model has learnt to write a summary, in any format.

Suffixes of arrays: `B` rows of a batch, `T` tokens, `L` tokens that are learnt, `V` vocabulary. Of the
probe: `P` phrases, `H` width of a state, `C` classes.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignxplore import model_folders
from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import above_zero
from alignxplore.journal import RunLock
from alignxplore.records import RecordError, hash_seed, read_jsonl, write_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

GROUP = 20  # batches whose rows are sorted by length together
SCALE = 2.5  # of the initial weights (std 0.02 in Qwen3): small models leave the first plateau sooner
REPORT_SECONDS = 10


@dataclass(kw_only=True)
class LessonOptions(Checkable):
    """Which model learns what."""

    base: str = option("folder of alignxplore.world.tiny: tokenizer and architecture (weights are drawn anew)")
    data: str = option("reader.jsonl, judge.jsonl or judge2.jsonl of alignxplore.world")
    out: str = option("folder for the model; one that is there is kept")
    seed: int = option("seed of weights and order", 0)
    batch: int = option("rows a step", 16)
    learning_rate: float = option("peak of the learning rate", 2e-3)

    def __post_init__(self) -> None:
        above_zero(self, "batch", "learning_rate")


@dataclass(frozen=True)
class Lesson:
    """Token ids, the places of the tokens to be foreseen, and by probe (place, class or classes) of what it is to see
    there; `instead`: another token for the last of these places, and its probability."""

    ids: list[int]
    learn: list[int]
    votes: dict[str, list[tuple[int, Any]]]
    instead: tuple[int, float] | None = None

    def answers(self) -> Iterator[tuple[int, int, float]]:
        """(place, token, its probability) of all that is to be foreseen."""
        for place in self.learn:
            yield place, self.ids[place], 1 - self.instead[1] if self.instead and place == self.learn[-1] else 1.0
        if self.instead:
            yield self.learn[-1], *self.instead


class Probe(NamedTuple):
    """A linear reading of the hidden states that enter a layer (negative: counted from the last one); `many`: of
    several classes, one of which comes next."""

    layer: int
    classes: int
    weight: float = 1.0
    many: bool = False


def read_lessons(path: str | Path, tokenizer: "PreTrainedTokenizerFast") -> tuple[list[Lesson], list[str]]:
    """Rows of `alignxplore.world` with `votes`, `after` and `learn` → lessons, and the classes that the votes name.

    Raises:
        RecordError: a row of another kind, by file and line.
    """
    lessons: list[Lesson] = []
    classes: dict[str, int] = {}
    for line, row in read_jsonl(path):
        if not {"prompt", "completion", "votes", "after", "learn"} <= set(row):
            raise RecordError(
                "not a lesson: it needs prompt, completion, votes, after and learn (alignxplore.world writes them)",
                path,
                line,
            )
        text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ends = {end: place for place, (_, end) in enumerate(encoded["offset_mapping"])}
        at, votes = text.rindex(row["after"]) + len(row["after"]), []
        for words, vote in row["votes"]:
            at = text.index(words, at) + len(words)
            votes.append((ends[at], classes.setdefault(vote, len(classes))))
        start = text.rindex(row["learn"])
        learn = [place for end, place in ends.items() if start < end <= start + len(row["learn"])]
        lessons.append(Lesson(encoded["input_ids"][: learn[-1] + 1], learn, {"phrases": votes}))
    return lessons, list(classes)


def batches(lessons: Sequence[Lesson], size: int, seed: int) -> Iterator[list[Lesson]]:
    """Every lesson once, in batches of similar length, in an order drawn from the seed."""
    import numpy as np

    generator = np.random.default_rng(seed)
    for start in range(0, len(lessons), size * GROUP):
        group = sorted(lessons[start : start + size * GROUP], key=lambda lesson: len(lesson.ids))
        cut = [group[i : i + size] for i in range(0, len(group), size)]
        yield from (cut[i] for i in generator.permutation(len(cut)))


def save(model: "Qwen3ForCausalLM", tokenizer: "PreTrainedTokenizerFast", out: Path, facts: dict) -> None:
    """Write a model folder aside, with training.json, and rename it."""
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    model_folders.save(model, tokenizer, aside)
    write_json(aside / "training.json", facts)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(aside, out)


def _probe_loss(logits_PC: "Tensor", votes: Sequence, many: bool) -> "Tensor":
    """Cross-entropy of the class, or of all classes that there may be, each as probable as the others."""
    import torch
    import torch.nn.functional as F

    if not many:
        return F.cross_entropy(logits_PC, torch.tensor(votes))
    share_PC = torch.zeros_like(logits_PC)
    for row, classes in zip(share_PC, votes, strict=True):
        row[list(classes)] = 1 / len(classes)
    return F.cross_entropy(logits_PC, share_PC)


def train(
    base: Path,
    lessons: Sequence[Lesson],
    probes: Mapping[str, Probe],
    out: Path,
    *,
    seed: int,
    batch: int,
    learning_rate: float,
) -> float:
    """One pass over the lessons, from weights drawn anew. Writes `out` aside and renames it; the caller holds its
    lock. Returns the last mean loss."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(hash_seed("tiny weights", seed))
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(SCALE)
    heads = torch.nn.ModuleDict(
        {name: torch.nn.Linear(model.config.hidden_size, probe.classes) for name, probe in probes.items()}
    )
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
    steps = -(-len(lessons) // batch)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (0.05 * steps), (steps - step) / (0.3 * steps))
    )
    began = spoke = time.monotonic()
    mean = 0.0
    for number, members in enumerate(batches(lessons, batch, seed), 1):
        ids_BT = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(lesson.ids) for lesson in members], True, tokenizer.pad_token_id
        )
        outputs = model.model(input_ids=ids_BT, output_hidden_states=True, use_cache=False)
        answers = [(i, *answer) for i, lesson in enumerate(members) for answer in lesson.answers()]
        row_L, place_L, token_L = torch.tensor([answer[:3] for answer in answers]).unbind(1)
        share_L = torch.tensor([answer[3] for answer in answers])
        logits_LV = model.lm_head(outputs.last_hidden_state[row_L, place_L - 1])
        text_loss = (share_L * F.cross_entropy(logits_LV, token_L, reduction="none")).sum() / share_L.sum()
        loss = text_loss
        for name, probe in probes.items():
            votes = [(i, place, vote) for i, lesson in enumerate(members) for place, vote in lesson.votes[name]]
            if not votes:
                continue
            row_P, place_P = torch.tensor([vote[:2] for vote in votes]).unbind(1)
            hidden_PH = F.rms_norm(outputs.hidden_states[probe.layer][row_P, place_P], (model.config.hidden_size,))
            loss = loss + probe.weight * _probe_loss(heads[name](hidden_PH), [vote[2] for vote in votes], probe.many)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        mean += (text_loss.item() - mean) / min(number, 50)
        if time.monotonic() - spoke > REPORT_SECONDS or number == steps:
            spoke = time.monotonic()
            print(
                f"{out.name}: step {number}/{steps}  loss {mean:.3f}  "
                f"{(spoke - began) / number * (steps - number):.0f} s left",
                flush=True,
            )
    facts = {"loss": mean, "seed": seed, "lessons": len(lessons), "batch": batch, "learning_rate": learning_rate}
    save(model, tokenizer, out, facts)
    return mean


def teach(options: LessonOptions) -> str | None:
    """Train, unless the model is there; says if it is."""
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    base, out = Path(options.base), Path(options.out)
    if not base.is_dir():
        raise FileNotFoundError(f"--base {base}: no such folder")
    disable_progress_bar()  # of a file that is written in no time
    if (out / "training.json").exists():
        return f"{out} is there already; delete the folder to train it anew"
    lessons, classes = read_lessons(options.data, AutoTokenizer.from_pretrained(base))
    if options.check:
        steps = -(-len(lessons) // options.batch)
        return planned(options, f"{len(lessons)} lessons, {steps} steps of {options.batch}, {len(classes)} classes")
    size, rate = options.batch, options.learning_rate
    probes = {"phrases": Probe(-2, len(classes))}
    with RunLock(out, beside=True):  # in the folder it would be replaced with it
        train(base, lessons, probes, out, seed=options.seed, batch=size, learning_rate=rate)
    return None


if __name__ == "__main__":
    run(teach, LessonOptions, __doc__)
