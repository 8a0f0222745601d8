"""Which rows an optimizer step trains, and in which passes it goes through them: padded, or packed end to end.

Used by `trainer.py`. The rows of a step depend on seed, epoch and effective batch alone. How they are laid into passes
depends on the machine and changes nothing but speed: the loss of a step is a mean over all of its trained tokens.
"""

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from datasets import Dataset

from alignxplore.sft.run_folder import RunError


class StepSampler(torch.utils.data.Sampler):
    """Row numbers of one epoch, a new permutation each, as whole optimizer steps.

    Which rows belong to a step depends on seed, epoch and effective batch only, never on the number of processes or
    the micro-batch: that is what makes losses agree between 1 and 64 GPUs. Within a step rows stand in the order of
    their length, so that a micro-batch needs little padding and the ranks finish together. The rows left over at the
    end of an epoch (fewer than a step) are left out; other ones each epoch.

    Args:
        lengths: tokens of each row.
        batch: rows of an optimizer step.
        epoch: asked at the start of each pass, so that a resumed run needs no bookkeeping.
        longest_first: the step with the longest row and the one with the most tokens open the first epoch, and the
            longest rows their step, so that what does not fit into memory shows at once. Two steps, since only the
            second one finds the optimizer's memory taken.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch: int,
        seed: int,
        epoch: Callable[[], int] = int,
        longest_first: bool = False,
    ):
        if len(lengths) < batch:
            raise RunError(
                f"{len(lengths)} rows are fewer than one optimizer step ({batch} rows); lower effective_batch_size"
            )
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, epoch
        self.longest_first = longest_first

    def __len__(self) -> int:
        return len(self.lengths) // self.batch * self.batch

    def steps(self, epoch: int) -> list[list[int]]:
        """The rows of each step of an epoch."""
        generator = torch.Generator().manual_seed(self.seed + 1000003 * epoch)
        rows = StepSampler.__len__(self)
        order = torch.randperm(len(self.lengths), generator=generator)[:rows].tolist()
        steps = [
            sorted(
                order[start : start + self.batch],
                key=lambda row: (self.lengths[row], row),
                reverse=self.longest_first,
            )
            for start in range(0, rows, self.batch)
        ]
        if self.longest_first and epoch == 0:
            steps.insert(0, steps.pop(max(range(len(steps)), key=lambda step: self.tokens(steps[step]))))
            steps.insert(0, steps.pop(max(range(len(steps)), key=lambda step: self.lengths[steps[step][0]])))
        return steps

    def tokens(self, rows: Sequence[int]) -> int:
        """Tokens of some rows."""
        return sum(self.lengths[row] for row in rows)

    def __iter__(self) -> Iterator[Any]:
        yield from chain.from_iterable(self.steps(self.epoch()))


class PackSampler(StepSampler):
    """The same steps as packs: tuples of row numbers, the same number of packs for each process and each step.

    Args:
        passes: packs of one process in a step (`passes_needed`).
        processes: accelerate deals the packs out to them in turn.
    """

    def __init__(self, *arguments: Any, passes: int, processes: int, **options: Any):
        super().__init__(*arguments, **options)
        self.packs = passes * processes

    def __len__(self) -> int:
        return len(self.lengths) // self.batch * self.packs

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for rows in self.steps(self.epoch()):
            yield from map(tuple, packed(rows, self.lengths, self.packs))


class Packs(torch.utils.data.Dataset):
    """Rows of a prepared set laid end to end, as TRL's collator takes them: asked for by tuples of row numbers."""

    def __init__(self, rows: Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: tuple[int, ...]) -> dict[str, list[int]]:
        columns = self.rows[list(numbers)]
        pack = {name: list(chain.from_iterable(columns[name])) for name in ("input_ids", "labels")}
        return pack | {"seq_lengths": [len(ids) for ids in columns["input_ids"]]}


def packed(rows: Sequence[int], lengths: Sequence[int], packs: int) -> list[list[int]]:
    """Rows in so many packs of about the same number of tokens, the fullest first: each row, from the longest on, goes
    where the fewest tokens are. None is empty where there are as many rows as packs."""
    rows_of_pack: list[list[int]] = [[] for _ in range(packs)]
    heap = [(0, pack) for pack in range(packs)]
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        tokens, pack = heap[0]
        rows_of_pack[pack].append(row)
        heapq.heapreplace(heap, (tokens + lengths[row], pack))
    return [rows_of_pack[pack] for tokens, pack in sorted(heap, reverse=True)]


def passes_needed(sampler: StepSampler, steps: int, processes: int, tokens: int) -> int:
    """Passes of each process in every step of a run, the fewest with which no pack holds more than `tokens` tokens.

    The same number for all steps: then a resumed run finds its place, and DeepSpeed its boundary, as without packs.

    Args:
        steps: optimizer steps of the run.

    Raises:
        RunError: a single row is longer.
    """
    lengths = sampler.lengths
    if (longest_row := max(lengths)) > tokens:
        raise RunError(f"packed_tokens {tokens} is less than the longest row ({longest_row} tokens); raise it")
    per_epoch = len(lengths) // sampler.batch
    plan = chain.from_iterable(sampler.steps(epoch) for epoch in range(math.ceil(steps / per_epoch)))
    heaviest = sorted(islice(plan, steps), key=sampler.tokens, reverse=True)  # what does not fit is soon found
    passes, limit = max(1, math.ceil(sampler.tokens(heaviest[0]) / (processes * tokens))), sampler.batch // processes
    while passes < limit and any(
        sampler.tokens(packed(rows, lengths, passes * processes)[0]) > tokens for rows in heaviest
    ):
        passes += 1
    return passes
